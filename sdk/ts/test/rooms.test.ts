import assert from "node:assert/strict";
import { test } from "node:test";
import type { Room, RoomStatus } from "../src/index.js";
import { settle } from "./clock.js";
import { code, connected, rig } from "./rig.js";

const history = (room: string) => room.startsWith("chat:");

function watch(room: Room): RoomStatus[] {
  const seen: RoomStatus[] = [room.status];
  room.onStatus((s) => seen.push(s));
  return seen;
}

test("a room is joined, or rejected with the reason", async (t) => {
  const { client, peer } = await connected(t, {}, { allow: (room) => room !== "secret" });
  const lobby = client.join("lobby");
  const secret = client.join("secret");
  assert.equal(client.join("lobby"), lobby);
  const seen = [watch(lobby), watch(secret)];
  await lobby.ready();
  assert.equal(await code(secret.ready()), "forbidden");
  assert.deepEqual(seen.map((s) => s.map((x) => x.phase)), [["joining", "joined"], ["joining", "rejected"]]);
  assert.equal((secret.status.error as any).code, "forbidden");
  assert.deepEqual([...peer().rooms], ["lobby"]);
  lobby.leave();
  lobby.leave();
  assert.equal(await code(lobby.ready()), "left");
  await settle();
  assert.deepEqual([...peer().rooms], []);
  const again = client.join("secret");
  assert.notEqual(again, secret, "a new attempt");
  secret.leave();
  assert.equal(again.status.phase, "joining", "another object is not affected");
  for (const name of ["", "ws:x", "x".repeat(257)]) assert.throws(() => client.join(name), { code: "invalid" });
});

test("rooms are joined again, and missed messages are recovered", async (t) => {
  const { client, server, clock } = await connected(t, {}, { history });
  const seen: unknown[] = [];
  client.on("say", (n, { room, position }) => seen.push([n, room, position?.offset]));
  const room = client.join("chat:1");
  await room.ready();
  server.sendToRoom("chat:1", "say", 1);
  await settle();
  server.cut();
  server.sendToRoom("chat:1", "say", 2);
  server.sendToRoom("chat:1", "say", 3);
  const statuses = watch(room);
  await clock.advance(500);
  server.sendToRoom("chat:1", "say", 4);
  await settle();
  assert.deepEqual(seen, [1, 2, 3, 4].map((n) => [n, "chat:1", n]));
  assert.deepEqual(statuses.slice(1), [{ phase: "joining" }, { phase: "recovering", recovered: 2 }, { phase: "joined" }]);
  assert.deepEqual(room.position, { offset: 4, epoch: "e1" });
});

test("a connection that is lost during the recovery does not lose messages", async (t) => {
  const { client, server, clock, peer } = await connected(t, {}, { history });
  const seen: unknown[] = [];
  client.on("say", (n) => {
    seen.push(n);
    if (n === 2) peer().cut();
  });
  await client.join("chat:1").ready();
  server.sendToRoom("chat:1", "say", 1);
  await settle();
  server.cut();
  for (const n of [2, 3, 4]) server.sendToRoom("chat:1", "say", n);
  await clock.advance(5000);
  assert.deepEqual([...new Set(seen)], [1, 2, 3, 4]);
  assert.deepEqual(seen, [...new Set(seen)], "no duplicates");
});

test("messages that cannot be recovered are reported", async (t) => {
  const { client, server, clock } = await connected(t, {}, { history });
  const rooms = ["chat:1", "chat:2", "plain"].map((name) => client.join(name));
  await Promise.all(rooms.map((r) => r.ready()));
  for (const r of rooms) server.sendToRoom(r.name, "say", 1);
  await settle();
  const seen = rooms.map(watch);
  server.cut();
  server.forget("chat:2");
  server.sendToRoom("chat:2", "say", 2);
  await clock.advance(500);
  assert.deepEqual(seen.map((s) => s.at(-1)), [
    { phase: "joined" }, { phase: "joined", unrecovered: "reset" }, { phase: "joined", unrecovered: "lost" },
  ]);
  assert.deepEqual(rooms[1]!.position, { offset: 1, epoch: "e3" });
  server.sendToRoom("chat:2", "say", 3);
  await settle();
  assert.equal(rooms[1]!.position!.offset, 2);
});

test("the last messages, or those after a position", async (t) => {
  const { client, server } = rig(t, {}, { history });
  for (const n of [1, 2, 3, 4]) server.sendToRoom("chat:1", "say", n);
  for (const n of [1, 2]) server.sendToRoom("chat:2", "say", 10 * n);
  const seen: unknown[] = [];
  client.on("say", (n) => seen.push(n));
  client.join("chat:1", { last: 2 });
  client.join("chat:2", { after: { offset: 1, epoch: "e2" } });
  const gone = client.join("chat:3", { after: { offset: 1, epoch: "e2" } });
  await client.connect();
  await settle();
  assert.deepEqual(seen, [3, 4, 20]);
  assert.equal(gone.status.unrecovered, "reset");
});

test("the last messages of a room that was left just before", async (t) => {
  const { client, server } = await connected(t, {}, { history });
  const room = client.join("chat:1");
  await room.ready();
  for (const n of [1, 2, 3]) server.sendToRoom("chat:1", "say", n);
  await settle();
  const seen: unknown[] = [];
  client.on("say", (n) => seen.push(n));
  room.leave();
  const again = client.join("chat:1", { last: 3 });
  server.sendToRoom("chat:1", "say", 4); // before the server has seen that the client left
  await again.ready();
  server.sendToRoom("chat:1", "say", 5);
  await settle();
  assert.deepEqual(seen, [4, 2, 3, 4, 5]);
  assert.deepEqual(again.position, { offset: 5, epoch: "e1" });
});

test("an interrupted room is joined again from its position", async (t) => {
  const { client, server, peer } = await connected(t, {}, { history });
  const seen: unknown[] = [];
  client.on("say", (n) => seen.push(n));
  const room = client.join("chat:1");
  await room.ready();
  server.sendToRoom("chat:1", "say", 1);
  const statuses = watch(room);
  peer().interrupt("chat:1", "other");
  server.sendToRoom("chat:1", "say", 2);
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(statuses.slice(1).map((s) => s.phase), ["joining", "recovering", "joined"]);
});

test("a room that the server joined the client to recovers too", async (t) => {
  const { client, server, clock } = await connected(t, {}, { history });
  const seen: unknown[] = [];
  client.on("say", (n) => seen.push(n));
  await client.join("chat:1").ready();
  server.sendToRoom("chat:1", "say", 1);
  await settle();
  server.cut();
  server.sendToRoom("chat:1", "say", 2);
  client.onState(({ phase }) => {
    if (phase !== "connected") return;
    server.connections[0]!.rooms.add("chat:1"); // before the join of the client arrives
    server.sendToRoom("chat:1", "say", 3);
  });
  await clock.advance(500);
  server.sendToRoom("chat:1", "say", 4);
  await settle();
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

test("a room for which the server could not decide is tried again", async (t) => {
  const { client, server, clock, peer } = await connected(t);
  const connection = peer();
  const { transmit } = connection;
  let failures = 2;
  connection.transmit = function (m: any) {
    if (m.event === "join" && failures-- > 0) m.data = { joined: [], rejected: [{ room: "lobby", code: "internal" }] };
    transmit.call(this, m);
  };
  const room = client.join("lobby");
  await settle();
  assert.equal(room.status.phase, "joining");
  await clock.advance(20_000);
  assert.equal(room.status.phase, "joined");
  assert.equal(server.attempts, 1);
});

test("an error of the application in answer to a join rejects only the rooms that it is about", async (t) => {
  const { client, clock, peer, server } = await connected(t);
  const rooms = ["a", "b", "c"].map((name) => client.join(name));
  await Promise.all(rooms.map((r) => r.ready()));
  const { join } = server;
  server.join = function (connection, names, ...rest) {
    if (!names.includes("b")) return join.call(this, connection, names, ...rest);
    return [{}, []];
  };
  client.onState(({ phase }) => {
    if (phase !== "connected") return;
    const connection = peer();
    const { transmit } = connection;
    connection.transmit = function (m: any) {
      if (m.event === "join" && !m.data.joined) m = { event: "error", data: { message: "No", code: "banned" }, id: m.id };
      transmit.call(this, m);
    };
  });
  server.cut();
  await clock.advance(500);
  assert.deepEqual(rooms.map((r) => r.status.phase), ["joined", "rejected", "joined"]);
  assert.equal((rooms[1]!.status.error as any).code, "banned");
});

test("many rooms are joined in several messages", async (t) => {
  const { client, server, clock } = await connected(t);
  const rooms = Array.from({ length: 70 }, (_, i) => client.join(`r${i}`));
  await Promise.all(rooms.map((r) => r.ready()));
  for (let i = 0; i < 70; i++) await server.expect("join");
  server.cut();
  await clock.advance(500);
  assert.ok(rooms.every((r) => r.status.phase === "joined"));
  const sizes = [];
  for (let i = 0; i < 3; i++) sizes.push((await server.expect("join")).data.rooms.length);
  assert.deepEqual(sizes, [32, 32, 6]);
});

test("rooms that are joined or left in callbacks", async (t) => {
  const { client, server, clock, peer } = await connected(t);
  const a = client.join("a");
  await a.ready();
  client.onState(({ phase }) => phase === "connected" && client.join("b"));
  a.onStatus(({ phase }) => phase === "joined" && (a.leave(), client.join("c")));
  server.cut();
  await clock.advance(500);
  assert.deepEqual([...peer().rooms].sort(), ["b", "c"]);
  assert.equal((await server.expect("join")).data.rooms[0], "a");
  const later = [(await server.expect("join")).data.rooms, (await server.expect("join")).data.rooms];
  assert.deepEqual(later, [["a", "b"], ["c"]], "each once");
  // A client that is not connected, and connects again in a callback.
  client.onState(({ phase }) => phase === "waiting" && (client.join("d"), client.retry()));
  server.cut();
  await settle();
  assert.deepEqual([...peer().rooms].sort(), ["b", "c", "d"]);
});

test("a session is resumed with its id and rooms", async (t) => {
  const { client, server, clock, peer } = await connected(t, { credentials: () => ({ n: ++calls }) }, { history, resume: true });
  const seen: unknown[] = [];
  client.on("say", (n) => seen.push(n));
  const [chat, plain, left] = ["chat:1", "plain", "left"].map((name) => client.join(name)) as [Room, Room, Room];
  await Promise.all([chat, plain, left].map((r) => r.ready()));
  server.sendToRoom("chat:1", "say", 1);
  await settle();
  const { id } = client.state;
  server.cut();
  server.online = false;
  server.sendToRoom("chat:1", "say", 2);
  await settle();
  left.leave();
  const added = client.join("added");
  const statuses = [chat, plain, added].map(watch);
  await clock.advance(3000);
  assert.equal(client.state.phase, "waiting");
  server.online = true;
  await clock.advance(30_000);
  assert.deepEqual([client.state.phase, client.state.id, client.state.resumed], ["connected", id, true], "also after attempts that failed");
  assert.equal(calls, 1);
  server.sendToRoom("chat:1", "say", 3);
  await settle();
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual([...peer().rooms].sort(), ["added", "chat:1", "plain"]);
  assert.deepEqual(statuses.map((s) => s.slice(1)), [
    [{ phase: "recovering", recovered: 1 }, { phase: "joined" }], [{ phase: "joined", unrecovered: "lost" }], [{ phase: "joined" }],
  ]);
});
let calls = 0;

test("a ticket that is rejected leads to credentials, on the same connection", async (t) => {
  let asked = 0;
  const { client, server, clock } = await connected(t, { credentials: async () => ({ n: ++asked }) }, { resume: true });
  const room = client.join("lobby");
  await room.ready();
  server.tickets.clear();
  server.cut();
  await clock.advance(500);
  assert.deepEqual([client.state.phase, client.state.resumed, asked, server.attempts], ["connected", false, 2, 2]);
  assert.equal(room.status.phase, "joined");
});

test("a ticket is not used after the credentials have expired, or the session was resumed elsewhere", async (t) => {
  for (const close of [4005, 4006]) {
    const { client, server, clock, peer } = await connected(t, {}, { resume: true });
    await server.expect("authenticate");
    peer().close(close);
    await clock.advance(500);
    assert.equal((await server.expect("authenticate")).hearth.ticket, undefined);
    client.close();
    clock.restore();
  }
});
