import assert from "node:assert/strict";
import { test } from "node:test";
import type { Position, Room } from "../src/index.js";
import { rig } from "./rig.js";

/** Random numbers from a seed, so that a failure can be repeated (mulberry32). */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What the client must have received of one room with history, or been told. */
class Oracle {
  last: Position | undefined;
  /** The client was told that messages may be missing. */
  told = true;
  received = 0;

  constructor(room: Room) {
    room.onStatus(({ phase, unrecovered }) => {
      if (unrecovered) this.told = true;
      // The first join says where the messages begin.
      if (phase === "joined" && (this.told || !this.last)) this.last = room.position;
      if (phase === "joined") this.told = false;
    });
  }

  message(position: Position): void {
    this.received++;
    const { last } = this;
    if (!last) return; // of the membership before
    // A new log that begins while the client is a member misses nothing.
    const next = position.epoch === last.epoch ? last.offset + 1 : 1;
    assert.equal(position.offset, next, `missing, twice, or out of order, in ${position.epoch} after ${last.epoch}`);
    this.last = position;
  }
}

const rooms = ["chat:1", "chat:2", "chat:3"];

for (const resume of [false, true]) {
  test(`every message arrives in order and once, or is reported as missing; tickets: ${resume}`, async (t) => {
    let received = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const random = generator(seed);
      const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
      const mock = t.mock.method(Math, "random", random);
      const { client, server, clock, errors, peer } = rig(t, {}, {
        history: (room) => room.startsWith("chat:"), resume, heartbeat: { interval: 1000, timeout: 200 },
      });
      const oracles = new Map<string, Oracle>();
      const join = (name: string) => {
        const room = client.join(name);
        oracles.set(name, new Oracle(room));
        return room;
      };
      const joined = new Map(rooms.map((name) => [name, join(name)]));
      client.on("say", (_, { room, position }) => oracles.get(room!)!.message(position!));
      const log: string[] = [];
      const often = ["publish", "publishMany", "publishMany", "wait", "wait", "waitLong", "waitLong", "online"];
      const steps: Record<string, () => unknown> = {
        publish: () => server.sendToRoom(pick(rooms), "say", 1),
        publishMany: () => {
          for (let i = 0; i < 5; i++) server.sendToRoom(pick(rooms), "say", 1);
        },
        cut: () => server.cut(),
        close: () => server.close(pick([1001, 1012, 1013, 4002, 4005])),
        offline: () => ((server.online = false), server.cut()),
        online: () => (server.online = true),
        freeze: () => peer() && (peer().frozen = true),
        forget: () => server.forget(pick(rooms)),
        forgetTickets: () => server.tickets.clear(),
        interrupt: () => peer()?.authenticated && peer().interrupt(pick(rooms)),
        rejoin: () => {
          const name = pick(rooms);
          joined.get(name)!.leave();
          joined.set(name, join(name));
        },
        wait: () => clock.advance(random() * 300),
        waitLong: () => clock.advance(random() * 3000),
      };
      try {
        client.connect();
        await clock.advance(1000);
        for (let i = 0; i < 100; i++) {
          const step = pick(random() < 0.7 ? often : Object.keys(steps));
          log.push(step);
          await steps[step]!();
        }
        server.online = true;
        await clock.advance(40_000);
        assert.equal(client.state.phase, "connected");
        for (const name of rooms) server.sendToRoom(name, "say", 1);
        await clock.advance(0);
        for (const name of rooms) {
          const { epoch, messages } = server.log(name)!;
          assert.equal(joined.get(name)!.status.phase, "joined", name);
          assert.deepEqual(joined.get(name)!.position, { offset: messages.at(-1)!.offset, epoch }, name);
        }
        assert.deepEqual(errors, []);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}\n${log.join(" ")}`, { cause: error });
      }
      for (const o of oracles.values()) received += o.received;
      client.close();
      clock.restore();
      mock.mock.restore();
    }
    t.diagnostic(`${received} messages`);
    assert.ok(received > 3000);
  });
}
