// The client on Bun, with a client on the published reference and one on Hearth:
//
//     bun interop.ts REFERENCE HEARTH
//
// It prints "ready" when both have joined the room lobby, and waits for the event news in it. The
// Go test in internal/test/interop runs it.
import assert from "node:assert/strict";
import { encryption } from "../src/encryption.js";
import { Client } from "../src/index.js";

const urls = process.argv.slice(2);
const clients = await Promise.all(
  urls.map(async (url, i) => {
    const client = new Client({ url, credentials: { name: `bun-${i}` } });
    const room = client.join("lobby");
    const echo = client.once("echo", { timeout: 10_000 });
    client.send("echo", { text: "é" }); // follows the join
    await client.connect({ timeout: 10_000 });
    assert.deepEqual(await echo, { text: "é" });
    await room.ready({ timeout: 10_000 });
    return client;
  }),
);
const [reference, hearth] = clients.map((c) => c.state);
assert.deepEqual([reference!.extension, reference!.recovery, reference!.userId], [false, false, "bun-0"]);
assert.deepEqual([hearth!.extension, hearth!.userId], [true, "bun-1"]);
// The reference does not answer the request, Hearth does.
await assert.rejects(clients[0]!.request("echo", 1, { timeout: 200 }), { code: "timeout" });
assert.equal(await clients[1]!.request("echo", 1), undefined);

for (const url of urls) {
  const encrypted = new Client({ url, credentials: { name: "eve" }, encryption: encryption() });
  await assert.rejects(encrypted.connect({ timeout: 10_000 }), { code: "closed", message: /does not encrypt/ });
}

const news = clients.map((c) => c.once("news", { timeout: 20_000 }));
console.log("ready");
for (const data of await Promise.all(news)) assert.deepEqual(data, { n: 1 });
for (const c of clients) c.close();
