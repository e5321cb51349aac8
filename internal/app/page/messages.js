// The messages of each place. Under each message of this tab: the clients that received it, and how
// long that took.
import { $, el, keepAtEnd, stayAtEnd, setText, hue, clock, plural } from "./dom.js";

const keep = 300; // messages in a place
const chips = 12; // receivers shown by name
const events = { room: "say", user: "whisper", all: "shout" };

export class Messages {
  #connection;
  #me = "";
  #log = $("log");
  #place = "";
  #lists = new Map(); // by place: an ol each, kept while it is not shown
  #own = new Map(); // by id: { li, sent, clients, seen: Map, failed }
  #prefix = Math.random().toString(36).slice(2, 8);
  #next = 1;

  constructor(connection) {
    this.#connection = connection;
    stayAtEnd(this.#log);
    connection.addEventListener("message", ({ detail: { event, data } }) => {
      if (event === "accepted") this.#accepted(data);
      if (event === "seen") this.#seen(data.id, data.user, data.client);
      if (event === "rejected") this.#rejected(data);
    });
  }

  reset(me) {
    this.#me = me;
    this.#lists.clear();
    this.#own.clear();
  }

  show(place) {
    this.#place = place;
    this.#log.replaceChildren(this.#list(place));
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Sends text to a place and shows it as "sending". */
  send(place, text) {
    const id = `${this.#prefix}-${this.#next++}`;
    const data = { text };
    if (place.kind === "room") data.room = place.name;
    if (place.kind === "user") data.user = place.name;
    data.id = id;
    const sent = performance.now();
    if (!this.#connection.send(events[place.kind], data)) return false;
    const li = this.#append(place.key, { from: { user: this.#me, client: this.#connection.clientId }, text, time: new Date() });
    const own = { li, sent, clients: null, ack: true, seen: new Map(), failed: "" };
    this.#own.set(id, own);
    this.#showDelivery(own);
    return true;
  }

  /** Shows a received message, and confirms it if its sender asks for that. */
  receive(place, message) {
    const mine = message.from.client === this.#connection.clientId;
    if (mine && this.#own.has(message.id)) {
      this.#seen(message.id, this.#me, message.from.client);
      return;
    }
    this.#append(place, message);
    if (message.ack && message.id) this.#connection.send("seen", { id: message.id, to: message.from.client });
  }

  /** Marks unconfirmed messages when the connection ends: they may or may not have arrived. */
  connectionLost() {
    for (const own of this.#own.values()) {
      if (own.clients === null && !own.failed) {
        own.failed = "connection lost: the message may not have been sent";
        this.#showDelivery(own);
      }
    }
    this.#own.clear();
  }

  #list(place) {
    if (!this.#lists.has(place)) this.#lists.set(place, el("ol", { className: "messages" }));
    return this.#lists.get(place);
  }

  #append(place, { from, text, time }) {
    const at = new Date(time);
    const mine = from.user === this.#me;
    const avatar = el("span", { className: "avatar", "aria-hidden": "true" }, [...from.user][0].toUpperCase());
    avatar.style.setProperty("--hue", hue(from.user));
    const li = el("li", { className: mine ? "mine" : "" },
      avatar,
      el("p", { className: "by" },
        el("b", { title: `client ${from.client}` }, from.user), " ",
        el("time", { dateTime: at.toISOString() }, clock(at))),
      el("p", { className: "said" }, text));
    const list = this.#list(place);
    const add = () => {
      list.append(li);
      while (list.childElementCount > keep) list.firstElementChild.remove();
    };
    if (place === this.#place) keepAtEnd(this.#log, add);
    else add();
    return li;
  }

  #accepted({ id, clients, ack, more }) {
    const own = this.#own.get(id);
    if (!own) return;
    own.clients = clients;
    own.ack = ack;
    own.more = more;
    this.#showDelivery(own);
  }

  #seen(id, user, client) {
    const own = this.#own.get(id);
    if (!own || own.seen.has(client)) return;
    own.seen.set(client, { user, took: performance.now() - own.sent });
    this.#showDelivery(own);
  }

  #rejected({ id, event, why }) {
    const own = this.#own.get(id);
    if (!own) {
      if (event !== "seen") this.#connection.dispatchEvent(new CustomEvent("trouble", { detail: `${event}: ${why}` }));
      return;
    }
    own.failed = `rejected: ${why}`;
    this.#showDelivery(own);
  }

  #showDelivery(own) {
    keepAtEnd(this.#log, () => {
      let p = own.li.querySelector(".got");
      if (!p) {
        p = el("p", { className: "got" }, el("span", { className: "tally" }), el("span", { className: "chips" }));
        own.li.append(p);
      }
      p.classList.toggle("failed", own.failed !== "");
      p.classList.toggle("complete", own.clients !== null && own.seen.size >= own.clients && own.clients > 0);
      setText(p.firstElementChild, this.#tally(own));
      // The code only appends chips; existing chips stay as they are.
      const row = p.lastElementChild;
      const all = [...own.seen];
      for (const [client, { user, took }] of all.slice(row.childElementCount, chips)) row.append(this.#chip(client, user, took));
      if (all.length > chips) {
        if (row.childElementCount === chips) row.append(el("span", { className: "chip more" }));
        setText(row.lastElementChild, `and ${all.length - chips} more`);
      }
    });
  }

  #tally({ failed, clients, ack, more, seen }) {
    if (failed) return failed;
    if (clients === null) return "sending…";
    if (clients === 0 && seen.size === 0) return more ? "no receivers on this server" : "no receivers";
    const known = more ? "at least " : "";
    if (!ack) return `sent to ${known}${plural(clients, "client")}`;
    return `${seen.size} of ${known}${plural(Math.max(clients, seen.size), "client")} received it`;
  }

  #chip(client, user, took) {
    const which = client === this.#connection.clientId ? " (this tab)" : user === this.#me ? " (other tab)" : "";
    const ms = took < 10 ? took.toFixed(1) : Math.round(took);
    return el("span", { className: "chip", title: `client ${client}` }, `${user}${which} `, el("i", {}, `${ms} ms`));
  }
}
