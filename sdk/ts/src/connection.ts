import { HearthError, serverError } from "./errors.js";
import type { Cipher, Encryption, Handshake, Position, WebSocketConstructor, WebSocketLike } from "./types.js";

/** A message on the wire. */
export interface Envelope {
  event: string;
  data?: any;
  id?: unknown;
  hearth?: any;
  room?: string;
  offset?: number;
  epoch?: string;
}

/** What a connection is made from. */
export interface Setup {
  url: string;
  protocols?: string[];
  WebSocket: WebSocketConstructor;
  encryption?: Encryption;
  connectTimeout: number;
  /** Returns the credentials. */
  credentials(): Promise<unknown>;
  /** By which the client resumes its session, if it can. */
  ticket: string | undefined;
  /** The ticket is sent now, so it is used up. */
  used(): void;
  /** Returns the positions of all rooms. */
  positions(): Record<string, Position>;
  /** The server has accepted the client. */
  connected(granted: Granted): void;
  /** A message has arrived, in the order of the server. */
  message(message: Envelope): void;
  /** The connection has ended. The last call. */
  ended(end: End): void;
}

/** What the server has granted. */
export interface Granted {
  id: string;
  userId?: string;
  extension: boolean;
  recovery: boolean;
  encrypted: boolean;
  expires: unknown;
  /** The rooms of a session that was resumed, as in the answer to a join. */
  resumed?: any;
}

/** Why a connection has ended. */
export interface End {
  code: number;
  reason: string;
  error: Error;
}

const features = ["recovery", "resume", "ask"];

/**
 * The largest message with a ticket: the default limit of servers for messages before
 * authentication.
 */
const maxResume = 16 << 10;

/**
 * How many bytes may wait in the WebSocket before the client keeps further messages in its queue.
 */
const maxBuffered = 1 << 20;

/** How long a client waits for the close after an error. */
const errorPause = 100;

const now = () => performance.now();

/** The size of a text in UTF-8. */
export const size = (text: string) => new TextEncoder().encode(text).length;

/** Times that the server has granted, if they are reasonable. */
const milliseconds = (n: unknown, otherwise: number) => (typeof n === "number" && n >= 1 && n <= 3_600_000 ? n : otherwise);

/**
 * One connection to the server: it authenticates, encrypts, and notices when the server is gone.
 */
export class Connection {
  #setup: Setup;
  #ws: WebSocketLike | undefined;
  #ended = false;
  #granted: Granted | undefined;
  /** The error that the server has sent before it was connected. */
  #refused: Error | undefined;
  #resuming = false;
  #handshake: Handshake | undefined;
  #cipher: Cipher | undefined;
  /** With encryption: messages that are being decrypted and encrypted, in order. */
  #incoming = Promise.resolve();
  #outgoing = Promise.resolve();
  #sealing = 0; // bytes in #outgoing
  #limit = Infinity;
  /**
   * The one timer: the deadline to connect, then the next heartbeat or the deadline of its answer.
   */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #due = 0;
  #interval = 25_000;
  #timeout = 10_000;
  #received = 0;
  #sent = 0;
  /**
   * How many times the client waits for the answer to a heartbeat: a second time after a pause of
   * the program.
   */
  #waiting = 0;

  constructor(setup: Setup) {
    this.#setup = setup;
    void this.#open().catch((error) => this.fail(error));
  }

  /** Whether more messages may be written. */
  get writable(): boolean {
    return !!this.#granted && !this.#ended && this.#ws!.bufferedAmount + this.#sealing < maxBuffered;
  }

  /** Reports whether the server accepts a message of this size. */
  fits(text: string): boolean {
    // Base64 and the envelope make an encrypted message larger. A text has at most 3 bytes for each
    // unit.
    const of = (bytes: number) => (this.#cipher ? Math.ceil((bytes + 16) / 3) * 4 + 64 : bytes);
    return of(text.length * 3) <= this.#limit || of(size(text)) <= this.#limit;
  }

  /** Writes a message. */
  send(text: string): void {
    this.#sent = now();
    const cipher = this.#cipher;
    if (!cipher) return this.#write(text);
    this.#sealing += text.length;
    this.#outgoing = this.#outgoing
      .then(() => cipher.seal(text))
      .then((data) => this.#write(JSON.stringify({ event: "encrypted", data })))
      .catch((error) => this.fail(error))
      .then(() => void (this.#sealing -= text.length));
  }

  /** Asks the server for a sign of life now. */
  probe(): void {
    if (this.#granted?.extension && !this.#waiting) this.#heartbeat();
  }

  /** Ends the connection, with the code for the server. It calls nothing. */
  close(code?: number): void {
    const ws = this.#ws;
    this.#ended = true;
    clearTimeout(this.#timer);
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.onerror = () => {}; // some implementations throw if there is no handler
    ws.close(code);
  }

  /** Ends the connection because of an error. */
  fail(error: unknown): void {
    this.#end({ code: 1006, reason: "", error: error instanceof Error ? error : new Error(String(error)) });
  }

  #end(end: End): void {
    if (this.#ended) return;
    this.close();
    this.#setup.ended(end);
  }

  #write(text: string): void {
    if (!this.#ended) this.#ws!.send(text);
  }

  #schedule(delay: number, then: () => void): void {
    clearTimeout(this.#timer);
    this.#due = now() + delay;
    this.#timer = setTimeout(then, delay);
  }

  async #open(): Promise<void> {
    const setup = this.#setup;
    this.#handshake = await setup.encryption?.begin();
    let text = setup.ticket && this.#authenticate(undefined, setup.ticket);
    if (!text || size(text) > maxResume) text = this.#authenticate(await setup.credentials());
    else this.#resuming = true;
    if (this.#ended) return;
    const ws = (this.#ws = this.#connect());
    this.#schedule(setup.connectTimeout, () => this.fail(new HearthError("timeout", "the server did not answer in time")));
    ws.onopen = () => {
      if (this.#resuming) setup.used();
      this.#write(text);
    };
    ws.onmessage = (event) => this.#arrived(event.data);
    // A close follows, except in Node 22 if the connection was never open.
    ws.onerror = () => {
      if (!ws.readyState) this.#schedule(errorPause, () => this.fail(new HearthError("disconnected", "cannot connect")));
    };
    ws.onclose = ({ code, reason = "" }) =>
      this.#inOrder(() => {
        this.#end({ code, reason, error: this.#refused ?? new HearthError("disconnected", `closed with ${code} ${reason}`) });
      });
  }

  #connect(): WebSocketLike {
    const { WebSocket, url, protocols } = this.#setup;
    try {
      return new WebSocket(url, protocols);
    } catch (error) {
      throw new HearthError("stop", `cannot connect to ${url}`, error);
    }
  }

  /** Returns the message that authenticates. */
  #authenticate(credentials: unknown, ticket?: string): string {
    let data = credentials ?? undefined;
    if (this.#handshake) {
      if (data !== undefined && (typeof data !== "object" || Array.isArray(data))) {
        throw new HearthError("stop", "with encryption, credentials must be an object");
      }
      data = { ...(data as object), publicKey: this.#handshake.publicKey };
    }
    const positions = ticket && this.#setup.positions();
    return JSON.stringify({ event: "authenticate", data, hearth: { version: 1, features, ticket, positions } });
  }

  /** Calls f after the messages that have arrived before. */
  #inOrder(f: () => void | Promise<void>): void {
    if (this.#setup.encryption) this.#incoming = this.#incoming.then(f).catch((error) => this.fail(error));
    else void f();
  }

  #arrived(text: string): void {
    this.#received = now();
    if (this.#waiting) this.#schedule(this.#interval, this.#pulse);
    this.#waiting = 0;
    this.#inOrder(() => (this.#setup.encryption ? this.#decrypt(text) : this.#take(this.#parse(text))));
  }

  #parse(text: string): Envelope | undefined {
    try {
      const message = JSON.parse(text);
      if (typeof message?.event === "string") return message;
    } catch {
      this.fail(new HearthError("invalid", "the server has sent invalid JSON"));
    }
    return undefined;
  }

  async #decrypt(text: string): Promise<void> {
    if (this.#ended) return;
    let message = this.#parse(text);
    if (this.#cipher && message && message.event !== "heartbeat") {
      if (message.event !== "encrypted") throw new HearthError("not_encrypted", "the server has sent an unencrypted message");
      message = this.#parse(await this.#cipher.open(message.data));
    }
    if (message?.event === "connected" && !this.#granted) {
      const { serverPublicKey, salt } = message.data ?? {};
      if (!serverPublicKey) throw new HearthError("not_encrypted", "the server does not encrypt");
      this.#cipher = await this.#handshake!.agree(serverPublicKey, salt);
    }
    this.#take(message);
  }

  #take(message: Envelope | undefined): void {
    if (this.#ended || !message) return;
    if (this.#granted) {
      if (message.event !== "heartbeat") this.#setup.message(message);
    } else if (message.event === "connected") {
      this.#grant(message.data ?? {}, message.hearth);
    } else if (message.event === "error") {
      const error = serverError(message.data);
      if (this.#resuming && error.code === "ticket_rejected") {
        this.#resuming = false;
        this.#setup.credentials().then((data) => this.#write(this.#authenticate(data))).catch((error) => this.fail(error));
      } else {
        this.#refused = error;
      }
    }
  }

  #grant(data: any, hearth: any): void {
    const extension = hearth?.version >= 1;
    const { heartbeat, limits, features, expires, resumed } = extension ? hearth : ({} as any);
    this.#interval = milliseconds(heartbeat?.interval, this.#interval);
    this.#timeout = milliseconds(heartbeat?.timeout, this.#timeout);
    this.#limit = limits?.message ?? Infinity;
    const recovery = !!features?.includes("recovery");
    this.#granted = { id: data.id, userId: data.userId, extension, recovery, encrypted: !!this.#cipher, expires, resumed };
    this.#sent = now();
    this.#schedule(this.#interval, this.#pulse);
    this.#setup.connected(this.#granted);
  }

  #heartbeat(): void {
    this.#sent = now();
    this.#write('{"event":"heartbeat"}');
    if (!this.#granted!.extension) return this.#schedule(this.#interval, this.#pulse); // there is no answer
    this.#waiting++;
    this.#schedule(this.#timeout, this.#pulse);
  }

  /** The timer has fired. */
  #pulse = (): void => {
    // A timer that fires late means that the program or the machine slept: answers may still be
    // unread. So the client asks once more. It does so only once, because timers of hidden pages
    // are always late.
    const late = now() - this.#due > this.#timeout / 2;
    const quiet = now() - Math.min(this.#received, this.#sent);
    if (this.#waiting > (late ? 1 : 0)) this.fail(new HearthError("timeout", "the server does not answer"));
    else if (this.#waiting || quiet >= this.#interval) this.#heartbeat();
    else this.#schedule(this.#interval - quiet, this.#pulse);
  };
}
