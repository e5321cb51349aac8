import { Connection, type End, type Envelope, type Granted } from "./connection.js";
import { HearthError, ServerError, serverError } from "./errors.js";
import { Listeners, wait } from "./listeners.js";
import { Room, Rooms } from "./room.js";
import type {
  Arguments, Asks, ClientOptions, DataOf, Message, Name, Receives, ReplyOf, Requests, RoomOptions, Sends, State, WaitOptions,
} from "./types.js";

/** A message that waits to be sent, or a request that waits for its answer. */
interface Item {
  text: string;
  /** Of a request. */
  id?: string;
  resolve?: (data: unknown) => void;
  reject?: (error: unknown) => void;
}

const defaults = { queue: 256, queueFull: "reject", retryMin: 500, retryMax: 30_000, connectTimeout: 20_000, requestTimeout: 30_000 };

/**
 * How long a connection must last to count as a success: otherwise the time between attempts grows.
 */
const stable = 5000;

/** How long a client waits at least before it sends new credentials again. */
const refreshPause = 5000;

/** How often a client looks whether a slow connection takes more messages. */
const flushPause = 50;

/** How many messages wait in an iterator. */
const maxIterated = 1024;

const reserved = /^((authenticate|connected|join|leave|heartbeat|disconnect|encrypted)$|hearth:)/;

/** The parts of it differ between runtimes. */
const runtime = globalThis as any;

const authenticationFailed = "Authentication failed";
const authenticationError = "Authentication error";

/** Reports whether the client must not connect again. */
function terminal({ code, error }: End): boolean {
  if (error instanceof HearthError && (error.code === "stop" || error.code === "not_encrypted")) return true;
  if (code === 4003) return error.message !== authenticationError; // then the application has failed
  return code === 1000 || (code >= 3000 && ![4001, 4002, 4005, 4006].includes(code));
}

/**
 * A connection to a server that is restored when it is lost. The type parameter is the interface of
 * the application's events; see Contract.
 *
 * ```ts
 * const credentials = () => fetchToken();
 * const client = new Client<Chat>({ url: "wss://example.com/ws", credentials });
 * client.on("said", (line) => show(line));
 * const room = client.join("chat:tea", { last: 20 });
 * await client.connect();
 * const lines = await client.request("history", { room: "chat:tea" });
 * ```
 *
 * Messages of a room with history arrive in order and once, also if the connection is lost in
 * between, or the status of the room says `unrecovered`. All other messages are delivered at most
 * once: after a connection was lost, a program should load the data that it shows again.
 */
export class Client<C = {}> {
  #options: ClientOptions & Required<Pick<ClientOptions, keyof typeof defaults | "WebSocket" | "onError">>;
  #state: State = { phase: "idle" };
  #states = new Listeners<[State]>();
  #handlers = new Map<string, Listeners<[any, Message]>>();
  #messages = new Listeners<[Message]>();
  #answers = new Map<string, (data: any) => unknown>();
  #rooms: Rooms;
  #connection: Connection | undefined;
  #granted: Granted | undefined;
  /** The rooms were joined, so that other messages may follow. */
  #ready = false;
  /** Ends what belongs to the connection. */
  #abort = new AbortController();
  #refreshing = false;
  #since = 0;
  #attempts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ticket: string | undefined;
  #queue: Item[] = [];
  #flushTimer: ReturnType<typeof setTimeout> | undefined;
  #pending = new Map<string, Item>();
  #lastId = 0;
  #dropped = 0;

  /**
   * Makes a client. It does not connect; connect does. It throws a HearthError if an option is
   * invalid.
   */
  constructor(options: ClientOptions) {
    const all: any = { WebSocket: runtime.WebSocket, onError: (error: unknown) => console.error(error), ...defaults };
    for (const [name, value] of Object.entries(options)) if (value !== undefined) all[name] = value;
    this.#options = all;
    const at = runtime.location?.origin;
    const { url } = options;
    this.#options.url = (url[0] === "/" && at ? at + url : url).replace(/^http/i, "ws");
    if (!/^wss?:\/\/./i.test(this.#options.url)) throw new HearthError("invalid", `url is ${url}: use one like wss://example.com/ws`);
    if (!this.#options.WebSocket) throw new HearthError("invalid", "set the option WebSocket");
    this.#rooms = new Rooms({
      send: (event, data) => {
        const id = this.#id();
        this.#connection!.send(encode(event, data, id, true));
        return id;
      },
      onError: this.#options.onError,
    });
  }

  /** The present state. */
  get state(): State {
    return this.#state;
  }

  /**
   * How many messages were dropped: because of `drop-oldest`, because they were too large, or by
   * close.
   */
  get dropped(): number {
    return this.#dropped;
  }

  /**
   * Connects, and resolves when the client is connected. It rejects when the client has given up or
   * was closed, and by the options; then the client still tries to connect, until close. Later
   * calls only wait. To miss nothing, register handlers and join rooms before.
   */
  connect(options: WaitOptions = {}): Promise<void> {
    if (this.#state.phase === "idle") {
      this.#listen("addEventListener");
      this.#start();
    }
    return wait<void>(options, (resolve, reject) => {
      const look = ({ phase, error }: State) => {
        if (phase === "connected") resolve();
        if (phase === "closed") reject(closed(error));
      };
      look(this.#state);
      return this.onState(look);
    });
  }

  /**
   * Connects at once if the client waits for the next attempt. If it is connected, it checks the
   * connection.
   */
  retry(): void {
    if (this.#state.phase === "waiting") this.#start();
    else this.#connection?.probe();
  }

  /**
   * Closes the connection with code 1000, and frees everything: requests and waiting promises
   * reject, iterators end, rooms are left, messages that wait are dropped. A client that was closed
   * cannot be used again.
   */
  close(): void {
    if (this.#state.phase !== "closed") this.#shut({ phase: "closed" });
  }

  /** Calls f when the state changes. Returns a function that ends this. */
  onState(f: (state: State) => void): () => void {
    return this.#states.add(f);
  }

  /**
   * Calls f for each message of an event, in the order of the server. Returns a function that ends
   * this. The events `error` and `resync` are the server's own: errors that do not answer a
   * message, and the notice that messages may be missing.
   */
  on<E extends Name<Receives<C>>>(event: E, f: (data: Receives<C>[E], message: Message) => void): () => void {
    let listeners = this.#handlers.get(event);
    if (!listeners) this.#handlers.set(event, (listeners = new Listeners()));
    return listeners.add(f);
  }

  /**
   * Calls f for each message of any event, after the handlers of on. Returns a function that ends
   * this.
   */
  onMessage(f: (message: Message) => void): () => void {
    return this.#messages.add(f);
  }

  /**
   * Waits for the next message of an event, and resolves to its data. It rejects by the options and
   * by close.
   */
  once<E extends Name<Receives<C>>>(event: E, options: WaitOptions = {}): Promise<Receives<C>[E]> {
    return wait<Receives<C>[E]>(options, (resolve, reject) => {
      const offs = [this.on(event, resolve), this.#onClosed((error) => reject(closed(error)))];
      return () => offs.forEach((off) => off());
    });
  }

  /**
   * Returns an iterator over the data of an event, which begins now and ends with close or the
   * signal. If more than 1,024 messages wait, it fails with the code `queue_full`.
   */
  events<E extends Name<Receives<C>>>(event: E, { signal }: { signal?: AbortSignal } = {}): AsyncIterableIterator<Receives<C>[E]> {
    const values: Receives<C>[E][] = [];
    let ended = false;
    let error: Error | undefined;
    let wake = () => {};
    const end = () => {
      ended = true;
      offs.forEach((off) => off());
      signal?.removeEventListener("abort", end);
      wake();
    };
    const offs = [
      this.on(event, (data) => {
        if (values.length < maxIterated) values.push(data);
        else {
          error = new HearthError("queue_full", `more than ${maxIterated} messages wait`);
          end();
        }
        wake();
      }),
      this.#onClosed(end),
    ];
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
    return (async function* () {
      try {
        for (;;) {
          while (values.length) yield values.shift()!;
          if (error) throw error;
          if (ended) return;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        end();
      }
    })();
  }

  /**
   * Sends an event. If the client is not connected, the message waits, and is sent after its rooms
   * were joined. Send does not tell whether the message arrives; request does. It throws a
   * HearthError with the code `queue_full`, `too_large`, `closed` or `invalid`.
   */
  send<E extends Name<Sends<C>>>(event: E, ...[data]: Arguments<Sends<C>[E]>): void {
    this.#add({ text: encode(event, data) });
  }

  /**
   * Sends an event, and resolves to the data of the answer: undefined, if a handler of the server
   * has returned without one. A request that was sent when the connection is lost is not repeated:
   * it rejects with the code `disconnected`, because the server may have handled it. It also
   * rejects with a ServerError if the server answers with an error, with the codes of send, and
   * with `timeout`.
   */
  request<E extends Name<Requests<C>>>(
    event: E, ...[data, options]: Arguments<DataOf<Requests<C>[E]>, [options?: WaitOptions]>
  ): Promise<ReplyOf<Requests<C>[E]>> {
    return this.#request(event, data, { timeout: this.#options.requestTimeout, ...options });
  }

  /**
   * Answers the questions of the server with what f returns or resolves to. If f throws, the answer
   * is an error, with the code of the error if it has one. There is one function for each event: a
   * later call replaces it. Returns a function that removes it. Other questions are answered with
   * the error `unknown_event`.
   */
  answer<E extends Name<Asks<C>>>(event: E, f: (data: DataOf<Asks<C>[E]>) => ReplyOf<Asks<C>[E]> | Promise<ReplyOf<Asks<C>[E]>>): () => void {
    this.#answers.set(event, f);
    return () => {
      if (this.#answers.get(event) === f) this.#answers.delete(event);
    };
  }

  /**
   * Joins a room, now if the client is connected, and after each new connection. It returns at
   * once; Room.ready waits. For a room that was joined before it returns the same object. It throws
   * a HearthError if the name is invalid or the client is closed.
   */
  join(name: string, options: RoomOptions = {}): Room {
    if (!name || name.length > 256 || name.startsWith("ws:")) throw new HearthError("invalid", `not a valid room: ${name.slice(0, 80)}`);
    if (this.#state.phase === "closed") throw closed(this.#state.error);
    return this.#rooms.add(name, options);
  }

  #request(event: string, data: unknown, options: WaitOptions, internal?: boolean): Promise<any> {
    const id = this.#id();
    return wait(options, (resolve, reject) => {
      const item: Item = { text: "", id, resolve, reject };
      try {
        item.text = encode(event, data, id, internal);
        this.#add(item);
      } catch (error) {
        reject(error);
      }
      return () => {
        this.#pending.delete(id);
        this.#queue = this.#queue.filter((other) => other !== item);
      };
    });
  }

  #id(): string {
    return (++this.#lastId).toString(36);
  }

  #onClosed(f: (error?: Error) => void): () => void {
    if (this.#state.phase === "closed") queueMicrotask(() => f(this.#state.error));
    return this.onState(({ phase, error }) => phase === "closed" && f(error));
  }

  #set(state: State): void {
    this.#state = state;
    this.#states.call(this.#options.onError, state);
  }

  #listen(how: "addEventListener" | "removeEventListener"): void {
    runtime[how]?.("online", this.#wake);
    runtime.document?.[how]("visibilitychange", this.#wake);
  }

  /** The network or the page may be back. */
  #wake = (): void => {
    if (runtime.document?.visibilityState !== "hidden") this.retry();
  };

  #start(): void {
    clearTimeout(this.#timer);
    this.#abort = new AbortController();
    this.#set({ phase: "connecting" });
    if (this.#state.phase !== "connecting") return;
    this.#connection = new Connection({
      ...this.#options, ticket: this.#ticket,
      used: () => (this.#ticket = undefined),
      credentials: () => this.#credentials(),
      positions: () => this.#rooms.positions(),
      connected: (granted) => this.#connected(granted),
      message: (message) => this.#message(message),
      ended: (end) => this.#ended(end),
    });
  }

  async #credentials(): Promise<unknown> {
    const { credentials } = this.#options;
    return typeof credentials === "function" ? credentials(this.#abort.signal) : credentials;
  }

  #connected(granted: Granted): void {
    const { resumed, expires, ...rest } = granted;
    this.#granted = granted;
    this.#since = performance.now();
    this.#set({ phase: "connected", ...rest, resumed: !!resumed, ...expiry(expires) });
    if (this.#granted !== granted) return; // closed by a callback
    this.#rooms.connected(granted.extension, resumed);
    this.#ready = true;
    this.#flush();
  }

  #ended(end: End): void {
    if (terminal(end)) return this.#shut({ phase: "closed", ...end });
    if (this.#granted && performance.now() - this.#since >= stable) this.#attempts = 0;
    if (end.code === 4005 || end.code === 4006) this.#ticket = undefined;
    this.#disconnected(new HearthError("disconnected", "the connection was lost", end.error));
    const { retryMin, retryMax } = this.#options;
    const atOnce = !this.#attempts && (end.code === 1012 || end.code === 4005);
    const retry = atOnce ? 0 : Math.random() * Math.min(retryMax, retryMin * 2 ** this.#attempts);
    this.#attempts++;
    this.#timer = setTimeout(() => this.#start(), retry);
    const state: State = { phase: "waiting", ...end, retry };
    this.#state = state;
    this.#rooms.disconnected();
    if (this.#state === state) this.#set(state); // no callback has changed it
  }

  /** Ends what belongs to the connection. */
  #disconnected(error: Error): void {
    this.#connection = this.#granted = undefined;
    this.#ready = this.#refreshing = false;
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    this.#abort.abort(error);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const item of pending) item.reject!(error);
  }

  /** Ends the client. */
  #shut(state: State): void {
    this.#state = state;
    this.#listen("removeEventListener");
    clearTimeout(this.#timer);
    this.#connection?.close(1000);
    const error = closed(state.error);
    this.#disconnected(error);
    for (const item of this.#queue.splice(0)) this.#drop(item, error);
    this.#rooms.close(error);
    this.#set(state);
  }

  /** Reports that a message is not sent. */
  #drop({ reject }: Item, error: unknown): void {
    if (reject) reject(error);
    else this.#dropped++;
  }

  #add(item: Item): void {
    const { queue, queueFull } = this.#options;
    if (this.#state.phase === "closed") throw closed(this.#state.error);
    if (this.#ready && !this.#queue.length && this.#connection!.writable) return this.#write(item);
    while (this.#queue.length >= queue) {
      const error = new HearthError("queue_full", `${queue} messages wait to be sent`);
      if (queueFull === "reject" || !queue) throw error;
      this.#drop(this.#queue.shift()!, error);
    }
    this.#queue.push(item);
    this.#flush();
  }

  /** Sends the messages that wait, as far as the connection takes them. */
  #flush(): void {
    while (this.#ready && this.#queue.length && this.#connection!.writable) {
      const item = this.#queue.shift()!;
      try {
        this.#write(item);
      } catch (error) {
        this.#drop(item, error);
        if (!item.reject) this.#options.onError(error);
      }
    }
    if (!this.#ready || !this.#queue.length) return;
    this.#flushTimer ??= setTimeout(() => {
      this.#flushTimer = undefined;
      this.#flush();
    }, flushPause);
  }

  #write(item: Item): void {
    if (!this.#connection!.fits(item.text)) {
      throw new HearthError("too_large", "the message is larger than the server accepts");
    }
    if (item.id) this.#pending.set(item.id, item);
    this.#connection!.send(item.text);
  }

  #message(m: Envelope): void {
    const { data, event, room, offset, epoch } = m;
    if (typeof m.id === "string" && this.#answered(m.id, event, data)) return;
    if (event === "hearth:interrupted") return this.#rooms.interrupted(data?.rooms ?? []);
    if (event === "hearth:expiring") return void this.#refresh();
    if (event === "hearth:ticket") return void (this.#ticket = data?.ticket);
    if (event === "hearth:ask") return void this.#asked(data ?? {});
    if (reserved.test(event)) return; // of a later version
    const position = offset && epoch ? { offset, epoch } : undefined;
    if (!this.#rooms.received(room, position)) return;
    const message: Message = position ? { event, data, room: room!, position } : { event, data };
    this.#handlers.get(event)?.call(this.#options.onError, data, message);
    this.#messages.call(this.#options.onError, message);
    this.#rooms.recovered(room);
  }

  /** Handles the answer to the message with this id. Returns false if there is none. */
  #answered(id: string, event: string, data: unknown): boolean {
    const item = this.#pending.get(id);
    if (item) {
      this.#pending.delete(id);
      if (event === "error") item.reject!(serverError(data));
      else item.resolve!(data);
      return true;
    }
    if (event === "join") this.#rooms.joined(id, data);
    return event === "error" && this.#rooms.failed(id, serverError(data));
  }

  /** Answers a question of the server. */
  async #asked({ ask, event, data }: { ask?: number; event?: string; data?: unknown }): Promise<void> {
    const connection = this.#connection;
    const encoded = (answer: object) => encode("hearth:answer", { ask, ...answer }, undefined, true);
    let text: string;
    try {
      const f = this.#answers.get(event ?? "");
      if (!f) throw new HearthError("unknown_event", "Unknown event");
      text = encoded({ data: await f(data) });
      if (!connection?.fits(text)) throw new HearthError("too_large", "The answer is too large");
    } catch (error) {
      const { code, message } = Object(error);
      text = encoded({ error: { message: String(message ?? error), code: typeof code === "string" ? code : undefined } });
    }
    if (this.#connection === connection) connection?.send(text);
  }

  /** Sends new credentials on the connection. */
  async #refresh(): Promise<void> {
    if (this.#refreshing) return;
    this.#refreshing = true;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        const data = await this.#credentials();
        if (signal.aborted) return;
        const answer = await this.#request("authenticate", data ?? undefined, { signal }, true);
        if (signal.aborted) return;
        this.#refreshing = false;
        const { expires, ...rest } = this.#state;
        return this.#set({ ...rest, ...expiry(answer?.expires) });
      } catch (error) {
        if (signal.aborted) return;
        this.#options.onError(error);
        const { code, message } = error as HearthError;
        // Then the connection stays until the old credentials expire.
        if (code === "stop" || (error instanceof ServerError && message === authenticationFailed)) break;
        await wait({ signal, timeout: refreshPause * (1 + Math.random()) }, () => () => {}).catch(() => {});
      }
    }
    this.#refreshing = false;
  }
}

/** The error of everything that was not possible because the client is closed. */
const closed = (reason?: Error) => new HearthError("closed", `the client is closed${reason ? `: ${reason.message}` : ""}`, reason);

const expiry = (expires: unknown) => (typeof expires === "string" ? { expires: new Date(expires) } : {});

function encode(event: string, data: unknown, id?: string, internal?: boolean): string {
  if (!internal && (!event || event === "error" || reserved.test(event))) throw new HearthError("invalid", `not a valid event: ${event}`);
  return JSON.stringify({ event, data, id });
}
