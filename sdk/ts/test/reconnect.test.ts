import assert from "node:assert/strict";
import { test } from "node:test";
import { HearthError } from "../src/index.js";
import { settle } from "./clock.js";
import { code, connected, rig } from "./rig.js";

test("the time between attempts is random, below a limit that doubles", async (t) => {
  const random = t.mock.method(Math, "random", () => 0.999999);
  const { client, server, clock } = rig(t, { retryMin: 100, retryMax: 1000 });
  server.online = false;
  const connecting = client.connect();
  await settle();
  for (const limit of [100, 200, 400, 800, 1000, 1000]) {
    assert.equal(client.state.phase, "waiting");
    assert.equal(Math.round(client.state.retry!), limit);
    assert.equal(client.state.code, 1006);
    await clock.advance(client.state.retry!);
  }
  random.mock.mockImplementation(() => 0.5);
  await clock.advance(1000);
  assert.equal(client.state.retry, 500);
  server.online = true;
  await clock.advance(500);
  await connecting;

  // A short connection does not count as a success.
  await clock.advance(4000);
  server.cut();
  await settle();
  assert.equal(client.state.retry, 500);
  await clock.advance(500);
  await clock.advance(5000);
  server.cut();
  await settle();
  assert.equal(client.state.retry, 50);
});

test("close codes decide whether and when the client connects again", async (t) => {
  const table: [code: number, phase: string, retry?: number][] = [
    [1000, "closed"], [1001, "waiting"], [1006, "waiting"], [1008, "waiting"], [1009, "waiting"], [1012, "waiting", 0],
    [1013, "waiting"], [4001, "waiting"], [4002, "waiting"], [4003, "closed"], [4004, "closed"], [4005, "waiting", 0],
    [4006, "waiting"], [4100, "closed"], [3000, "closed"],
  ];
  for (const [code, phase, retry] of table) {
    const { client, clock, peer } = await connected(t);
    peer().close(code, "because");
    await settle();
    assert.deepEqual([client.state.phase, client.state.code, client.state.reason], [phase, code, "because"]);
    if (retry === 0) assert.equal(client.state.retry, 0);
    if (phase === "closed") assert.equal(clock.timers, 0);
    else await clock.advance(500);
    assert.equal(client.state.phase, phase === "closed" ? "closed" : "connected");
    client.close();
    clock.restore();
  }
});

test("a server that closes at once is not flooded", async (t) => {
  const { client, server, clock } = rig(t, {}, { authenticate: () => "ada" });
  client.onState(({ phase }) => phase === "connected" && queueMicrotask(() => server.close(1012, "Service restart")));
  client.connect();
  await clock.advance(10_000);
  assert.ok(server.attempts > 2 && server.attempts < 40, `${server.attempts} attempts in 10 s`);
});

test("rejected credentials end the client", async (t) => {
  const { client, server, clock } = rig(t, { credentials: { token: "old" } }, {
    authenticate: () => {
      throw new Error();
    },
  });
  const connecting = client.connect();
  await assert.rejects(connecting, { code: "closed", message: "the client is closed: Authentication failed" });
  assert.deepEqual([client.state.phase, client.state.code], ["closed", 4003]);
  await clock.advance(100_000);
  assert.equal(server.attempts, 1);
});

test("a failure of the application does not", async (t) => {
  let fail = true;
  const { client, clock, peer } = rig(t, {}, {
    authenticate: () => {
      if (fail) peer().send("error", { message: "Authentication error" });
      if (fail) peer().close(4003, "Authentication failed");
      return "ada";
    },
  });
  client.connect();
  await settle();
  assert.equal(client.state.phase, "waiting");
  assert.equal(client.state.error!.message, "Authentication error");
  fail = false;
  await clock.advance(500);
  assert.equal(client.state.phase, "connected");
});

test("credentials are asked for before each connection", async (t) => {
  let calls = 0;
  const { client, server, clock } = await connected(t, { credentials: async () => ({ token: ++calls }) });
  server.close(4005, "Credentials expired");
  await clock.advance(0);
  await settle();
  assert.equal(client.state.phase, "connected");
  assert.equal((await server.expect("authenticate")).data.token, 1);
  assert.equal((await server.expect("authenticate")).data.token, 2);
});

test("a function for credentials that fails is called again, unless it says stop", async (t) => {
  let calls = 0;
  const { client, server, clock } = rig(t, {
    credentials: () => {
      calls++;
      if (calls === 1) throw new TypeError("fetch failed");
      if (calls === 2) return Promise.reject(new SyntaxError("Unexpected token <"));
      return calls === 3 ? {} : Promise.reject(new HearthError("stop", "signed out"));
    },
  });
  client.connect();
  await clock.advance(2000);
  assert.equal(client.state.phase, "connected");
  assert.equal(server.attempts, 1);
  server.cut();
  await clock.advance(5000);
  assert.equal(client.state.phase, "closed");
  assert.equal(client.state.error!.message, "signed out");
  assert.equal(calls, 4);
});

test("the signal for credentials ends with the client", async (t) => {
  let signal: AbortSignal | undefined;
  const { client } = rig(t, { credentials: (s) => ((signal = s), new Promise(() => {})) });
  client.connect();
  await settle();
  assert.equal(signal!.aborted, false);
  client.close();
  assert.equal(signal!.aborted, true);
});

test("new credentials are sent before the old ones expire", async (t) => {
  let calls = 0;
  let busy = 1;
  const { client, server, clock, peer, errors } = await connected(t, { credentials: () => ({ token: ++calls }) });
  await server.expect("authenticate");
  const transmit = peer().transmit;
  const connection = peer();
  connection.transmit = function (message: any) {
    if (message.event === "authenticate" && busy-- > 0) message = { event: "error", data: { message: "Try again later", code: "busy" }, id: message.id };
    else if (message.event === "authenticate") message.data = { expires: "2026-03-01T11:30:00.000Z" };
    transmit.call(this, message);
  };
  peer().expiring(new Date());
  peer().expiring(new Date()); // has no effect
  await settle();
  assert.equal((await server.expect("authenticate")).data.token, 2);
  assert.equal((errors[0] as HearthError).code, "busy");
  await clock.advance(10_000);
  assert.equal((await server.expect("authenticate")).data.token, 3);
  assert.equal(client.state.expires!.toISOString(), "2026-03-01T11:30:00.000Z");
  assert.equal(server.attempts, 1);
  peer().expiring(new Date());
  await settle();
  assert.equal((await server.expect("authenticate")).data.token, 4);
});

test("new credentials that are rejected are not sent again", async (t) => {
  let accept = true;
  const { client, server, clock, peer, errors } = await connected(t, {}, {
    authenticate: () => {
      if (!accept) throw new Error();
      return "ada";
    },
  });
  accept = false;
  await server.expect("authenticate");
  peer().expiring(new Date());
  await settle();
  await server.expect("authenticate");
  await clock.advance(60_000);
  assert.equal(await code(server.expect("authenticate", { signal: AbortSignal.abort(new Error("none")) })), "timeout");
  assert.equal((errors[0] as Error).message, "Authentication failed");
  assert.equal(client.state.phase, "connected", "until the old credentials expire");
});

test("an attempt that takes too long ends", async (t) => {
  const { client, clock, peer } = rig(t, { connectTimeout: 3000 }, {
    authenticate: () => {
      peer().frozen = true;
      return "ada";
    },
  });
  client.connect();
  await clock.advance(3000);
  assert.equal(client.state.phase, "waiting");
  assert.equal((client.state.error as HearthError).code, "timeout");
});

test("an attempt that fails with an error and no close, as in Node 22", async (t) => {
  const sockets: any[] = [];
  const { client, clock } = rig(t, {
    WebSocket: class {
      readyState = 0;
      constructor() {
        sockets.push(this);
      }
      close() {}
    } as any,
  });
  client.connect();
  await settle();
  sockets[0].onerror({});
  await clock.advance(100);
  assert.deepEqual([client.state.phase, client.state.code], ["waiting", 1006]);
  await clock.advance(500);
  sockets[1].onerror({});
  sockets[1].onclose({ code: 1006, reason: "" });
  await clock.advance(0);
  assert.equal(client.state.phase, "waiting");
  await clock.advance(50_000);
  assert.ok(sockets.length > 2);
});

test("a constructor that throws ends the client", async (t) => {
  const { client } = rig(t, {
    WebSocket: class {
      constructor() {
        throw new SyntaxError("bad URL");
      }
    } as any,
  });
  assert.equal(await code(client.connect()), "closed");
  assert.equal((client.state.error!.cause as Error).message, "bad URL");
});

test("a frozen server is noticed within interval and timeout", async (t) => {
  for (const busy of [false, true]) {
    const { client, clock, peer } = await connected(t, {}, { heartbeat: { interval: 1000, timeout: 200 } });
    await clock.advance(10_000);
    assert.equal(client.state.phase, "connected");
    peer().frozen = true;
    for (let i = 0; i < 12; i++) {
      assert.equal(client.state.phase, "connected");
      if (busy) client.send("n", i); // also if the client sends all the time
      await clock.advance(100);
    }
    assert.equal(client.state.phase, "waiting");
    client.close();
    clock.restore();
  }
});

test("heartbeats are sent as often as the server wants", async (t) => {
  for (const [interval, timeout] of [[1000, 200], [1000, 10_000]] as const) {
    const { client, clock, server } = await connected(t, {}, { heartbeat: { interval, timeout } });
    await clock.advance(5500);
    for (let i = 0; i < 5; i++) await server.expect("heartbeat", { signal: AbortSignal.timeout(0) });
    client.close();
    clock.restore();
  }
});

test("messages from the server count as signs of life", async (t) => {
  const { client, clock, peer, server } = await connected(t, {}, { heartbeat: { interval: 1000, timeout: 200 } });
  peer().receive = () => {}; // it answers no heartbeats
  for (let i = 0; i < 50; i++) {
    await clock.advance(190);
    server.send("tick");
  }
  assert.equal(client.state.phase, "connected");
});

test("a program that slept checks the server before it gives up", async (t) => {
  const { client, clock, peer, server } = await connected(t, {}, { heartbeat: { interval: 1000, timeout: 200 } });
  await clock.sleep(3_600_000);
  await clock.advance(1000);
  assert.equal(client.state.phase, "connected", "the server has answered");
  assert.equal(server.attempts, 1);
  // It slept while it waited for an answer, which is lost.
  const { receive } = peer();
  peer().receive = () => {};
  await clock.advance(1100);
  peer().receive = receive;
  await clock.sleep(10_000);
  await clock.advance(5000);
  assert.equal(client.state.phase, "connected");
  assert.equal(server.attempts, 1);
  // It slept, and the server is gone.
  peer().frozen = true;
  await clock.sleep(3_600_000);
  await clock.advance(200);
  assert.equal(client.state.phase, "waiting");
});

test("timers that are always late find a frozen server too", async (t) => {
  const { client, clock, peer } = await connected(t, {}, { heartbeat: { interval: 1000, timeout: 200 } });
  peer().frozen = true;
  for (let i = 0; i < 3; i++) await clock.sleep(60_000);
  assert.notEqual(client.state.phase, "connected");
});

test("the client connects at once when the network or the page is back", async (t) => {
  const g = globalThis as any;
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  g.addEventListener = window.addEventListener.bind(window);
  g.removeEventListener = window.removeEventListener.bind(window);
  g.document = document;
  t.after(() => ["addEventListener", "removeEventListener", "document"].forEach((name) => delete g[name]));

  const { client, server, clock, peer } = await connected(t, {}, { heartbeat: { interval: 1000, timeout: 200 } });
  t.mock.method(Math, "random", () => 0.999);
  const back = { online: () => window.dispatchEvent(new Event("online")), visible: () => document.dispatchEvent(new Event("visibilitychange")) };
  for (const event of ["online", "visible"] as const) {
    server.online = false;
    server.cut();
    await settle();
    assert.equal(client.state.phase, "waiting");
    server.online = true;
    document.visibilityState = "hidden";
    back.visible();
    await settle();
    assert.equal(client.state.phase, "waiting", "hidden pages wait");
    document.visibilityState = "visible";
    back[event]();
    await settle();
    assert.equal(client.state.phase, "connected", event);
  }
  peer().frozen = true;
  back.visible();
  await clock.advance(200);
  assert.equal(client.state.phase, "waiting", "a connected client checks its server");
  client.close();
  back.online();
  await settle();
  assert.equal(client.state.phase, "closed");
});

test("a server without the extension", async (t) => {
  const { client, server, clock, peer } = await connected(t, {}, { extension: false });
  assert.deepEqual([client.state.extension, client.state.recovery], [false, false]);
  const room = client.join("lobby");
  assert.equal(room.status.phase, "joined");
  await settle();
  assert.ok(peer().rooms.has("lobby"));
  server.on("echo", (data) => data);
  assert.equal(await client.request("echo", 1), 1);
  await clock.advance(60_000);
  assert.equal(client.state.phase, "connected", "heartbeats have no answers");
  await server.expect("heartbeat");
  await server.expect("heartbeat");
  const seen: unknown[] = [];
  room.onStatus((s) => seen.push(s));
  server.cut();
  await clock.advance(500);
  await settle();
  assert.ok(peer().rooms.has("lobby"));
  assert.deepEqual(seen, [{ phase: "joining" }, { phase: "joined", unrecovered: "lost" }]);
});
