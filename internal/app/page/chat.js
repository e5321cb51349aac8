// The chat: the list of places (everyone, rooms, people), the place that is shown, its messages,
// and their receivers.
import { $, el, reconcile, setText, hue, plural } from "./dom.js";
import { Messages } from "./messages.js";

const everyone = "everyone";
const roomKey = (name) => "room:" + name;
const userKey = (name) => "user:" + name;

export class Chat {
  me = "";

  #connection;
  #places = new Map(); // by key: { key, kind, name, joined, clients, unread }
  #current = everyone;
  #members = new Map(); // by key: { total, clients }, from the last answer of the server
  #others = []; // rooms on the server that this client is not in
  #messages;
  #refreshTimer = 0;
  #defaultRooms = [];
  #servers = 1; // number of servers that act as one

  constructor(connection) {
    this.#connection = connection;
    this.#messages = new Messages(connection);
    connection.addEventListener("message", (e) => this.#receive(e.detail));
    connection.addEventListener("state", () => this.#stateChanged());
    connection.addEventListener("room-rejected", (e) => {
      const place = this.#places.get(roomKey(e.detail));
      if (place) this.#forget(place);
    });
    $("join").onsubmit = (e) => {
      e.preventDefault();
      const name = $("room").value.trim();
      if (name && this.join(name)) $("room").value = "";
    };
    $("leave").onclick = () => this.#leave(this.#places.get(this.#current));
    $("compose").onsubmit = (e) => {
      e.preventDefault();
      this.#say();
    };
    // The server announces changes of members, but not beyond a number of clients. So refresh now
    // and then.
    setInterval(() => {
      if (document.visibilityState === "visible") this.#refresh();
    }, 10_000);
  }

  /** Resets the chat for a user. */
  enter(me, rooms, defaultRooms) {
    this.me = me;
    this.#messages.reset(me);
    this.#places.clear();
    this.#members.clear();
    this.#defaultRooms = defaultRooms;
    this.#add("all", "Everyone", everyone, true);
    for (const r of rooms) this.#add("room", r, roomKey(r), true);
    this.show(rooms.length ? roomKey(rooms[0]) : everyone);
  }

  /** The rooms to join again after a reconnect or a reload. */
  get rooms() {
    return [...this.#places.values()].filter((p) => p.kind === "room" && p.joined).map((p) => p.name);
  }

  get users() {
    return new Set((this.#members.get(everyone)?.clients ?? []).map((c) => c.user));
  }

  join(name) {
    if (!this.#connection.join(name)) return false;
    this.#add("room", name, roomKey(name), true).joined = true;
    this.show(roomKey(name));
    this.onRoomsChange();
    return true;
  }

  /** A callback for changes of the set of rooms. */
  onRoomsChange = () => {};

  show(key) {
    this.#current = key;
    const place = this.#places.get(key);
    place.unread = 0;
    this.#messages.show(key);
    document.body.dataset.view = "talk";
    this.#ask(place);
    this.#render();
  }

  #add(kind, name, key, joined) {
    let place = this.#places.get(key);
    if (!place) {
      place = { key, kind, name, joined, clients: null, unread: 0 };
      this.#places.set(key, place);
    }
    return place;
  }

  #leave(place) {
    if (place.kind === "room") this.#connection.leave(place.name);
    this.#forget(place);
    $("place").focus();
  }

  #forget(place) {
    this.#places.delete(place.key);
    this.onRoomsChange();
    if (this.#current === place.key) this.show(everyone);
  }

  #say() {
    const text = $("text").value;
    const place = this.#places.get(this.#current);
    if (text.trim() && this.#messages.send(place, text)) $("text").value = "";
  }

  #stateChanged() {
    if (this.#connection.state === "connected") this.#connected();
    else this.#messages.connectionLost();
    this.#render();
  }

  #connected() {
    // The server has joined this client to the default rooms, including those that the user left
    // before.
    for (const r of this.#defaultRooms) this.#add("room", r, roomKey(r), true);
    for (const r of this.rooms) this.#connection.join(r);
    this.#refresh();
  }

  #receive({ event, data }) {
    switch (event) {
      case "say":
        this.#arrived(this.#add("room", data.room, roomKey(data.room), true), data);
        break;
      case "shout":
        this.#arrived(this.#places.get(everyone), data);
        break;
      case "whisper": {
        // A whisper belongs to the conversation with the other user, whichever of the two sent it.
        const other = data.from.user === this.me ? data.user : data.from.user;
        this.#arrived(this.#add("user", other, userKey(other), true), data);
        break;
      }
      case "presence":
        clearTimeout(this.#refreshTimer);
        this.#refreshTimer = setTimeout(() => this.#refresh(), 100 + 200 * Math.random());
        break;
      case "rooms":
        this.#rooms(data);
        break;
      case "resync":
        this.#connection.dispatchEvent(new CustomEvent("trouble", { detail: "Messages from other servers may be missing." }));
        this.#refresh();
        break;
      case "who":
        this.#who(data);
        break;
    }
  }

  #arrived(place, message) {
    this.#messages.receive(place.key, message);
    if (place.key !== this.#current && message.from.client !== this.#connection.clientId) place.unread++;
    this.#render();
  }

  #refresh() {
    if (this.#connection.state !== "connected") return;
    this.#connection.send("rooms");
    this.#connection.send("who", {});
    const place = this.#places.get(this.#current);
    if (place?.kind === "room") this.#ask(place);
  }

  #ask(place) {
    if (place.kind === "room") this.#connection.send("who", { room: place.name });
  }

  #who(answer) {
    const { room } = answer;
    const place = room ? this.#places.get(roomKey(room)) : this.#places.get(everyone);
    if (!place) return; // the user left meanwhile
    this.#members.set(place.key, answer);
    this.#render();
  }

  #rooms({ rooms, clients, servers }) {
    this.#servers = servers;
    for (const p of this.#places.values()) if (p.kind === "room") p.clients = 0;
    this.#places.get(everyone).clients = clients;
    this.#others = [];
    for (const r of rooms) {
      const place = this.#places.get(roomKey(r.name));
      if (place) place.clients = r.clients;
      else this.#others.push({ key: roomKey(r.name), kind: "room", name: r.name, joined: false, clients: r.clients, unread: 0 });
    }
    this.#render();
  }

  #render() {
    if (!this.me) return;
    const places = [...this.#places.values()];
    this.#renderRooms([...places.filter((p) => p.kind !== "user"), ...this.#others.filter((o) => !this.#places.has(o.key))]);
    this.#renderPeople(places.filter((p) => p.kind === "user"));
    this.#renderHead();
    const here = this.#servers > 1 ? " on this server" : "";
    setText($("rooms-title"), "Rooms" + here);
    setText($("people-title"), "People" + here);
    const unread = places.reduce((n, p) => n + p.unread, 0);
    $("views-unread").hidden = unread === 0;
    setText($("views-unread"), String(unread));
    document.title = (unread ? `(${unread}) ` : "") + `${this.me} · Hearth`;
  }

  #renderRooms(places) {
    reconcile($("rooms"), places, (p) => p.key, makePlace, (li, p) => {
      const label = p.clients === null ? "" : plural(p.clients, "client");
      updatePlace(li, p, p.key === this.#current, p.kind === "all" ? "◎" : "#", p.joined ? label : `${label}, join`, String(p.clients ?? ""));
      li.firstElementChild.onclick = () => (p.joined ? this.show(p.key) : this.join(p.name));
    });
  }

  #renderPeople(whispers) {
    const counts = new Map(whispers.map((p) => [p.name, 0]));
    for (const c of this.#members.get(everyone)?.clients ?? []) counts.set(c.user, (counts.get(c.user) ?? 0) + 1);
    const people = [...counts].sort(([a], [b]) => (a === this.me ? -1 : b === this.me ? 1 : a.localeCompare(b)));
    reconcile($("people"), people, ([name]) => userKey(name), makePlace, (li, [name, tabs]) => {
      const place = this.#places.get(userKey(name)) ?? { key: userKey(name), name: name, joined: true, unread: 0 };
      updatePlace(li, place, place.key === this.#current, null, tabs ? plural(tabs, "tab") : "not connected", tabs ? `×${tabs}` : "–");
      li.classList.toggle("away", tabs === 0);
      if (name === this.me) setText(li.querySelector(".name"), `${name} (you)`);
      li.firstElementChild.onclick = () => {
        this.#add("user", name, userKey(name), true);
        this.show(userKey(name));
      };
    });
  }

  #renderHead() {
    const place = this.#places.get(this.#current);
    const titles = { all: "Everyone", room: "# " + place.name, user: place.name };
    const verbs = { all: "Message to all clients", room: `Message to #${place.name}`, user: `Private message to ${place.name}` };
    setText($("place"), titles[place.kind]);
    setText($("members"), this.#membersText(place));
    setText($("text-label"), verbs[place.kind]);
    const connected = this.#connection.state === "connected";
    $("text").placeholder = connected ? verbs[place.kind] + "…" : "Not connected";
    for (const b of document.querySelectorAll("#send, #join button, #raw button")) b.disabled = !connected;
    $("leave").hidden = place.kind === "all";
    $("leave").textContent = place.kind === "user" ? "Close" : "Leave";
  }

  #membersText(place) {
    if (place.kind === "user") {
      const tabs = (this.#members.get(everyone)?.clients ?? []).filter((c) => c.user === place.name).length;
      return tabs ? `Private: only ${place.name} gets it, in ${plural(tabs, "tab")}${this.#servers > 1 ? " on this server" : ""}`
        : this.#servers > 1 ? `${place.name} is not on this server: messages go to the other servers` : `${place.name} is not connected: messages are lost`;
    }
    const members = this.#members.get(place.key);
    if (!members) return place.kind === "all" ? "Every client gets these messages" : "";
    const counts = new Map();
    for (const c of members.clients) counts.set(c.user, (counts.get(c.user) ?? 0) + 1);
    const names = [...counts].map(([name, n]) => (name === this.me ? "you" : name) + (n > 1 ? ` ×${n}` : ""));
    const here = members.total - members.elsewhere;
    const shown = [names.slice(0, 8).join(", "), ...(names.length > 8 || here > members.clients.length ? ["…"] : []),
      ...(members.elsewhere ? [`${members.elsewhere} on other servers`] : [])].filter(Boolean).join(", ");
    const silent = members.more ? "; a server did not answer" : "";
    return `${plural(members.total, "client")}: ${shown}${silent}`;
  }
}

function makePlace() {
  return el("li", {}, el("button", { type: "button" },
    el("span", { className: "sign", "aria-hidden": "true" }),
    el("span", { className: "name" }),
    el("span", { className: "badge" }),
    el("span", { className: "tally", "aria-hidden": "true" }),
    el("span", { className: "visually-hidden" })));
}

function updatePlace(li, place, current, sign, label, tally) {
  const [mark, name, badge, count, spoken] = li.firstElementChild.children;
  if (sign === null) {
    mark.classList.add("avatar");
    mark.style.setProperty("--hue", hue(place.name));
    setText(mark, [...place.name][0].toUpperCase());
  } else {
    setText(mark, sign);
  }
  setText(name, place.name);
  badge.hidden = place.unread === 0;
  setText(badge, String(place.unread));
  setText(count, place.joined ? tally : `${tally} · join`);
  setText(spoken, `, ${label}${place.unread ? `, ${place.unread} unread` : ""}`);
  li.classList.toggle("outside", !place.joined);
  if (current) li.firstElementChild.setAttribute("aria-current", "true");
  else li.firstElementChild.removeAttribute("aria-current");
}
