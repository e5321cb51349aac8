import { type TestContext } from "node:test";
import { Client, type ClientOptions } from "../src/index.js";
import { FakeServer, type FakeServerOptions } from "../src/testing.js";
import { Clock, settle } from "./clock.js";

/** A fake server, a client and a clock that belong to a test. */
export interface Rig {
  clock: Clock;
  server: FakeServer;
  client: Client;
  /** What the client and its handlers reported as errors. */
  errors: unknown[];
  /** The phases of the client, from the first. */
  phases: string[];
  /** Returns the server's side of the newest connection. */
  peer(): FakeServer["connections"][number];
}

export function rig(t: TestContext, options: Partial<ClientOptions> = {}, server: FakeServerOptions = {}): Rig {
  const clock = new Clock();
  const fake = new FakeServer(server);
  const errors: unknown[] = [];
  const client = new Client({ url: "ws://test", WebSocket: fake.WebSocket, onError: (e) => errors.push(e), ...options });
  const phases: string[] = [];
  client.onState((s) => phases.push(s.phase));
  t.after(() => {
    client.close();
    clock.restore();
  });
  return { clock, server: fake, client, errors, phases, peer: () => fake.connections.at(-1)! };
}

export async function connected(t: TestContext, options: Partial<ClientOptions> = {}, server: FakeServerOptions = {}): Promise<Rig> {
  const r = rig(t, options, server);
  await r.client.connect();
  await settle();
  return r;
}

/** Returns the code of the error with which a promise rejects. */
export async function code(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "none";
}
