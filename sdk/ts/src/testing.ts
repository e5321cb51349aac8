import { HearthError } from "./errors.js";
import { wait } from "./listeners.js";
import type { WaitOptions, WebSocketConstructor, WebSocketLike } from "./types.js";

/** A message that a fake server has received. */
export interface Received {
  readonly event: string;
  readonly data: any;
  readonly id?: unknown;
  readonly hearth?: any;
  readonly connection: FakeConnection;
}

/** Options for FakeServer. */
export interface FakeServerOptions {
  /**
   * Returns the user for credentials, or undefined for a client without one. If it throws, the
   * client is rejected. Default: accepts all.
   */
  authenticate?: (credentials: any) => string | undefined;
  /** Reports whether a client may join a room. Default: it may. */
  allow?: (room: string, connection: FakeConnection) => boolean;
  /** Reports whether a room has history, which the server keeps completely. Default: none has. */
  history?: (room: string) => boolean;
  /** Whether the server has the extension of the protocol. Default true. */
  extension?: boolean;
  /** Whether clients get tickets. Default false. */
  resume?: boolean;
  /** The times for heartbeats in milliseconds. Default 25,000 and 10,000. */
  heartbeat?: { interval: number; timeout: number };
  /** The largest message from a client in bytes. Default 131,072. */
  maxMessage?: number;
}

interface Log {
  epoch: string;
  messages: { event: string; data: unknown; offset: number }[];
}

/**
 * A server for unit tests, in memory and without timers. It speaks the protocol, without
 * encryption.
 *
 * ```ts
 * const server = new FakeServer();
 * const client = new Client({ url: "ws://test", WebSocket: server.WebSocket });
 * server.on("history", ({ room }) => ["hello"]);
 * await client.connect();
 * client.send("say", "hi");
 * assert.equal((await server.expect("say")).data, "hi");
 * server.send("said", "hi"); // to all clients
 * ```
 *
 * Messages are delivered in microtasks, so they work with the fake timers of any test runner.
 */
export class FakeServer {
  /** The constructor for the option WebSocket of Client. */
  readonly WebSocket: WebSocketConstructor;
  /** The connections that are open, oldest first. */
  readonly connections: FakeConnection[] = [];
  /** Whether clients can connect. If it is false, attempts fail with code 1006. */
  online = true;
  /** How many connections were attempted. */
  attempts = 0;

  /** @internal */
  readonly options: FakeServerOptions;
  /** @internal */
  readonly handlers = new Map<string, (data: any, connection: FakeConnection) => unknown>();
  /** @internal */
  readonly tickets = new Map<string, { id: string; userId: string | undefined; rooms: string[] }>();
  #received: Received[] = [];
  #waiting: { event: string; resolve: (message: Received) => void }[] = [];
  #logs = new Map<string, Log>();
  #epochs = 0;
  #ids = 0;

  constructor(options: FakeServerOptions = {}) {
    this.options = options;
    const server = this;
    this.WebSocket = class extends FakeWebSocket {
      constructor(_url: string) {
        super(server);
      }
    };
  }

  /**
   * Handles an event of clients. What f returns or resolves to answers a request; if it throws, the
   * answer is an error.
   */
  on(event: string, f: (data: any, connection: FakeConnection) => unknown): void {
    this.handlers.set(event, f);
  }

  /**
   * Returns the oldest message with this event that no call has returned yet, or waits for it. The
   * default timeout is 1,000 ms.
   */
  expect(event: string, options: WaitOptions = {}): Promise<Received> {
    const at = this.#received.findIndex((m) => m.event === event);
    if (at >= 0) return Promise.resolve(this.#received.splice(at, 1)[0]!);
    const seen = () => this.#received.map((m) => m.event).join(", ") || "nothing else";
    return wait<Received>({ timeout: 1000, ...options }, (resolve) => {
      const entry = { event, resolve };
      this.#waiting.push(entry);
      return () => void (this.#waiting = this.#waiting.filter((other) => other !== entry));
    }).catch((error) => {
      throw new HearthError("timeout", `the server did not receive ${event}; it received ${seen()}`, error);
    });
  }

  /** Sends an event to all clients. */
  send(event: string, data?: unknown): void {
    for (const c of [...this.connections]) if (c.authenticated) c.send(event, data);
  }

  /** Sends an event to the members of a room, and keeps it if the room has history. */
  sendToRoom(room: string, event: string, data?: unknown): void {
    const log = this.log(room);
    let position = {};
    if (log) {
      const offset = this.#end(log) + 1;
      log.messages.push({ event, data, offset });
      position = { room, offset, epoch: log.epoch };
    }
    for (const c of [...this.connections]) if (c.rooms.has(room)) c.transmit({ event, data, ...(c.recovery ? position : {}) });
  }

  /** Forgets the history of a room: the next log has another epoch. */
  forget(room: string): void {
    this.#logs.delete(room);
  }

  /** Closes all connections. */
  close(code = 1001, reason = "Server shutting down"): void {
    for (const c of [...this.connections]) c.close(code, reason);
  }

  /** Cuts all connections: clients see code 1006. */
  cut(): void {
    for (const c of [...this.connections]) c.cut();
  }

  /** @internal */
  received(message: Received): void {
    const at = this.#waiting.findIndex((w) => w.event === message.event);
    if (at < 0) this.#received.push(message);
    else this.#waiting.splice(at, 1)[0]!.resolve(message);
  }

  /** @internal */
  log(room: string): Log | undefined {
    if (!this.options.history?.(room)) return undefined;
    let log = this.#logs.get(room);
    if (!log) this.#logs.set(room, (log = { epoch: `e${++this.#epochs}`, messages: [] }));
    return log;
  }

  #end(log: Log): number {
    return log.messages.at(-1)?.offset ?? 0;
  }

  /** @internal */
  id(): string {
    return String(++this.#ids);
  }

  /** @internal Joins rooms: returns the answer, and the messages that follow it. */
  join(connection: FakeConnection, rooms: string[], positions: any = {}, last: any = {}): [answer: object, follow: object[]] {
    const joined: object[] = [];
    const rejected: object[] = [];
    const follow: object[] = [];
    for (const room of rooms) {
      if (this.options.allow?.(room, connection) === false) {
        rejected.push({ room, code: "forbidden" });
        continue;
      }
      const log = connection.recovery ? this.log(room) : undefined;
      const member = connection.rooms.has(room);
      connection.rooms.add(room);
      const position = log ? { offset: this.#end(log), epoch: log.epoch } : {};
      const from = positions[room];
      let missed: Log["messages"] = [];
      let unrecovered: string | undefined;
      if (!member && from) {
        if (!log) unrecovered = "no_history";
        else if (from.epoch !== log.epoch || from.offset > this.#end(log)) unrecovered = "reset";
        else missed = log.messages.filter((m) => m.offset > from.offset);
      } else if (!member && last[room]) {
        missed = (log?.messages ?? []).slice(-last[room]);
      }
      follow.push(...missed.map((m) => ({ ...m, room, epoch: log!.epoch })));
      joined.push({ room, ...position, ...(missed.length ? { recovered: missed.length } : {}), ...(unrecovered ? { unrecovered } : {}) });
    }
    return [{ joined, rejected }, follow];
  }
}

/** The server's side of a connection to a FakeServer. */
export class FakeConnection {
  /** The id of the client. */
  id: string;
  /** The user of the client. */
  userId: string | undefined;
  /** Whether the client has authenticated. */
  authenticated = false;
  /** The rooms of the client. */
  readonly rooms = new Set<string>();
  /**
   * While it is true, the connection neither answers nor delivers anything, as if the server was
   * frozen.
   */
  frozen = false;

  /** @internal */
  recovery = false;
  #server: FakeServer;
  #socket: FakeWebSocket;
  #extension = false;
  #resume = false;
  #asked = new Map<number, { resolve: (data: unknown) => void; reject: (error: unknown) => void }>();
  #asks = 0;

  /** @internal */
  constructor(server: FakeServer, socket: FakeWebSocket) {
    this.#server = server;
    this.#socket = socket;
    this.id = `client-${server.id()}`;
  }

  /** Sends an event to this client. */
  send(event: string, data?: unknown): void {
    this.transmit({ event, data });
  }

  /** Sends a message as it is, with any members. */
  transmit(message: object): void {
    if (!this.frozen) this.#socket.deliver(JSON.stringify(message));
  }

  /** Asks the client a question. It rejects with the error of the client. */
  ask(event: string, data?: unknown, options: WaitOptions = {}): Promise<any> {
    const ask = ++this.#asks;
    return wait({ timeout: 1000, ...options }, (resolve, reject) => {
      this.#asked.set(ask, { resolve, reject });
      this.send("hearth:ask", { ask, event, data });
      return () => this.#asked.delete(ask);
    });
  }

  /** Takes the client out of rooms, as if the server had missed messages. */
  interrupt(...rooms: string[]): void {
    for (const room of rooms) this.rooms.delete(room);
    this.send("hearth:interrupted", { rooms, reason: "gap" });
  }

  /** Announces that the credentials expire. */
  expiring(expires: Date): void {
    this.send("hearth:expiring", { expires: expires.toISOString() });
  }

  /** Closes the connection. */
  close(code: number, reason = ""): void {
    this.#socket.end(code, reason);
  }

  /** Cuts the connection: the client sees code 1006. */
  cut(): void {
    this.#socket.end(1006, "");
  }

  /** @internal A message of the client has arrived. */
  receive(text: string): void {
    if (this.frozen) return;
    if (new TextEncoder().encode(text).length > (this.#server.options.maxMessage ?? 131_072)) return this.close(1009, "Message too large");
    const { event, data, id, hearth } = JSON.parse(text);
    this.#server.received({ event, data, id, hearth, connection: this });
    if (event === "authenticate") this.#authenticate(data, id, hearth);
    else if (!this.authenticated) this.send("error", { message: "Not authenticated" });
    else if (event === "heartbeat") this.#answer({ event, id });
    else if (event === "join") this.#join(data, id);
    else if (event === "leave") this.#leave(data.rooms, id);
    else if (event === "hearth:answer") this.#answered(data);
    else void this.#handle(event, data, id);
  }

  /** Sends what only clients with the extension get. */
  #answer(message: object): void {
    if (this.#extension) this.transmit(message);
  }

  #authenticate(data: any, id: unknown, hearth: any): void {
    const { options, tickets } = this.#server;
    const again = this.authenticated;
    let resumed: object | undefined;
    let follow: object[] = [];
    const features = ((hearth?.features ?? []) as string[]).filter((f) => f !== "resume" || options.resume);
    if (!again) {
      this.#extension = options.extension !== false && hearth?.version >= 1;
      this.recovery = this.#extension && features.includes("recovery");
      this.#resume = this.#extension && features.includes("resume");
    }
    const ticket = this.#extension && hearth?.ticket ? tickets.get(hearth.ticket) : undefined;
    if (this.#extension && hearth?.ticket) {
      if (!ticket) return this.transmit({ event: "error", data: { message: "Ticket rejected", code: "ticket_rejected" }, id });
      tickets.delete(hearth.ticket);
      this.id = ticket.id;
      this.userId = ticket.userId;
      [resumed, follow] = this.#server.join(this, ticket.rooms, hearth.positions);
    } else {
      try {
        this.userId = options.authenticate?.(data ?? {});
      } catch {
        this.transmit({ event: "error", data: { message: "Authentication failed" }, id });
        if (!again) this.close(4003, "Authentication failed");
        return;
      }
    }
    if (again) return this.transmit({ event: "authenticate", data: {}, id });
    this.authenticated = true;
    const { heartbeat = { interval: 25_000, timeout: 10_000 }, maxMessage: message = 131_072 } = options;
    this.transmit({
      event: "connected",
      data: { id: this.id, userId: this.userId, time: new Date().toISOString() },
      hearth: this.#extension ? { version: 1, features, heartbeat, limits: { message }, resumed } : undefined,
    });
    for (const m of follow) this.transmit(m);
    this.#ticket();
  }

  #ticket(): void {
    if (!this.#resume) return;
    const ticket = `ticket-${this.#server.id()}`;
    this.#server.tickets.set(ticket, { id: this.id, userId: this.userId, rooms: [...this.rooms] });
    this.send("hearth:ticket", { ticket });
  }

  #join({ rooms, positions, last }: any, id: unknown): void {
    const [answer, follow] = this.#server.join(this, rooms, positions, last);
    this.#answer({ event: "join", data: answer, id });
    for (const m of follow) this.#answer(m);
    this.#ticket();
  }

  #leave(rooms: string[], id: unknown): void {
    const left = rooms.filter((room) => this.rooms.delete(room));
    const rejected = rooms.filter((room) => !left.includes(room)).map((room) => ({ room, code: "not_member" }));
    this.#answer({ event: "leave", data: { left, rejected }, id });
    this.#ticket();
  }

  #answered({ ask, data, error }: any): void {
    const asked = this.#asked.get(ask);
    if (error) asked?.reject(new HearthError(error.code ?? "", error.message ?? ""));
    else asked?.resolve(data);
  }

  async #handle(event: string, data: unknown, id: unknown): Promise<void> {
    const f = this.#server.handlers.get(event);
    try {
      if (!f) throw new HearthError("unknown_event", "Unknown event");
      const reply = await f(data, this);
      if (id !== undefined && (this.#extension || reply !== undefined)) this.transmit({ event, data: reply, id });
    } catch (error) {
      const { code, message } = error as HearthError;
      if (id !== undefined) this.transmit({ event: "error", data: { message, code: code ?? "internal" }, id });
    }
  }
}

/** The client's side of a connection to a FakeServer. */
class FakeWebSocket implements WebSocketLike {
  readyState = 0;
  bufferedAmount = 0;
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  #server: FakeServer;
  #connection: FakeConnection;

  constructor(server: FakeServer) {
    this.#server = server;
    this.#connection = new FakeConnection(server, this);
    server.attempts++;
    queueMicrotask(() => {
      if (this.readyState !== 0) return;
      if (!server.online) return this.end(1006, "");
      this.readyState = 1;
      server.connections.push(this.#connection);
      this.onopen?.({});
    });
  }

  send(text: string): void {
    if (this.readyState === 0) throw new Error("the WebSocket is not open");
    queueMicrotask(() => {
      if (this.readyState === 1) this.#connection.receive(text);
    });
  }

  close(): void {
    this.end(1005, "");
  }

  deliver(text: string): void {
    queueMicrotask(() => {
      if (this.readyState === 1) this.onmessage?.({ data: text });
    });
  }

  end(code: number, reason: string): void {
    if (this.readyState > 1) return;
    const { connections } = this.#server;
    const at = connections.indexOf(this.#connection);
    if (at >= 0) connections.splice(at, 1);
    // Messages that were sent before arrive before the close.
    this.readyState = this.readyState === 1 ? 1 : 3;
    queueMicrotask(() => {
      this.readyState = 3;
      this.onclose?.({ code, reason });
    });
  }
}
