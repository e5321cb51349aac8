import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement, StrictMode } from "react";
import { act, create } from "react-test-renderer";
import { Client } from "../src/index.js";
import { useConnection, useEvent, useRoom } from "../src/react.js";
import { FakeServer } from "../src/testing.js";
import { settle } from "./clock.js";

(globalThis as any).IS_REACT_ACT_ENVIRONMENT = true;
const { error } = console;
console.error = (...args: unknown[]) => String(args[0]).includes("deprecated") || error(...args);

test("components show the state, get events, and join rooms while they are mounted", async (t) => {
  const server = new FakeServer({ allow: (room) => room !== "secret" });
  const client = new Client({ url: "ws://test", WebSocket: server.WebSocket });
  t.after(() => client.close());
  const seen: unknown[] = [];
  const Chat = ({ room, n }: { room: string; n: number }) => {
    const { phase } = useConnection(client);
    const status = useRoom(client, room);
    useEvent(client, "said", (data) => seen.push([n, data]));
    return `${phase} ${room} ${status.phase}`;
  };
  const page = (n: number, ...rooms: string[]) =>
    createElement(StrictMode, null, rooms.map((room, i) => createElement(Chat, { key: i, room, n })));
  const step = (f: () => void) => act(async () => {
    f();
    await settle();
  });

  let rendered!: ReturnType<typeof create>;
  await step(() => (rendered = create(page(1, "a"))));
  assert.equal(rendered.toJSON(), "idle a joining");
  await step(() => void client.connect());
  assert.equal(rendered.toJSON(), "connected a joined");
  await step(() => rendered.update(page(2, "a", "a")));
  await step(() => server.send("said", "x"));
  assert.deepEqual(seen, [[2, "x"], [2, "x"]]);
  const peer = server.connections[0]!;
  await step(() => rendered.update(page(2, "a")));
  assert.deepEqual([...peer.rooms], ["a"], "one component still uses the room");
  await step(() => rendered.update(page(2, "b")));
  assert.equal(rendered.toJSON(), "connected b joined");
  assert.deepEqual([...peer.rooms], ["b"]);
  await step(() => rendered.update(page(2, "secret")));
  assert.equal(rendered.toJSON(), "connected secret rejected");
  await step(() => server.close(4003, "Authentication failed"));
  assert.equal(rendered.toJSON(), "closed secret rejected");
  await step(() => rendered.unmount());
});

test("a room that is left and joined in one rendering stays", async (t) => {
  const server = new FakeServer();
  const client = new Client({ url: "ws://test", WebSocket: server.WebSocket });
  t.after(() => client.close());
  await client.connect();
  const Chat = () => useRoom(client, "a").phase;
  let rendered!: ReturnType<typeof create>;
  await act(async () => void (rendered = create(createElement(StrictMode, null, createElement(Chat, { key: 1 })))));
  await act(async () => rendered.update(createElement(StrictMode, null, createElement(Chat, { key: 2 }))));
  await settle();
  await server.expect("join");
  for (const event of ["join", "leave"]) {
    await assert.rejects(server.expect(event, { signal: AbortSignal.abort(new Error("none")) }));
  }
  await act(async () => rendered.unmount());
  await settle();
  await server.expect("leave");
});
