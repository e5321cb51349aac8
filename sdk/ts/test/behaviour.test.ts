// Plays the behaviour suite (docs/clients.md) against a real server.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { Client, HearthError, type Room, type RoomStatus, ServerError, type State } from "../src/index.js";
import { encryption } from "../src/encryption.js";
import { build, repository } from "./hearth.js";

type Step = [name: string, ...args: any[]];

/** Scripts that take longer are left out: they need a fake clock. */
const longest = 20_000;

/** How long a step waits. */
const within = 15_000;

let server: ChildProcess;
let clients: string;
let control: string;

before(async () => {
  server = spawn(build("./internal/test/behaviour/serve"), { stdio: ["pipe", "pipe", "inherit"] });
  const [line] = await new Promise<[string]>((resolve, reject) => {
    createInterface({ input: server.stdout! }).once("line", (text) => resolve([text]));
    server.once("exit", () => reject(new Error("the server has ended")));
  });
  ({ clients, control } = JSON.parse(line));
});

after(async () => {
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.stdin!.end();
  await ended;
});

async function onServer(...step: unknown[]): Promise<void> {
  const response = await fetch(control, { method: "POST", body: JSON.stringify(step) });
  if (response.status !== 204) throw new Error(await response.text());
}

/** What callbacks have reported, in order. */
class Reports<T> {
  #all: T[] = [];
  #wake = () => {};

  add(value: T): void {
    this.#all.push(value);
    this.#wake();
  }

  async next(): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    while (!this.#all.length) {
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        clearTimeout(timer);
        timer = setTimeout(() => reject(new Error("nothing was reported")), within);
      });
    }
    clearTimeout(timer);
    return this.#all.shift()!;
  }
}

/** The name of an error in scripts. */
function nameOf(error: unknown): string {
  if (!error) return "";
  if (error instanceof ServerError) return error.code;
  return error instanceof HearthError ? error.code.replace("_", "-") : `other: ${error}`;
}

async function outcome(promise: Promise<unknown>): Promise<object> {
  return promise.then((reply) => ({ reply: reply ?? null, error: "" }), (error) => ({ reply: null, error: nameOf(error) }));
}

const wanted = ({ reply = null, error = "" }: any = {}) => ({ reply, error });

class Player {
  client!: Client;
  #states = new Reports<State>();
  #events = new Reports<{ event: string; data: unknown }>();
  #rooms = new Map<string, { room: Room; statuses: Reports<RoomStatus> }>();
  #answers = new Map<string, Promise<object>>();

  async perform([name, ...args]: Step): Promise<void> {
    switch (name) {
      case "server":
        return onServer(...args);
      case "client":
        return this.#newClient(args[0]);
      case "sleep":
        return new Promise((resolve) => setTimeout(resolve, args[0]));
      case "connect":
        return void this.client.connect();
      case "close":
        return this.client.close();
      case "answer-with":
        return void this.client.answer(args[0], () => {
          if (args[1].error) throw new HearthError(args[1].error, "the script wants this error");
          return args[1].reply;
        });
      case "state":
        return this.#state(args[0], args[1] ?? {});
      case "join":
        return this.#join(args[0], args[1]);
      case "leave":
        return this.#rooms.get(args[0])!.room.leave();
      case "room":
        return this.#room(args[0], args[1], args[2] ?? {});
      case "event":
        return assert.deepEqual(await this.#events.next(), { event: args[0], data: args[1] });
      case "send": {
        const sent = outcome((async () => this.client.send(args[0], args[1]))());
        return assert.deepEqual(await sent, wanted(args[2]));
      }
      case "request":
        return assert.deepEqual(await this.#request(args[0], args[1], args[3]), wanted(args[2]));
      case "request-later":
        return void this.#answers.set(args[0], this.#request(args[1], args[2], args[3]));
      case "answer":
        return assert.deepEqual(await this.#answers.get(args[0]), wanted(args[1]));
    }
    throw new Error("there is no such step");
  }

  #newClient({ credentials, sequence, encryption: encrypts, queue, full }: any): void {
    const next = () => {
      const { error, credentials } = sequence.shift() ?? { error: "stop" };
      if (!error) return credentials;
      throw error === "stop" ? new HearthError("stop", "stop") : new Error(error);
    };
    this.client = new Client({
      url: clients, queue, queueFull: full, credentials: sequence ? next : credentials, onError: () => {},
      ...(encrypts ? { encryption: encryption() } : {}),
    });
    this.client.onState((s) => this.#states.add(s));
    this.client.onMessage(({ event, data }) => this.#events.add({ event, data }));
  }

  #request(event: string, data: unknown, options: any): Promise<object> {
    return outcome(this.client.request(event, data, { timeout: options?.within ?? within }));
  }

  async #state(phase: string, want: Record<string, unknown>): Promise<void> {
    let s: State;
    do s = await this.#states.next();
    while (s.phase !== phase);
    const got: Record<string, unknown> = { ...s, user: s.userId, error: nameOf(s.error) };
    for (const [name, value] of Object.entries(want)) assert.equal(got[name], value, name);
  }

  #join(name: string, options: object | undefined): void {
    const statuses = new Reports<RoomStatus>();
    const room = this.client.join(name, options);
    room.onStatus((s) => statuses.add(s));
    this.#rooms.set(name, { room, statuses });
  }

  async #room(name: string, phase: string, { recovered = 0, unrecovered = "", code = "" }: any): Promise<void> {
    let s: RoomStatus;
    do s = await this.#rooms.get(name)!.statuses.next();
    while (s.phase !== phase);
    const got = { recovered: s.recovered ?? 0, unrecovered: s.unrecovered ?? "", code: nameOf(s.error) };
    assert.deepEqual(got, { recovered, unrecovered, code });
  }
}

/** Returns the longest time in a script, in milliseconds. */
function time(value: unknown): number {
  if (!Array.isArray(value)) {
    return value && typeof value === "object" ? Math.max(0, (value as any).for ?? 0, ...Object.values(value).map(time)) : 0;
  }
  return Math.max(value[0] === "sleep" ? value[1] : 0, ...value.map(time));
}

const folder = `${repository}client/behaviour/`;
for (const file of readdirSync(folder)) {
  for (const { name, steps } of JSON.parse(readFileSync(folder + file, "utf8")) as { name: string; steps: Step[] }[]) {
    const skip = time(steps) > longest && "it needs a fake clock";
    test(`${file.replace(".json", "")}: ${name}`, { skip }, async (t) => {
      // The first attempt after a loss comes after 250 ms: late enough for the next steps of a
      // script.
      t.mock.method(Math, "random", () => 0.5);
      await onServer("reset");
      const player = new Player();
      t.after(() => player.client?.close());
      for (const [i, step] of steps.entries()) {
        try {
          await player.perform(step);
        } catch (error) {
          throw new Error(`step ${i + 1}, ${JSON.stringify(step)}: ${(error as Error).message}`, { cause: error });
        }
      }
    });
  }
}
