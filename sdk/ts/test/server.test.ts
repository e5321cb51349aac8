import assert from "node:assert/strict";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { Client, type ClientOptions, type Serve, type State } from "../src/index.js";
import { encryption } from "../src/encryption.js";
import { Hearth } from "./hearth.js";

interface Said {
  text: string;
  from: { user: string; client: string };
}

interface Demo {
  receive: { say: Said; who: { clients: { user: string }[] } };
  request: { say(m: { room: string; text: string }): undefined };
  send: { say: { room: string; text: string }; who: object };
}

const servers: Hearth[] = [];
after(() => Promise.all(servers.map((s) => s.stop("SIGKILL"))));

async function start(...options: string[]): Promise<Hearth> {
  const server = await Hearth.start(options);
  servers.push(server);
  return server;
}

const errors: unknown[] = [];
after(() => assert.deepEqual(errors, []));

function client(t: { after(f: () => void): void }, url: string, name: string, options: Partial<ClientOptions> = {}): Client<Demo> {
  const c = new Client<Demo>({ url, credentials: { name }, onError: (e) => errors.push(e), retryMin: 50, retryMax: 200, ...options });
  t.after(() => c.close());
  return c;
}

/** Waits for a state. */
function until(c: Client<Demo>, condition: (s: State) => boolean): Promise<void> {
  return new Promise((resolve) => {
    if (condition(c.state)) return resolve();
    const off = c.onState((s) => {
      if (!condition(s)) return;
      off();
      resolve();
    });
  });
}

/** A proxy that tests cut. */
class Proxy {
  #sockets = new Set<Socket>();
  #server: Server;
  url = "";

  constructor(target: string) {
    const { hostname, port } = new URL(target);
    this.#server = createServer((socket) => {
      const upstream = dial(Number(port), hostname);
      for (const [from, to] of [[socket, upstream], [upstream, socket]] as const) {
        this.#sockets.add(from);
        from.on("error", () => {}).on("close", () => to.destroy());
        from.pipe(to);
      }
    });
  }

  async start(t: { after(f: () => void): void }): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `ws://127.0.0.1:${(this.#server.address() as { port: number }).port}/ws`;
    t.after(() => {
      this.#server.close();
      this.cut();
    });
    return this;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }
}

test("rooms, messages and requests, plain and encrypted", async (t) => {
  const server = await start("--encryption", "optional");
  for (const option of [{}, { encryption: encryption() }] as Partial<ClientOptions>[]) {
    const [ada, bob] = [client(t, server.url, "ada", option), client(t, server.url, "bob")];
    const rooms = [ada, bob].map((c) => c.join("lobby"));
    await Promise.all([ada.connect(), bob.connect(), ...rooms.map((r) => r.ready())]);
    assert.deepEqual([ada.state.userId, ada.state.extension, ada.state.encrypted], ["ada", true, !!option.encryption]);
    const heard = bob.events("say");
    for (let i = 0; i < 200; i++) ada.send("say", { room: "lobby", text: `é${i}` });
    // The server limits how much a client of the demo sends, and rejects the rest.
    for (let i = 0; i < 20; i++) assert.equal((await heard.next()).value!.text, `é${i}`);
    const who = bob.once("who");
    bob.send("who", {});
    assert.ok((await who).clients.some((c) => c.user === "ada"));
    ada.close();
    bob.close();
  }
});

test("rejected rooms and credentials", async (t) => {
  const server = await start();
  const ada = client(t, server.url, "ada");
  await ada.connect();
  await assert.rejects(ada.join("x".repeat(100)).ready(), { code: "forbidden" });
  await assert.rejects(client(t, server.url, "").connect(), { code: "closed" });
  await assert.rejects(client(t, server.url, "eve", { encryption: encryption() }).connect(), { code: "closed", message: /does not encrypt/ });
});

test("missed messages are recovered after the connection was cut", async (t) => {
  const server = await start("--history", "chat:*=100/5m");
  const proxy = await new Proxy(server.url).start(t);
  const [ada, bob] = [client(t, proxy.url, "ada"), client(t, server.url, "bob")];
  const rooms = [ada.join("chat:1"), bob.join("chat:1")];
  await Promise.all([ada.connect(), bob.connect(), ...rooms.map((r) => r.ready())]);
  const heard = ada.events("say");
  const texts: string[] = [];
  for (let i = 0; i < 30; i++) {
    if (i % 10 === 5) {
      proxy.cut();
      await until(ada, (s) => s.phase !== "connected");
    }
    await bob.request("say", { room: "chat:1", text: String(i) });
    if (i % 10 === 9) await until(ada, (s) => s.phase === "connected");
    await new Promise((resolve) => setTimeout(resolve, 55)); // the demo's limit of 20 per second
  }
  for (let i = 0; i < 30; i++) texts.push((await heard.next()).value!.text);
  assert.deepEqual(texts, Array.from({ length: 30 }, (_, i) => String(i)));
});

test("a session is resumed, also encrypted", async (t) => {
  const server = await start("--resume", "--history", "chat:*=100/5m", "--encryption", "optional");
  const proxy = await new Proxy(server.url).start(t);
  for (const option of [{}, { encryption: encryption() }] as Partial<ClientOptions>[]) {
    let calls = 0;
    const ada = client(t, proxy.url, "ada", { ...option, credentials: () => ({ name: "ada", n: ++calls }) });
    const room = ada.join("chat:1");
    await ada.connect();
    await room.ready();
    const { id } = ada.state;
    await new Promise((resolve) => setTimeout(resolve, 1500)); // the ticket with the room comes within a second
    proxy.cut();
    await until(ada, (s) => s.phase !== "connected");
    await until(ada, (s) => s.phase === "connected");
    assert.deepEqual([ada.state.id, ada.state.resumed, calls], [id, true, 1]);
    await room.ready();
    ada.close();
  }
});

test("clients publish to rooms where rules allow it", async (t) => {
  const server = await start(
    "--auth", "anonymous", "--allow-join", "chat:*", "--allow-publish", "chat:*", "--allow-history", "chat:*", "--allow-presence", "chat:*",
    "--history", "chat:*=100/5m",
  );
  const [ada, bob] = [0, 1].map(() => {
    const c = new Client<Serve<string>>({ url: server.url });
    t.after(() => c.close());
    return c;
  }) as [Client<Serve<string>>, Client<Serve<string>>];
  const rooms = [ada, bob].map((c) => c.join("chat:1"));
  const published = bob.once("published");
  await Promise.all([ada.connect(), bob.connect(), ...rooms.map((r) => r.ready())]);
  await ada.request("publish", { room: "chat:1", data: "hello" });
  const { room, from, data } = await published;
  assert.deepEqual([room, from.client, data], ["chat:1", ada.state.id, "hello"]);
  const { messages, offset } = await bob.request("history", { room: "chat:1" });
  assert.deepEqual([messages.map((m) => m.data.data), offset], [["hello"], 1]);
  assert.deepEqual(await ada.request("presence", { room: "chat:1" }), { room: "chat:1", clients: 2, more: false });
  await assert.rejects(ada.request("publish", { room: "other", data: "x" }), { code: "forbidden" });
  await assert.rejects(ada.request("grant", { grant: "x" }), { code: "forbidden" });
});

test("a server that restarts, and one that is frozen", async (t) => {
  let server = await start();
  const ada = client(t, server.url, "ada");
  const room = ada.join("lobby");
  await ada.connect();
  await room.ready();
  const closes: unknown[] = [];
  ada.onState(({ phase, code, reason }) => phase === "waiting" && closes.push([code, reason]));
  await server.stop();
  await until(ada, (s) => s.phase !== "connected");
  assert.deepEqual(closes[0], [1012, "Service restart"]);
  server = await Hearth.start([], server.listen);
  servers.push(server);
  await until(ada, (s) => s.phase === "connected");
  await room.ready();
  server.freeze(true);
  await new Promise((resolve) => setTimeout(resolve, 300)); // until the process has stopped
  ada.retry(); // checks the server now: the timeout of 10 s begins
  const began = Date.now();
  await until(ada, (s) => s.phase === "waiting");
  assert.ok(Date.now() - began < 13_000);
  assert.match(ada.state.error!.message, /does not answer/);
  server.freeze(false);
  await until(ada, (s) => s.phase === "connected");
});
