import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, HearthError, ServerError } from "../src/index.js";
import { settle } from "./clock.js";
import { code, connected, rig } from "./rig.js";

test("messages reach their handlers in order", async (t) => {
  const { client, server } = await connected(t);
  const seen: unknown[] = [];
  const off = client.on("said", (data) => seen.push(["on", data]));
  client.onMessage((m) => seen.push([m.event, m.data]));
  const next = client.once("other");
  server.send("said", 1);
  server.send("other", { a: 1 });
  assert.deepEqual(await next, { a: 1 });
  off();
  server.send("said");
  server.send("hearth:later");
  server.send("connected");
  await settle();
  assert.deepEqual(seen, [["on", 1], ["said", 1], ["other", { a: 1 }], ["said", undefined]]);
});

test("an error in a handler is reported, and the others are called", async (t) => {
  const { client, server, errors } = await connected(t);
  const seen: unknown[] = [];
  client.on("said", () => {
    throw new Error("first");
  });
  client.on("said", (async () => {
    throw new Error("later");
  }) as () => void);
  client.on("said", (data) => seen.push(data));
  server.send("said", 1);
  await settle();
  assert.deepEqual(seen, [1]);
  assert.deepEqual(errors.map((e) => (e as Error).message), ["first", "later"]);
});

test("errors of the server and resync are events", async (t) => {
  const { client, peer } = await connected(t);
  const seen: unknown[] = [];
  client.on("error", (e) => seen.push(e.message));
  client.on("resync", (e) => seen.push(e.rooms));
  peer().send("error", { message: "Invalid message format" });
  peer().send("resync", { rooms: ["lobby"], targets: [] });
  await settle();
  assert.deepEqual(seen, ["Invalid message format", ["lobby"]]);
});

test("an iterator yields the messages since its creation, and ends", async (t) => {
  const { client, server } = await connected(t);
  const signal = new AbortController();
  const first = client.events("said");
  const second = client.events("said", { signal: signal.signal });
  for (const i of [1, 2, 3]) server.send("said", i);
  const seen: unknown[] = [];
  for await (const i of first) {
    seen.push(i);
    if (i === 3) break;
  }
  assert.deepEqual(seen, [1, 2, 3]);
  assert.equal((await first.next()).done, true, "after the loop has ended");
  assert.equal((await second.next()).value, 1);
  signal.abort();
  assert.deepEqual([(await second.next()).value, (await second.next()).value], [2, 3], "messages from before the end");
  assert.equal((await second.next()).done, true);

  const third = client.events("said");
  const waiting = third.next();
  client.close();
  assert.equal((await waiting).done, true);
  assert.equal((await client.events("said").next()).done, true, "of a closed client");
});

test("an iterator that is not read fails", async (t) => {
  const { client, server } = await connected(t);
  const slow = client.events("said");
  for (let i = 0; i < 1025; i++) server.send("said", i);
  await settle();
  for (let i = 0; i < 1024; i++) assert.equal((await slow.next()).value, i);
  assert.equal(await code(slow.next()), "queue_full");
  assert.equal((await slow.next()).done, true);
});

test("requests get replies, completions and errors", async (t) => {
  const { client, server, peer } = await connected(t);
  server.on("double", (n) => n * 2);
  server.on("note", () => undefined);
  server.on("fail", () => {
    throw new HearthError("forbidden", "Join the room first");
  });
  assert.equal(await client.request("double", 21), 42);
  assert.equal(await client.request("note"), undefined);
  await assert.rejects(client.request("fail"), (e) => e instanceof ServerError && e.code === "forbidden" && e.message === "Join the room first");
  assert.equal(await code(client.request("unknown")), "unknown_event");
  assert.equal(await code(client.request("join", {})), "invalid");
  assert.throws(() => client.send("hearth:x"), { code: "invalid" });
  assert.throws(() => client.send(""), { code: "invalid" });
  // An answer is not an event.
  client.onMessage(() => assert.fail("an answer"));
  peer().transmit({ event: "error", data: { message: "x" }, id: "none" });
  client.onMessage(() => {});
});

test("deadlines and signals end requests", async (t) => {
  const { client, server, clock, peer } = await connected(t, { requestTimeout: 700 });
  server.on("slow", () => new Promise(() => {}));
  const byDefault = client.request("slow");
  const byOption = client.request("slow", undefined, { timeout: 100 });
  const abort = new AbortController();
  const aborted = client.request("slow", undefined, { signal: abort.signal, timeout: 0 });
  const reason = new Error("enough");
  assert.equal(await code(client.request("slow", undefined, { signal: AbortSignal.abort(reason) })), "Error: enough");
  await clock.advance(99);
  assert.equal(await Promise.race([byOption, "waits"]), "waits");
  await clock.advance(1);
  assert.equal(await code(byOption), "timeout");
  await clock.advance(600);
  assert.equal(await code(byDefault), "timeout");
  abort.abort(reason);
  await assert.rejects(aborted, reason);
  // A late answer has no effect.
  for (const id of ["1", "2", "3", "4", "5"]) peer().transmit({ event: "slow", id, data: 1 });
  await settle();
});

test("requests that were sent end with the connection, others wait for the next", async (t) => {
  const { client, server, clock, peer } = await connected(t);
  server.on("slow", () => new Promise(() => {}));
  server.on("double", (n) => n * 2);
  const sent = client.request("slow");
  await settle();
  peer().cut();
  assert.equal(await code(sent), "disconnected");
  const waiting = client.request("double", 4, { timeout: 0 });
  client.send("first", 1);
  await clock.advance(1000);
  assert.equal(await waiting, 8);
  assert.equal((await server.expect("first")).data, 1);
});

test("questions are answered", async (t) => {
  const { client, peer } = await connected(t);
  const off = client.answer("confirm", async ({ text }) => text === "sure?");
  client.answer("fail", () => {
    throw new HearthError("busy", "Not now");
  });
  client.answer("throws", () => {
    throw null;
  });
  client.answer("large", () => "x".repeat(200_000));
  assert.equal(await peer().ask("confirm", { text: "sure?" }), true);
  await assert.rejects(peer().ask("fail"), { code: "busy", message: "Not now" });
  assert.equal(await code(peer().ask("throws")), "");
  assert.equal(await code(peer().ask("large")), "too_large");
  off();
  assert.equal(await code(peer().ask("confirm", {})), "unknown_event");
});

test("the state tells what was granted", async (t) => {
  const { client, phases, server } = await connected(t, { credentials: { name: "ada" } }, { authenticate: ({ name }) => name });
  const { phase, id, userId, extension, recovery, encrypted, resumed } = client.state;
  assert.deepEqual([phase, id, userId, extension, recovery, encrypted, resumed], ["connected", "client-1", "ada", true, true, false, false]);
  assert.deepEqual(phases, ["connecting", "connected"]);
  const { data, hearth } = await server.expect("authenticate");
  assert.deepEqual(data, { name: "ada" });
  assert.deepEqual(hearth, { version: 1, features: ["recovery", "resume", "ask"] });
});

test("options are checked", () => {
  const WebSocket = rigless();
  for (const url of ["", "ftp://x", "example.com", "/ws"]) {
    assert.throws(() => new Client({ url, WebSocket }), { code: "invalid" }, url);
  }
  for (const url of ["ws://x", "wss://x/ws", "http://x", "https://x/y"]) new Client({ url, WebSocket });
});

function rigless(): any {
  return class {};
}

test("messages wait while the client is not connected, in order and up to a limit", async (t) => {
  const { client, server } = rig(t, { queue: 3 });
  const room = client.join("lobby");
  for (const i of [1, 2]) client.send("n", i);
  const third = client.request("n", 3);
  server.on("n", (n) => n);
  assert.throws(() => client.send("n", 4), { code: "queue_full" });
  assert.equal(await code(client.request("n", 5)), "queue_full");
  await client.connect();
  assert.equal(await third, 3);
  assert.equal(room.status.phase, "joined", "rooms are joined before");
  for (const i of [1, 2, 3]) assert.equal((await server.expect("n")).data, i);
  assert.equal(client.dropped, 0);
});

test("the oldest message is dropped if the caller wants that", async (t) => {
  const { client, server } = rig(t, { queue: 2, queueFull: "drop-oldest" });
  const oldest = client.request("n", 0);
  for (const i of [1, 2, 3]) client.send("n", i);
  assert.equal(await code(oldest), "queue_full");
  assert.equal(client.dropped, 1);
  await client.connect();
  for (const i of [2, 3]) assert.equal((await server.expect("n")).data, i);
});

test("without a queue, messages are sent only while connected", async (t) => {
  for (const queueFull of ["reject", "drop-oldest"] as const) {
    const { client, server, clock } = rig(t, { queue: 0, queueFull });
    assert.throws(() => client.send("n", 1), { code: "queue_full" });
    await client.connect();
    client.send("n", 2);
    assert.equal((await server.expect("n")).data, 2);
    clock.restore();
  }
});

test("a request that was aborted while it waits is not sent", async (t) => {
  const { client, server } = rig(t);
  const abort = new AbortController();
  const waiting = client.request("n", 1, { signal: abort.signal });
  client.send("n", 2);
  abort.abort(new Error("enough"));
  assert.equal(await code(waiting), "Error: enough");
  await client.connect();
  assert.equal((await server.expect("n")).data, 2);
});

test("messages that are too large are not sent", async (t) => {
  const { client, errors, phases } = rig(t, {}, { maxMessage: 300 });
  client.send("n", "x".repeat(300));
  const request = client.request("n", "é".repeat(150));
  await client.connect();
  assert.equal(await code(request), "too_large");
  assert.equal(client.dropped, 1);
  assert.deepEqual(errors.map((e) => (e as HearthError).code), ["too_large"]);
  assert.throws(() => client.send("n", "x".repeat(300)), { code: "too_large" });
  client.send("n", "x".repeat(270));
  await settle();
  assert.deepEqual(phases, ["connecting", "connected"]);
});

test("a connection that does not take messages makes them wait", async (t) => {
  let socket: any;
  const { client, server, clock } = rig(t, {}, {});
  const Base = server.WebSocket as any;
  const slow = new Client({
    url: "ws://test", queue: 2,
    WebSocket: class extends Base {
      constructor(url: string) {
        super(url);
        socket = this;
      }
    } as any,
  });
  t.after(() => slow.close());
  await slow.connect();
  socket.bufferedAmount = 2 << 20;
  slow.send("n", 1);
  slow.send("n", 2);
  assert.throws(() => slow.send("n", 3), { code: "queue_full" });
  socket.bufferedAmount = 0;
  await clock.advance(50);
  for (const i of [1, 2]) assert.equal((await server.expect("n")).data, i);
  client.close();
});

test("close ends everything", async (t) => {
  const { client, server, clock, phases, peer, errors } = await connected(t);
  server.on("slow", () => new Promise(() => {}));
  const room = client.join("lobby");
  await room.ready();
  client.send("n", 1);
  await settle();
  const ends = [client.request("slow"), client.once("never"), client.join("other").ready()];
  const connection = peer();
  client.close();
  client.close();
  for (const end of ends) assert.equal(await code(end), "closed");
  assert.equal(room.status.phase, "left");
  assert.equal(clock.timers, 0);
  assert.equal(server.connections.length, 0);
  connection.send("late", 1);
  for (const f of [() => client.send("n"), () => client.join("x")]) assert.throws(f, { code: "closed" });
  for (const p of [client.connect(), client.once("x"), client.request("n")]) assert.equal(await code(p), "closed");
  await clock.advance(100_000);
  assert.deepEqual(phases, ["connecting", "connected", "closed"]);
  assert.deepEqual(errors, []);
});

test("close at any time ends everything", async (t) => {
  for (const when of ["idle", "connecting", "waiting", "in a callback of connected", "in a callback of waiting"]) {
    const { client, server, clock } = rig(t);
    const room = client.join("lobby");
    const never = client.once("never");
    client.onState(({ phase }) => when === `in a callback of ${phase}` && client.close());
    if (when !== "idle") {
      server.online = !when.endsWith("waiting");
      client.connect();
      if (when !== "connecting") await settle();
    }
    client.close();
    assert.equal(await code(never), "closed", when);
    assert.equal(clock.timers, 0, when);
    assert.equal(room.status.phase, "left", when);
    await clock.advance(60_000);
    assert.equal(server.connections.length, 0, when);
    assert.ok(server.attempts <= 1, when);
    clock.restore();
  }
});
