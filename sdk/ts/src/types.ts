/** What the client needs of a WebSocket: the part of the standard that all runtimes have. */
export interface WebSocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  // The types of events differ between runtimes, so handlers take any.
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A constructor of WebSockets, such as the global one. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

/**
 * The events of an application, as one interface for the type parameter of Client. Each member may
 * be left out: then its events are not checked.
 *
 * ```ts
 * interface Chat {
 *   receive: { said: Line };                       // the server sends
 *   send: { typing: { room: string } };            // the client sends
 *   request: { history(query: Query): Line[] };    // the client sends, the server answers
 *   ask: { confirm(question: Question): boolean }; // the server asks, the client answers
 * }
 * ```
 */
export interface Contract {
  receive?: object;
  send?: object;
  request?: object;
  ask?: object;
}

/** The data of the event `error` that does not answer a message. */
export interface ErrorData {
  message: string;
  code?: string;
}

/**
 * The data of the event `resync`: the client may have missed messages, and should load its data
 * again.
 */
export interface ResyncData {
  rooms: string[];
  targets: string[];
  since: string;
  until: string;
}

type Member<C, K extends string, Otherwise> = C extends Record<K, infer M> ? M : Otherwise;

/** The events that a client of this contract receives, with the types of their data. */
export type Receives<C> = Member<C, "receive", Record<string, any>> & { error: ErrorData; resync: ResyncData };

/** The events that a client of this contract sends, with the types of their data. */
export type Sends<C> = Member<C, "send", Record<string, any>>;

/** The requests that a client of this contract sends, as functions. */
export type Requests<C> = Member<C, "request", Record<string, (data?: any) => any>>;

/** The questions that a client of this contract answers, as functions. */
export type Asks<C> = Member<C, "ask", Record<string, (data: any) => any>>;

/** The names of events. */
export type Name<Events> = Extract<keyof Events, string>;

/** The type of a function's first parameter; undefined if it has none. */
export type DataOf<F> = F extends (...args: infer A) => any ? (A extends [] ? undefined : A[0]) : never;

/** The type of what a function returns. */
export type ReplyOf<F> = F extends (...args: any[]) => infer R ? Awaited<R> : never;

/** The arguments of data, optional where the data may be undefined, and more arguments. */
export type Arguments<D, More extends unknown[] = []> = undefined extends D ? [data?: D, ...more: More] : [data: D, ...more: More];

/** The place of a message in the history of a room. */
export interface Position {
  readonly offset: number;
  readonly epoch: string;
}

/** A message that the server has sent. */
export interface Message {
  /** Never empty. */
  readonly event: string;
  /** As it was sent; undefined if there was none. */
  readonly data: unknown;
  /** The room, if it has history and the client recovers it. */
  readonly room?: string;
  /** The place of the message in the history of the room. */
  readonly position?: Position;
}

/**
 * Where a client is in its life. `idle`: before connect. `connecting`: it connects and
 * authenticates. `connected`: it is authenticated. `waiting`: it will connect again. `closed`:
 * close was called, or the client has given up.
 */
export type Phase = "idle" | "connecting" | "connected" | "waiting" | "closed";

/** The state of a client. Each change makes a new object. */
export interface State {
  readonly phase: Phase;
  /** The code of the close, in the phases `waiting` and `closed`; 1006 without a close frame. */
  readonly code?: number;
  /** The reason of the close, from the server. It may be empty. */
  readonly reason?: string;
  /**
   * Why the client waits or has given up, in the phases `waiting` and `closed`. Undefined after
   * close.
   */
  readonly error?: Error;
  /** How many milliseconds the client waits before the next attempt, in the phase `waiting`. */
  readonly retry?: number;
  /** The id of the client on the server, in the phase `connected`. */
  readonly id?: string;
  /** The user that the server knows the client as, in the phase `connected`. */
  readonly userId?: string;
  /**
   * Whether the server has the extension of the protocol, in the phase `connected`. Without it
   * there are no answers to joins and heartbeats: rooms count as joined at once, requests are
   * answered only if the application does so, and a server that is gone is not noticed until the
   * runtime notices.
   */
  readonly extension?: boolean;
  /** Whether the server recovers messages of rooms with history. */
  readonly recovery?: boolean;
  /** Whether messages are encrypted. */
  readonly encrypted?: boolean;
  /** Whether the connection continues the session of the previous one. */
  readonly resumed?: boolean;
  /** When the credentials expire, by the clock of the server, if they do. */
  readonly expires?: Date;
}

/**
 * The state of a room. `joining`: not a member, because the client is not connected or the server
 * has not answered yet. `recovering`: a member, and missed messages are arriving. `joined`: a
 * member. `rejected`: the server has rejected the join, and the client does not try again. `left`:
 * leave was called, or the client was closed.
 */
export type RoomPhase = "joining" | "recovering" | "joined" | "rejected" | "left";

/**
 * Why missed messages were not recovered. `lost`: the room has no history, or the client does not
 * know its position. The others are those of the server.
 */
export type Unrecovered = "lost" | "evicted" | "reset" | "limit" | "invalid" | "unavailable" | "no_history" | (string & {});

/** The status of a room. Each change makes a new object. */
export interface RoomStatus {
  readonly phase: RoomPhase;
  /** Why the room was rejected, or left because the client was closed. */
  readonly error?: Error;
  /** How many missed messages follow, in the phase `recovering`. */
  readonly recovered?: number;
  /**
   * Set if messages may be missing between the last message and the next one: the program should
   * load the data that it shows again. Only the first status after the gap has it.
   */
  readonly unrecovered?: Unrecovered;
}

/** Options for Client.join. */
export interface RoomOptions {
  /**
   * How many of the newest messages the client wants when it joins first, if the room has history.
   */
  last?: number;
  /**
   * A position from which the client continues instead, such as Room.position of an earlier page.
   */
  after?: Position;
}

/** Options for requests and for waiting. */
export interface WaitOptions {
  /** Milliseconds; 0 for no limit. */
  timeout?: number;
  /** Ends the wait with the reason of the signal. */
  signal?: AbortSignal;
}

/** Encryption of one connection; see `@hearthws/client/encryption`. */
export interface Encryption {
  /** Makes a key pair. */
  begin(): Promise<Handshake>;
}

/** The client's half of the key exchange. */
export interface Handshake {
  /** In base64, for the server. */
  readonly publicKey: string;
  /** Derives the key from the answer of the server. */
  agree(serverPublicKey: string, salt: string): Promise<Cipher>;
}

/** The key of one connection. */
export interface Cipher {
  /** Encrypts a message. Returns the data of `encrypted`. */
  seal(text: string): Promise<{ iv: string; ct: string }>;
  /** Decrypts the data of `encrypted`. */
  open(data: unknown): Promise<string>;
}

/** Options for Client. Only `url` is required. */
export interface ClientOptions {
  /** The address of the server: ws, wss, http or https, or a path on the server of the page. */
  url: string;
  /**
   * The data of `authenticate`, or a function that returns it. The function is called before the
   * client connects, unless it resumes its session, and when the server announces that the
   * credentials expire. If it fails, the client tries again later; if the error is a HearthError
   * with the code `stop`, the client gives up. Default: none.
   */
  credentials?: object | string | number | boolean | null | ((signal: AbortSignal) => unknown);
  /**
   * Encrypts the messages in both directions. The client gives up if the server does not encrypt.
   * Default: none.
   */
  encryption?: Encryption;
  /**
   * How many messages may wait to be sent, while the client is not connected or the connection is
   * slow. Default 256.
   */
  queue?: number;
  /**
   * What happens if so many messages wait. `reject`: send throws, and a request fails, with the
   * code `queue_full`. `drop-oldest`: the oldest message is dropped and counted (Client.dropped);
   * if it is a request, it fails. Default `reject`.
   */
  queueFull?: "reject" | "drop-oldest";
  /**
   * The first limit of the random time between attempts to connect, in milliseconds. It doubles
   * with each attempt. Default 500.
   */
  retryMin?: number;
  /** The largest limit, in milliseconds. Default 30,000. */
  retryMax?: number;
  /**
   * How long an attempt to connect and authenticate may take, without `credentials`, in
   * milliseconds. Default 20,000.
   */
  connectTimeout?: number;
  /** How long requests wait by default, in milliseconds; 0 for no limit. Default 30,000. */
  requestTimeout?: number;
  /** The constructor of WebSockets. Default: the global one. */
  WebSocket?: WebSocketConstructor;
  /** Subprotocols to offer. Default: none. */
  protocols?: string[];
  /**
   * Called with errors that handlers throw, and with messages that cannot be handled. Default:
   * console.error.
   */
  onError?: (error: unknown) => void;
}
