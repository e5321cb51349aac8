// A connection that authenticates, sends heartbeats, reconnects with growing pauses, and reports
// its state.

const minPause = 400, maxPause = 15_000; // milliseconds

/** The meaning of each close code for the user, and whether to reconnect. */
const closeCodes = {
  1000: ["closed normally", true],
  1001: ["the server is shutting down or restarting", true],
  1002: ["a frame violated the WebSocket protocol", true],
  1006: ["the connection was lost", true],
  1007: ["a text frame was not valid UTF-8", true],
  1008: ["a limit or policy of the server was violated", true],
  1009: ["a message was larger than the server allows", true],
  1011: ["the server had an internal error", true],
  1013: ["this tab did not read fast enough", true],
  4001: ["not signed in within the time limit", true],
  4002: ["no heartbeat within the time limit", true],
  4003: ["the server rejected this name", false],
  4004: ["this page does not support encryption: start the server with --encryption optional to use it", false],
};

/**
 * Events: "state" when .state or .detail changed; "frame" {direction, text} for each frame, "note" {text} for
 * opening and closing; "message" {event, data, id} for each received message; "rejected" when sign-in failed.
 * States: idle, connecting, authenticating, connected, waiting (for the next attempt).
 */
export class Connection extends EventTarget {
  state = "idle";
  detail = "";
  clientId = null;
  retryAt = 0;

  #url;
  #heartbeatMs;
  #socket = null;
  #name = null;
  #attempts = 0;
  #lastClose = "";
  #retryTimer = 0;
  #heartbeatTimer = 0;

  constructor(url, heartbeatMs) {
    super();
    this.#url = url;
    this.#heartbeatMs = heartbeatMs;
    addEventListener("online", () => this.reconnect());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.reconnect();
    });
  }

  /** Connects with a name, and reconnects until signOut. */
  signIn(name) {
    this.#name = name;
    this.#attempts = 0;
    this.#lastClose = "";
    this.#open();
  }

  signOut() {
    this.#name = null;
    clearTimeout(this.#retryTimer);
    const socket = this.#socket;
    this.#drop();
    socket?.close(1000, "signed out");
    this.#set("idle", "Not connected");
  }

  /** Connects at once if it is waiting for the next attempt. */
  reconnect() {
    if (this.state === "waiting") this.#open();
  }

  /** Sends an envelope. Returns false if there is no connection. */
  send(event, data, id) {
    const envelope = { event };
    if (data !== undefined) envelope.data = data;
    if (id !== undefined) envelope.id = id;
    return this.sendRaw(JSON.stringify(envelope));
  }

  sendRaw(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    this.#emit("frame", { direction: "out", text });
    return true;
  }

  #open() {
    clearTimeout(this.#retryTimer);
    this.#drop();
    this.#set("connecting", "Connecting…");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#emit("note", { text: "open " + this.#url });
      this.#set("authenticating", "Signing in…");
      this.send("authenticate", { name: this.#name });
    };
    socket.onmessage = (e) => this.#receive(e.data);
    socket.onclose = (e) => this.#closed(e, opened);
  }

  /** Drops the socket and ignores its further events. */
  #drop() {
    clearInterval(this.#heartbeatTimer);
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket = null;
    this.clientId = null;
  }

  #receive(text) {
    this.#emit("frame", { direction: "in", text });
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // not JSON: only the list of frames shows it
    }
    if (message.event === "connected") {
      this.#attempts = 0;
      this.clientId = message.data.id;
      this.#heartbeatTimer = setInterval(() => this.send("heartbeat"), this.#heartbeatMs);
      this.#set("connected", "Connected");
    }
    this.#emit("message", message);
  }

  #closed({ code, reason }, opened) {
    this.#drop();
    const [meaning, again] = closeCodes[code] ?? ["a code that the application defines", true];
    const said = reason ? `${code} ${reason}` : String(code);
    this.#emit("note", { text: opened ? `close ${said}: ${meaning}` : `cannot connect to ${this.#url}` });
    if (!again) {
      this.#name = null;
      this.#set("idle", `Closed: ${said}`);
      this.#emit("rejected", { code, reason, meaning });
      return;
    }
    const pause = Math.min(maxPause, minPause * 2 ** this.#attempts++) * (0.7 + 0.6 * Math.random());
    this.retryAt = Date.now() + pause;
    this.#retryTimer = setTimeout(() => this.#open(), pause);
    if (opened) this.#lastClose = `Closed: ${reason ? said : `${code} (${meaning})`}`;
    const before = this.#lastClose ? `${this.#lastClose}; the server does not answer` : "The server does not answer. Is it running?";
    this.#set("waiting", opened ? this.#lastClose : before);
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
