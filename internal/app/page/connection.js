// The connection of the page: a client of the SDK, with events for the page and for the list of
// frames.
import { Client } from "./client.js";

/** The meaning of each close code for the user. */
const closeCodes = {
  1000: "closed normally",
  1001: "the server is shutting down or restarting",
  1002: "a frame violated the WebSocket protocol",
  1006: "the connection was lost",
  1007: "a text frame was not valid UTF-8",
  1008: "a limit or policy of the server was violated",
  1009: "a message was larger than the server allows",
  1011: "the server had an internal error",
  1012: "the server is restarting",
  1013: "this tab did not read fast enough",
  4001: "not signed in within the time limit",
  4002: "no heartbeat within the time limit",
  4003: "the server rejected this name",
  4004: "this page does not support encryption: start the server with --encryption optional to use it",
  4006: "the session was resumed on another connection",
};

const meaningOf = (code) => closeCodes[code] ?? "a code that the application defines";

/**
 * Events: "state" when .state or .detail changed; "frame" {direction, text} for each frame, "note" {text} for
 * opening and closing; "message" {event, data} for each received message; "trouble" with a text;
 * "room-rejected" with the name of a room; "rejected" when sign-in failed.
 * States: idle, connecting, connected, waiting (for the next attempt).
 */
export class Connection extends EventTarget {
  state = "idle";
  detail = "";
  clientId = null;
  retryAt = 0;

  #url;
  #client = null;
  #socket = null;
  #opened = false;
  #rooms = new Map(); // those of the client, by name
  #lastClose = "";

  constructor(url) {
    super();
    this.#url = url;
  }

  /** Connects with a name, and reconnects until signOut. */
  signIn(name) {
    this.#lastClose = "";
    this.#client = new Client({
      url: this.#url,
      credentials: { name },
      retryMin: 400,
      retryMax: 15_000,
      WebSocket: this.#watched(),
      onError: (e) => this.#emit("trouble", e.message),
    });
    this.#client.onState((state) => this.#changed(state));
    this.#client.onMessage((message) => this.#emit("message", message));
    this.#client.connect();
  }

  signOut() {
    this.#end();
    this.#set("idle", "Not connected");
  }

  /** Connects at once if it is waiting for the next attempt. */
  reconnect() {
    this.#client?.retry();
  }

  /** Joins a room, now and after each reconnect. Returns false if there is no connection. */
  join(name) {
    if (this.state !== "connected") return false;
    const room = this.#client.join(name);
    if (this.#rooms.get(name) === room) return true;
    this.#rooms.set(name, room);
    room.onStatus(({ phase }) => {
      if (phase !== "rejected") return;
      this.#emit("trouble", `The server rejected your request to join #${name}`);
      this.#emit("room-rejected", name);
    });
    return true;
  }

  leave(name) {
    this.#rooms.get(name)?.leave();
    this.#rooms.delete(name);
  }

  /** Sends an event. Returns false if there is no connection. */
  send(event, data) {
    if (this.state !== "connected") return false;
    try {
      this.#client.send(event, data);
      return true;
    } catch (e) {
      this.#emit("trouble", e.message);
      return false;
    }
  }

  /** Sends a text as it is, past the client. */
  sendRaw(text) {
    if (this.state !== "connected") return false;
    this.#socket.send(text);
    return true;
  }

  /** Returns a class of WebSockets that report their frames. */
  #watched() {
    const connection = this;
    return class extends WebSocket {
      constructor(url) {
        super(url);
        connection.#socket = this;
        connection.#opened = false;
        const on = (event, f) => this.addEventListener(event, (e) => connection.#socket === this && f(e));
        on("open", () => {
          connection.#opened = true;
          connection.#emit("note", { text: "open " + url });
        });
        on("message", (e) => connection.#emit("frame", { direction: "in", text: e.data }));
        on("close", ({ code, reason }) => {
          const said = reason ? `${code} ${reason}` : code;
          connection.#emit("note", { text: connection.#opened ? `close ${said}: ${meaningOf(code)}` : `cannot connect to ${url}` });
        });
      }

      send(text) {
        super.send(text);
        connection.#emit("frame", { direction: "out", text });
      }
    };
  }

  #changed({ phase, id, code, reason, retry }) {
    this.clientId = id ?? null;
    if (phase === "connecting") return this.#set("connecting", "Connecting…");
    if (phase === "connected") return this.#set("connected", "Connected");
    if (code === undefined) return; // signed out
    const said = reason ? `${code} ${reason}` : String(code);
    if (phase === "closed") {
      this.#end();
      this.#set("idle", `Closed: ${said}`);
      this.#emit("rejected", { code, reason, meaning: meaningOf(code) });
      return;
    }
    this.retryAt = Date.now() + retry;
    if (this.#opened) this.#lastClose = `Closed: ${reason ? said : `${code} (${meaningOf(code)})`}`;
    const failed = this.#lastClose ? `${this.#lastClose}; the server does not answer` : "The server does not answer. Is it running?";
    this.#set("waiting", this.#opened ? this.#lastClose : failed);
  }

  #end() {
    const client = this.#client;
    this.#client = this.#socket = this.clientId = null;
    this.#rooms.clear();
    client?.close();
  }

  #set(state, detail) {
    this.state = state;
    this.detail = detail;
    this.#emit("state");
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
