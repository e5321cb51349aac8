// Made from sdk/ts by `npm run page`. Do not edit.

var HearthError = class extends Error {
  /** For programs. */
  code;
  constructor(code, message, cause) {
    super(message, cause === void 0 ? void 0 : { cause });
    this.name = new.target.name;
    this.code = code;
  }
};
var ServerError = class extends HearthError {
};
function serverError(data) {
  const { message, code } = data ?? {};
  return new ServerError(typeof code === "string" ? code : "", typeof message === "string" ? message : "error");
}

var features = ["recovery", "resume", "ask"];
var maxResume = 16 << 10;
var maxBuffered = 1 << 20;
var errorPause = 100;
var now = () => performance.now();
var size = (text) => new TextEncoder().encode(text).length;
var milliseconds = (n, otherwise) => typeof n === "number" && n >= 1 && n <= 36e5 ? n : otherwise;
var Connection = class {
  #setup;
  #ws;
  #ended = false;
  #granted;
  /** The error that the server has sent before it was connected. */
  #refused;
  #resuming = false;
  #handshake;
  #cipher;
  /** With encryption: messages that are being decrypted and encrypted, in order. */
  #incoming = Promise.resolve();
  #outgoing = Promise.resolve();
  #sealing = 0;
  // bytes in #outgoing
  #limit = Infinity;
  /**
   * The one timer: the deadline to connect, then the next heartbeat or the deadline of its answer.
   */
  #timer;
  #due = 0;
  #interval = 25e3;
  #timeout = 1e4;
  #received = 0;
  #sent = 0;
  /**
   * How many times the client waits for the answer to a heartbeat: a second time after a pause of
   * the program.
   */
  #waiting = 0;
  constructor(setup) {
    this.#setup = setup;
    void this.#open().catch((error) => this.fail(error));
  }
  /** Whether more messages may be written. */
  get writable() {
    return !!this.#granted && !this.#ended && this.#ws.bufferedAmount + this.#sealing < maxBuffered;
  }
  /** Reports whether the server accepts a message of this size. */
  fits(text) {
    const of = (bytes) => this.#cipher ? Math.ceil((bytes + 16) / 3) * 4 + 64 : bytes;
    return of(text.length * 3) <= this.#limit || of(size(text)) <= this.#limit;
  }
  /** Writes a message. */
  send(text) {
    this.#sent = now();
    const cipher = this.#cipher;
    if (!cipher) return this.#write(text);
    this.#sealing += text.length;
    this.#outgoing = this.#outgoing.then(() => cipher.seal(text)).then((data) => this.#write(JSON.stringify({ event: "encrypted", data }))).catch((error) => this.fail(error)).then(() => void (this.#sealing -= text.length));
  }
  /** Asks the server for a sign of life now. */
  probe() {
    if (this.#granted?.extension && !this.#waiting) this.#heartbeat();
  }
  /** Ends the connection, with the code for the server. It calls nothing. */
  close(code) {
    const ws = this.#ws;
    this.#ended = true;
    clearTimeout(this.#timer);
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.onerror = () => {
    };
    ws.close(code);
  }
  /** Ends the connection because of an error. */
  fail(error) {
    this.#end({ code: 1006, reason: "", error: error instanceof Error ? error : new Error(String(error)) });
  }
  #end(end) {
    if (this.#ended) return;
    this.close();
    this.#setup.ended(end);
  }
  #write(text) {
    if (!this.#ended) this.#ws.send(text);
  }
  #schedule(delay, then) {
    clearTimeout(this.#timer);
    this.#due = now() + delay;
    this.#timer = setTimeout(then, delay);
  }
  async #open() {
    const setup = this.#setup;
    this.#handshake = await setup.encryption?.begin();
    let text = setup.ticket && this.#authenticate(void 0, setup.ticket);
    if (!text || size(text) > maxResume) text = this.#authenticate(await setup.credentials());
    else this.#resuming = true;
    if (this.#ended) return;
    const ws = this.#ws = this.#connect();
    this.#schedule(setup.connectTimeout, () => this.fail(new HearthError("timeout", "the server did not answer in time")));
    ws.onopen = () => {
      if (this.#resuming) setup.used();
      this.#write(text);
    };
    ws.onmessage = (event) => this.#arrived(event.data);
    ws.onerror = () => {
      if (!ws.readyState) this.#schedule(errorPause, () => this.fail(new HearthError("disconnected", "cannot connect")));
    };
    ws.onclose = ({ code, reason = "" }) => this.#inOrder(() => {
      this.#end({ code, reason, error: this.#refused ?? new HearthError("disconnected", `closed with ${code} ${reason}`) });
    });
  }
  #connect() {
    const { WebSocket, url, protocols } = this.#setup;
    try {
      return new WebSocket(url, protocols);
    } catch (error) {
      throw new HearthError("stop", `cannot connect to ${url}`, error);
    }
  }
  /** Returns the message that authenticates. */
  #authenticate(credentials, ticket) {
    let data = credentials ?? void 0;
    if (this.#handshake) {
      if (data !== void 0 && (typeof data !== "object" || Array.isArray(data))) {
        throw new HearthError("stop", "with encryption, credentials must be an object");
      }
      data = { ...data, publicKey: this.#handshake.publicKey };
    }
    const positions = ticket && this.#setup.positions();
    return JSON.stringify({ event: "authenticate", data, hearth: { version: 1, features, ticket, positions } });
  }
  /** Calls f after the messages that have arrived before. */
  #inOrder(f) {
    if (this.#setup.encryption) this.#incoming = this.#incoming.then(f).catch((error) => this.fail(error));
    else void f();
  }
  #arrived(text) {
    this.#received = now();
    if (this.#waiting) this.#schedule(this.#interval, this.#pulse);
    this.#waiting = 0;
    this.#inOrder(() => this.#setup.encryption ? this.#decrypt(text) : this.#take(this.#parse(text)));
  }
  #parse(text) {
    try {
      const message = JSON.parse(text);
      if (typeof message?.event === "string") return message;
    } catch {
      this.fail(new HearthError("invalid", "the server has sent invalid JSON"));
    }
    return void 0;
  }
  async #decrypt(text) {
    if (this.#ended) return;
    let message = this.#parse(text);
    if (this.#cipher && message && message.event !== "heartbeat") {
      if (message.event !== "encrypted") throw new HearthError("not_encrypted", "the server has sent an unencrypted message");
      message = this.#parse(await this.#cipher.open(message.data));
    }
    if (message?.event === "connected" && !this.#granted) {
      const { serverPublicKey, salt } = message.data ?? {};
      if (!serverPublicKey) throw new HearthError("not_encrypted", "the server does not encrypt");
      this.#cipher = await this.#handshake.agree(serverPublicKey, salt);
    }
    this.#take(message);
  }
  #take(message) {
    if (this.#ended || !message) return;
    if (this.#granted) {
      if (message.event !== "heartbeat") this.#setup.message(message);
    } else if (message.event === "connected") {
      this.#grant(message.data ?? {}, message.hearth);
    } else if (message.event === "error") {
      const error = serverError(message.data);
      if (this.#resuming && error.code === "ticket_rejected") {
        this.#resuming = false;
        this.#setup.credentials().then((data) => this.#write(this.#authenticate(data))).catch((error2) => this.fail(error2));
      } else {
        this.#refused = error;
      }
    }
  }
  #grant(data, hearth) {
    const extension = hearth?.version >= 1;
    const { heartbeat, limits, features: features2, expires, resumed } = extension ? hearth : {};
    this.#interval = milliseconds(heartbeat?.interval, this.#interval);
    this.#timeout = milliseconds(heartbeat?.timeout, this.#timeout);
    this.#limit = limits?.message ?? Infinity;
    const recovery = !!features2?.includes("recovery");
    this.#granted = { id: data.id, userId: data.userId, extension, recovery, encrypted: !!this.#cipher, expires, resumed };
    this.#sent = now();
    this.#schedule(this.#interval, this.#pulse);
    this.#setup.connected(this.#granted);
  }
  #heartbeat() {
    this.#sent = now();
    this.#write('{"event":"heartbeat"}');
    if (!this.#granted.extension) return this.#schedule(this.#interval, this.#pulse);
    this.#waiting++;
    this.#schedule(this.#timeout, this.#pulse);
  }
  /** The timer has fired. */
  #pulse = () => {
    const late = now() - this.#due > this.#timeout / 2;
    const quiet = now() - Math.min(this.#received, this.#sent);
    if (this.#waiting > (late ? 1 : 0)) this.fail(new HearthError("timeout", "the server does not answer"));
    else if (this.#waiting || quiet >= this.#interval) this.#heartbeat();
    else this.#schedule(this.#interval - quiet, this.#pulse);
  };
};

var Listeners = class {
  #all = /* @__PURE__ */ new Set();
  /** Adds f. Returns a function that removes it. */
  add(f) {
    const entry = { f };
    this.#all.add(entry);
    return () => void this.#all.delete(entry);
  }
  /** Calls all functions that are there now. Errors that they throw, also later, go to onError. */
  call(onError, ...args) {
    for (const entry of [...this.#all]) {
      if (!this.#all.has(entry)) continue;
      try {
        const result = entry.f(...args);
        if (result instanceof Promise) result.catch(onError);
      } catch (error) {
        onError(error);
      }
    }
  }
};
function wait({ timeout, signal }, start) {
  const promise = new Promise((resolve, reject) => {
    let done = false;
    let stop;
    let timer;
    const end = () => {
      done = true;
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      stop?.();
    };
    const fail = (error) => {
      reject(error);
      end();
    };
    const abort = () => fail(signal.reason);
    if (signal?.aborted) return abort();
    signal?.addEventListener("abort", abort);
    if (timeout) timer = setTimeout(() => fail(new HearthError("timeout", `no answer within ${timeout} ms`)), timeout);
    stop = start((value) => {
      resolve(value);
      end();
    }, fail);
    if (done) end();
  });
  promise.catch(() => {
  });
  return promise;
}

var Room = class {
  /** The name of the room. */
  name;
  #status = { phase: "joining" };
  #listeners = new Listeners();
  #leave;
  /** @internal The position of the last message. */
  at;
  /** @internal The id of the join that is under way. */
  join;
  /** @internal The join under way is the first on this connection. */
  fresh = false;
  /** @internal The client was a member before. */
  member = false;
  /** @internal How many recovered messages are still to come, and the position after them. */
  left = 0;
  /** @internal */
  end;
  /** @internal The server could not decide. */
  failed = false;
  /** @internal */
  last;
  /** @internal */
  constructor(name, options, leave) {
    this.name = name;
    this.at = options.after;
    this.last = options.last ?? 0;
    this.#leave = leave;
  }
  /** The present status. */
  get status() {
    return this.#status;
  }
  /** The position of the last message; undefined if the room has no history. */
  get position() {
    return this.at;
  }
  /** Calls f when the status changes. Returns a function that ends this. */
  onStatus(f) {
    return this.#listeners.add(f);
  }
  /**
   * Waits until the client is a member. It rejects if the room was rejected or left, and by the
   * options; without a timeout it waits for ever.
   */
  ready(options = {}) {
    return wait(options, (resolve, reject) => {
      const look = ({ phase, error }) => {
        if (phase === "joined" || phase === "recovering") resolve();
        else if (phase !== "joining") reject(error ?? new HearthError("left", `the room ${this.name} was left`));
      };
      look(this.#status);
      return this.onStatus(look);
    });
  }
  /**
   * Leaves the room, and ends this object: to join again, call Client.join. Messages of the room
   * that are on their way still arrive.
   */
  leave() {
    this.#leave();
  }
  /** @internal */
  set(status, onError) {
    this.#status = status;
    this.#listeners.call(onError, status);
  }
};
var maxJoin = 32;
var failedPause = 5e3;
var Rooms = class {
  #owner;
  #rooms = /* @__PURE__ */ new Map();
  /** Names of rooms that were left, and that a session that is resumed may still have. */
  #left = /* @__PURE__ */ new Set();
  /** Whether the server answers joins; undefined if the client is not connected. */
  #extension;
  #timer;
  constructor(owner) {
    this.#owner = owner;
  }
  add(name, options) {
    const known = this.#rooms.get(name);
    if (known) return known;
    const room = new Room(name, options, () => this.#remove(room));
    this.#rooms.set(name, room);
    this.#left.delete(name);
    if (this.#extension !== void 0) this.#join([room], true);
    return room;
  }
  #remove(room) {
    const { name } = room;
    if (this.#rooms.get(name) !== room) return;
    this.#rooms.delete(name);
    if (this.#extension !== void 0) this.#send("leave", [name]);
    else this.#left.add(name);
    this.#set(room, { phase: "left" });
  }
  #all() {
    return [...this.#rooms.values()];
  }
  /** Returns the positions of rooms. */
  positions(rooms = this.#all()) {
    return Object.fromEntries(rooms.filter((r) => r.at).map((r) => [r.name, r.at]));
  }
  /** Joins all rooms on a new connection. resumed is the answer of a session that was resumed. */
  connected(extension, resumed) {
    this.#extension = extension;
    const rooms = this.#all();
    if (resumed) {
      const names = (resumed.joined ?? []).map((j) => j.room);
      const wantsLast = (r) => r && !r.member && r.last && !r.at;
      const leave = names.filter((name) => this.#left.has(name) || wantsLast(this.#rooms.get(name)));
      if (leave.length) this.#send("leave", leave);
      for (const r of rooms) if (names.includes(r.name) && !leave.includes(r.name)) r.join = "resumed";
      this.joined("resumed", resumed);
    }
    this.#left.clear();
    this.#join(rooms.filter((r) => r.status.phase === "joining" && !r.join && !r.failed), true);
  }
  /** Makes all rooms wait for the next connection. */
  disconnected() {
    clearTimeout(this.#timer);
    this.#timer = this.#extension = void 0;
    for (const r of this.#all()) {
      r.join = void 0;
      r.failed = r.fresh = false;
      if (r.status.phase !== "joining") this.#set(r, { phase: "joining" });
    }
  }
  /** Ends all rooms. */
  close(error) {
    this.disconnected();
    const rooms = this.#all();
    this.#rooms.clear();
    for (const r of rooms) this.#set(r, { phase: "left", error });
  }
  #set(room, status) {
    room.set(status, (error) => this.#owner.onError(error));
  }
  #send(event, rooms, more = {}) {
    return this.#owner.send(event, { rooms, ...more });
  }
  #join(rooms, fresh = false) {
    for (let i = 0; i < rooms.length; i += maxJoin) {
      const some = rooms.slice(i, i + maxJoin);
      const last = Object.fromEntries(some.filter((r) => r.last && !r.member && !r.at).map((r) => [r.name, r.last]));
      const id = this.#send("join", some.map((r) => r.name), { positions: this.positions(some), last });
      for (const r of some) {
        r.join = id;
        r.fresh = fresh;
        r.failed = false;
        r.left = 0;
        if (!this.#extension) this.#joined(r, {});
      }
    }
  }
  /** Handles the answer to a join. */
  joined(id, answer) {
    const each = (list, f) => list?.forEach((entry) => {
      const room = this.#rooms.get(entry.room);
      if (room?.join === id) f(room, entry);
    });
    each(answer?.joined, (room, entry) => this.#joined(room, entry));
    each(answer?.rejected, (room, { code }) => this.#rejected(room, serverError({ code, message: `the join of ${room.name} was rejected` })));
  }
  #joined(r, { offset, epoch, recovered, unrecovered }) {
    const had = r.at;
    const at = epoch ? { offset, epoch } : void 0;
    r.join = void 0;
    if (r.fresh && had && had.epoch === epoch && offset > had.offset && !recovered && !unrecovered) {
      this.#send("leave", [r.name]);
      return this.#join([r]);
    }
    r.fresh = false;
    if (!(had && at) && (had || r.member)) unrecovered ??= "lost";
    r.member = true;
    if (recovered && !unrecovered) {
      r.left = recovered;
      r.end = at;
      return this.#set(r, { phase: "recovering", recovered });
    }
    r.at = at;
    this.#set(r, unrecovered ? { phase: "joined", unrecovered } : { phase: "joined" });
  }
  #rejected(r, error) {
    r.join = void 0;
    if (error.code === "internal") {
      r.failed = true;
      this.#timer ??= setTimeout(() => {
        this.#timer = void 0;
        this.#join(this.#all().filter((r2) => r2.failed));
      }, failedPause * (1 + Math.random()));
      return;
    }
    this.#rooms.delete(r.name);
    this.#set(r, { phase: "rejected", error });
  }
  /** Handles an error in answer to a join. Returns whether it was one. */
  failed(id, error) {
    const rooms = this.#all().filter((r) => r.join === id);
    if (rooms.length === 1) this.#rejected(rooms[0], error);
    else for (const r of rooms) this.#join([r], r.fresh);
    return rooms.length > 0;
  }
  /** Joins rooms again that the server has taken from the client. */
  interrupted(names) {
    const rooms = names.flatMap((name) => this.#rooms.get(name) ?? []).filter((r) => !r.join && !r.failed);
    for (const r of rooms) this.#set(r, { phase: "joining" });
    this.#join(rooms.filter((r) => this.#rooms.get(r.name) === r));
  }
  /** Notes the position of a message. Returns false if the message is a duplicate. */
  received(name, at) {
    const r = this.#rooms.get(name);
    if (!r || !at) return true;
    if (r.join && !r.at) return true;
    if (r.at && (r.join || r.at.epoch === at.epoch && at.offset <= r.at.offset)) return false;
    r.at = at;
    r.left--;
    return true;
  }
  /** Ends the recovery of a room whose missed messages have arrived. */
  recovered(name) {
    const r = this.#rooms.get(name);
    if (r?.status.phase !== "recovering") return;
    const same = r.at?.epoch === r.end?.epoch;
    if (r.left > 0 && !(same && r.at.offset >= r.end.offset)) return;
    if (same && r.at.offset < r.end.offset) r.at = r.end;
    this.#set(r, { phase: "joined" });
  }
};

var defaults = { queue: 256, queueFull: "reject", retryMin: 500, retryMax: 3e4, connectTimeout: 2e4, requestTimeout: 3e4 };
var stable = 5e3;
var refreshPause = 5e3;
var flushPause = 50;
var maxIterated = 1024;
var reserved = /^((authenticate|connected|join|leave|heartbeat|disconnect|encrypted)$|hearth:)/;
var runtime = globalThis;
var authenticationFailed = "Authentication failed";
var authenticationError = "Authentication error";
function terminal({ code, error }) {
  if (error instanceof HearthError && (error.code === "stop" || error.code === "not_encrypted")) return true;
  if (code === 4003) return error.message !== authenticationError;
  return code === 1e3 || code >= 3e3 && ![4001, 4002, 4005, 4006].includes(code);
}
var Client = class {
  #options;
  #state = { phase: "idle" };
  #states = new Listeners();
  #handlers = /* @__PURE__ */ new Map();
  #messages = new Listeners();
  #answers = /* @__PURE__ */ new Map();
  #rooms;
  #connection;
  #granted;
  /** The rooms were joined, so that other messages may follow. */
  #ready = false;
  /** Ends what belongs to the connection. */
  #abort = new AbortController();
  #refreshing = false;
  #since = 0;
  #attempts = 0;
  #timer;
  #ticket;
  #queue = [];
  #flushTimer;
  #pending = /* @__PURE__ */ new Map();
  #lastId = 0;
  #dropped = 0;
  /**
   * Makes a client. It does not connect; connect does. It throws a HearthError if an option is
   * invalid.
   */
  constructor(options) {
    const all = { WebSocket: runtime.WebSocket, onError: (error) => console.error(error), ...defaults };
    for (const [name, value] of Object.entries(options)) if (value !== void 0) all[name] = value;
    this.#options = all;
    const at = runtime.location?.origin;
    const { url } = options;
    this.#options.url = (url[0] === "/" && at ? at + url : url).replace(/^http/i, "ws");
    if (!/^wss?:\/\/./i.test(this.#options.url)) throw new HearthError("invalid", `url is ${url}: use one like wss://example.com/ws`);
    if (!this.#options.WebSocket) throw new HearthError("invalid", "set the option WebSocket");
    this.#rooms = new Rooms({
      send: (event, data) => {
        const id = this.#id();
        this.#connection.send(encode(event, data, id, true));
        return id;
      },
      onError: this.#options.onError
    });
  }
  /** The present state. */
  get state() {
    return this.#state;
  }
  /**
   * How many messages were dropped: because of `drop-oldest`, because they were too large, or by
   * close.
   */
  get dropped() {
    return this.#dropped;
  }
  /**
   * Connects, and resolves when the client is connected. It rejects when the client has given up or
   * was closed, and by the options; then the client still tries to connect, until close. Later
   * calls only wait. To miss nothing, register handlers and join rooms before.
   */
  connect(options = {}) {
    if (this.#state.phase === "idle") {
      this.#listen("addEventListener");
      this.#start();
    }
    return wait(options, (resolve, reject) => {
      const look = ({ phase, error }) => {
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
  retry() {
    if (this.#state.phase === "waiting") this.#start();
    else this.#connection?.probe();
  }
  /**
   * Closes the connection with code 1000, and frees everything: requests and waiting promises
   * reject, iterators end, rooms are left, messages that wait are dropped. A client that was closed
   * cannot be used again.
   */
  close() {
    if (this.#state.phase !== "closed") this.#shut({ phase: "closed" });
  }
  /** Calls f when the state changes. Returns a function that ends this. */
  onState(f) {
    return this.#states.add(f);
  }
  /**
   * Calls f for each message of an event, in the order of the server. Returns a function that ends
   * this. The events `error` and `resync` are the server's own: errors that do not answer a
   * message, and the notice that messages may be missing.
   */
  on(event, f) {
    let listeners = this.#handlers.get(event);
    if (!listeners) this.#handlers.set(event, listeners = new Listeners());
    return listeners.add(f);
  }
  /**
   * Calls f for each message of any event, after the handlers of on. Returns a function that ends
   * this.
   */
  onMessage(f) {
    return this.#messages.add(f);
  }
  /**
   * Waits for the next message of an event, and resolves to its data. It rejects by the options and
   * by close.
   */
  once(event, options = {}) {
    return wait(options, (resolve, reject) => {
      const offs = [this.on(event, resolve), this.#onClosed((error) => reject(closed(error)))];
      return () => offs.forEach((off) => off());
    });
  }
  /**
   * Returns an iterator over the data of an event, which begins now and ends with close or the
   * signal. If more than 1,024 messages wait, it fails with the code `queue_full`.
   */
  events(event, { signal } = {}) {
    const values = [];
    let ended = false;
    let error;
    let wake = () => {
    };
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
      this.#onClosed(end)
    ];
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
    return (async function* () {
      try {
        for (; ; ) {
          while (values.length) yield values.shift();
          if (error) throw error;
          if (ended) return;
          await new Promise((resolve) => wake = resolve);
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
  send(event, ...[data]) {
    this.#add({ text: encode(event, data) });
  }
  /**
   * Sends an event, and resolves to the data of the answer: undefined, if a handler of the server
   * has returned without one. A request that was sent when the connection is lost is not repeated:
   * it rejects with the code `disconnected`, because the server may have handled it. It also
   * rejects with a ServerError if the server answers with an error, with the codes of send, and
   * with `timeout`.
   */
  request(event, ...[data, options]) {
    return this.#request(event, data, { timeout: this.#options.requestTimeout, ...options });
  }
  /**
   * Answers the questions of the server with what f returns or resolves to. If f throws, the answer
   * is an error, with the code of the error if it has one. There is one function for each event: a
   * later call replaces it. Returns a function that removes it. Other questions are answered with
   * the error `unknown_event`.
   */
  answer(event, f) {
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
  join(name, options = {}) {
    if (!name || name.length > 256 || name.startsWith("ws:")) throw new HearthError("invalid", `not a valid room: ${name.slice(0, 80)}`);
    if (this.#state.phase === "closed") throw closed(this.#state.error);
    return this.#rooms.add(name, options);
  }
  #request(event, data, options, internal) {
    const id = this.#id();
    return wait(options, (resolve, reject) => {
      const item = { text: "", id, resolve, reject };
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
  #id() {
    return (++this.#lastId).toString(36);
  }
  #onClosed(f) {
    if (this.#state.phase === "closed") queueMicrotask(() => f(this.#state.error));
    return this.onState(({ phase, error }) => phase === "closed" && f(error));
  }
  #set(state) {
    this.#state = state;
    this.#states.call(this.#options.onError, state);
  }
  #listen(how) {
    runtime[how]?.("online", this.#wake);
    runtime.document?.[how]("visibilitychange", this.#wake);
  }
  /** The network or the page may be back. */
  #wake = () => {
    if (runtime.document?.visibilityState !== "hidden") this.retry();
  };
  #start() {
    clearTimeout(this.#timer);
    this.#abort = new AbortController();
    this.#set({ phase: "connecting" });
    if (this.#state.phase !== "connecting") return;
    this.#connection = new Connection({
      ...this.#options,
      ticket: this.#ticket,
      used: () => this.#ticket = void 0,
      credentials: () => this.#credentials(),
      positions: () => this.#rooms.positions(),
      connected: (granted) => this.#connected(granted),
      message: (message) => this.#message(message),
      ended: (end) => this.#ended(end)
    });
  }
  async #credentials() {
    const { credentials } = this.#options;
    return typeof credentials === "function" ? credentials(this.#abort.signal) : credentials;
  }
  #connected(granted) {
    const { resumed, expires, ...rest } = granted;
    this.#granted = granted;
    this.#since = performance.now();
    this.#set({ phase: "connected", ...rest, resumed: !!resumed, ...expiry(expires) });
    if (this.#granted !== granted) return;
    this.#rooms.connected(granted.extension, resumed);
    this.#ready = true;
    this.#flush();
  }
  #ended(end) {
    if (terminal(end)) return this.#shut({ phase: "closed", ...end });
    if (this.#granted && performance.now() - this.#since >= stable) this.#attempts = 0;
    if (end.code === 4005 || end.code === 4006) this.#ticket = void 0;
    this.#disconnected(new HearthError("disconnected", "the connection was lost", end.error));
    const { retryMin, retryMax } = this.#options;
    const atOnce = !this.#attempts && (end.code === 1012 || end.code === 4005);
    const retry = atOnce ? 0 : Math.random() * Math.min(retryMax, retryMin * 2 ** this.#attempts);
    this.#attempts++;
    this.#timer = setTimeout(() => this.#start(), retry);
    const state = { phase: "waiting", ...end, retry };
    this.#state = state;
    this.#rooms.disconnected();
    if (this.#state === state) this.#set(state);
  }
  /** Ends what belongs to the connection. */
  #disconnected(error) {
    this.#connection = this.#granted = void 0;
    this.#ready = this.#refreshing = false;
    clearTimeout(this.#flushTimer);
    this.#flushTimer = void 0;
    this.#abort.abort(error);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const item of pending) item.reject(error);
  }
  /** Ends the client. */
  #shut(state) {
    this.#state = state;
    this.#listen("removeEventListener");
    clearTimeout(this.#timer);
    this.#connection?.close(1e3);
    const error = closed(state.error);
    this.#disconnected(error);
    for (const item of this.#queue.splice(0)) this.#drop(item, error);
    this.#rooms.close(error);
    this.#set(state);
  }
  /** Reports that a message is not sent. */
  #drop({ reject }, error) {
    if (reject) reject(error);
    else this.#dropped++;
  }
  #add(item) {
    const { queue, queueFull } = this.#options;
    if (this.#state.phase === "closed") throw closed(this.#state.error);
    if (this.#ready && !this.#queue.length && this.#connection.writable) return this.#write(item);
    while (this.#queue.length >= queue) {
      const error = new HearthError("queue_full", `${queue} messages wait to be sent`);
      if (queueFull === "reject" || !queue) throw error;
      this.#drop(this.#queue.shift(), error);
    }
    this.#queue.push(item);
    this.#flush();
  }
  /** Sends the messages that wait, as far as the connection takes them. */
  #flush() {
    while (this.#ready && this.#queue.length && this.#connection.writable) {
      const item = this.#queue.shift();
      try {
        this.#write(item);
      } catch (error) {
        this.#drop(item, error);
        if (!item.reject) this.#options.onError(error);
      }
    }
    if (!this.#ready || !this.#queue.length) return;
    this.#flushTimer ??= setTimeout(() => {
      this.#flushTimer = void 0;
      this.#flush();
    }, flushPause);
  }
  #write(item) {
    if (!this.#connection.fits(item.text)) {
      throw new HearthError("too_large", "the message is larger than the server accepts");
    }
    if (item.id) this.#pending.set(item.id, item);
    this.#connection.send(item.text);
  }
  #message(m) {
    const { data, event, room, offset, epoch } = m;
    if (typeof m.id === "string" && this.#answered(m.id, event, data)) return;
    if (event === "hearth:interrupted") return this.#rooms.interrupted(data?.rooms ?? []);
    if (event === "hearth:expiring") return void this.#refresh();
    if (event === "hearth:ticket") return void (this.#ticket = data?.ticket);
    if (event === "hearth:ask") return void this.#asked(data ?? {});
    if (reserved.test(event)) return;
    const position = offset && epoch ? { offset, epoch } : void 0;
    if (!this.#rooms.received(room, position)) return;
    const message = position ? { event, data, room, position } : { event, data };
    this.#handlers.get(event)?.call(this.#options.onError, data, message);
    this.#messages.call(this.#options.onError, message);
    this.#rooms.recovered(room);
  }
  /** Handles the answer to the message with this id. Returns false if there is none. */
  #answered(id, event, data) {
    const item = this.#pending.get(id);
    if (item) {
      this.#pending.delete(id);
      if (event === "error") item.reject(serverError(data));
      else item.resolve(data);
      return true;
    }
    if (event === "join") this.#rooms.joined(id, data);
    return event === "error" && this.#rooms.failed(id, serverError(data));
  }
  /** Answers a question of the server. */
  async #asked({ ask, event, data }) {
    const connection = this.#connection;
    const encoded = (answer) => encode("hearth:answer", { ask, ...answer }, void 0, true);
    let text;
    try {
      const f = this.#answers.get(event ?? "");
      if (!f) throw new HearthError("unknown_event", "Unknown event");
      text = encoded({ data: await f(data) });
      if (!connection?.fits(text)) throw new HearthError("too_large", "The answer is too large");
    } catch (error) {
      const { code, message } = Object(error);
      text = encoded({ error: { message: String(message ?? error), code: typeof code === "string" ? code : void 0 } });
    }
    if (this.#connection === connection) connection?.send(text);
  }
  /** Sends new credentials on the connection. */
  async #refresh() {
    if (this.#refreshing) return;
    this.#refreshing = true;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        const data = await this.#credentials();
        if (signal.aborted) return;
        const answer = await this.#request("authenticate", data ?? void 0, { signal }, true);
        if (signal.aborted) return;
        this.#refreshing = false;
        const { expires, ...rest } = this.#state;
        return this.#set({ ...rest, ...expiry(answer?.expires) });
      } catch (error) {
        if (signal.aborted) return;
        this.#options.onError(error);
        const { code, message } = error;
        if (code === "stop" || error instanceof ServerError && message === authenticationFailed) break;
        await wait({ signal, timeout: refreshPause * (1 + Math.random()) }, () => () => {
        }).catch(() => {
        });
      }
    }
    this.#refreshing = false;
  }
};
var closed = (reason) => new HearthError("closed", `the client is closed${reason ? `: ${reason.message}` : ""}`, reason);
var expiry = (expires) => typeof expires === "string" ? { expires: new Date(expires) } : {};
function encode(event, data, id, internal) {
  if (!internal && (!event || event === "error" || reserved.test(event))) throw new HearthError("invalid", `not a valid event: ${event}`);
  return JSON.stringify({ event, data, id });
}
export {
  Client
};
