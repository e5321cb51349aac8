// Checks the types: each line under a ts-expect-error must not compile. It is not run.
import { Client, type Message } from "../src/index.js";
import { useEvent } from "../src/react.js";

interface Line {
  text: string;
}

interface Chat {
  receive: { said: Line; cleared: undefined };
  send: { typing: { room: string }; bye: undefined };
  request: { history(query: { room: string }): Line[]; ping(): void };
  ask: { confirm(question: { text: string }): boolean };
}

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(..._: Equal<A, B> extends true ? [] : ["the types differ"]): void {}

export async function typed(client: Client<Chat>): Promise<void> {
  client.on("said", (line, message) => {
    same<typeof line, Line>();
    same<typeof message, Message>();
  });
  client.on("error", (error) => same<typeof error.code, string | undefined>());
  // @ts-expect-error: the server does not send it
  client.on("typing", () => {});
  const line = await client.once("said");
  same<typeof line, Line>();
  for await (const line of client.events("said")) same<typeof line, Line>();

  client.send("typing", { room: "a" });
  client.send("bye");
  // @ts-expect-error: the data is missing
  client.send("typing");
  // @ts-expect-error: the data is of another type
  client.send("typing", { room: 1 });
  // @ts-expect-error: the client does not send it
  client.send("said", { text: "" });

  const lines = await client.request("history", { room: "a" }, { timeout: 1 });
  same<typeof lines, Line[]>();
  const nothing = await client.request("ping");
  same<typeof nothing, void>();
  // @ts-expect-error: the data is missing
  void client.request("history");
  // @ts-expect-error: there is no such request
  void client.request("typing", { room: "a" });

  client.answer("confirm", ({ text }) => text === "yes");
  client.answer("confirm", async () => true);
  // @ts-expect-error: the answer is of another type
  client.answer("confirm", () => "yes");

  useEvent(client, "said", (line) => same<typeof line, Line>());
  // @ts-expect-error: there is no such event
  useEvent(client, "typing", () => {});
}

export async function untyped(client: Client): Promise<void> {
  client.on("anything", (data) => data.any.thing);
  client.send("anything");
  client.send("anything", 1);
  (await client.request("anything", { a: 1 }, { timeout: 1 })).any.thing;
  client.answer("anything", (data) => data.any);
}

export function partlyTyped(client: Client<{ receive: { said: Line } }>): void {
  client.on("said", (line) => same<typeof line, Line>());
  // @ts-expect-error: the server does not send it
  client.on("other", () => {});
  client.send("anything", 1);
}

export function options(WebSocket: new (url: string | URL, protocols?: string | string[]) => globalThis.WebSocket): void {
  new Client({ url: "ws://x", WebSocket });
  new Client({ url: "ws://x", credentials: async (signal) => ({ aborted: signal.aborted }) });
  // @ts-expect-error: the url is required
  new Client({});
  // @ts-expect-error: there is no such policy
  new Client({ url: "ws://x", queueFull: "wait" });
}
