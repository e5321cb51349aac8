// The list of frames in both directions, unchanged, with the newest last.
import { $, el, keepAtEnd, stayAtEnd, clock, plural } from "./dom.js";

const keep = 400; // rows

/** Events that the page exchanges by itself. They are hidden unless "all" is checked. */
const housekeeping = new Set(["heartbeat", "hearth:ticket", "presence", "who", "rooms"]);

const encoder = new TextEncoder();

export class Wire {
  #list = $("frames");
  #paused = false;
  #seen = 0;
  #missed = 0;
  #pending = []; // rows to be added
  #timer = 0;

  constructor(connection) {
    connection.addEventListener("frame", (e) => this.#frame(e.detail));
    connection.addEventListener("note", (e) => this.#note(e.detail.text));
    $("wire-clear").onclick = () => this.clear();
    $("wire-pause").onclick = () => this.#pause();
    $("wire-all").onchange = (e) => {
      this.#list.classList.toggle("all", e.target.checked);
      this.#list.scrollTop = this.#list.scrollHeight;
    };
    $("raw").onsubmit = (e) => {
      e.preventDefault();
      connection.sendRaw($("raw-text").value);
    };
    stayAtEnd(this.#list);
    this.#count();
  }

  clear() {
    this.#list.replaceChildren();
    this.#pending = [];
    this.#seen = this.#missed = 0;
    this.#count();
  }

  #pause() {
    this.#paused = !this.#paused;
    this.#missed = 0;
    $("wire-pause").setAttribute("aria-pressed", this.#paused);
    $("wire-pause").textContent = this.#paused ? "Continue" : "Pause";
    this.#count();
  }

  #frame({ direction, text }) {
    this.#seen++;
    if (!this.#paused) {
      this.#append(row(direction, text));
    } else {
      this.#missed++;
      this.#count();
    }
  }

  #note(text) {
    if (!this.#paused) this.#append(el("li", { className: "note" }, el("time", {}, clock(new Date(), true)), " ", text));
  }

  /** Adds rows in batches: otherwise many frames would cause one layout each. */
  #append(li) {
    this.#pending.push(li);
    if (this.#pending.length > keep) this.#pending.shift();
    this.#timer ||= setTimeout(() => this.#flush(), 30);
  }

  #flush() {
    this.#timer = 0;
    keepAtEnd(this.#list, () => {
      this.#list.append(...this.#pending.splice(0));
      while (this.#list.childElementCount > keep) this.#list.firstElementChild.remove();
    });
    this.#count();
  }

  #count() {
    $("wire-count").textContent = plural(this.#seen, "frame") + (this.#missed ? `, ${this.#missed} not shown` : "");
  }
}

function row(direction, text) {
  let envelope = null;
  try {
    envelope = JSON.parse(text);
  } catch {
    // not JSON: show the text
  }
  const event = typeof envelope?.event === "string" ? envelope.event : "not an envelope";
  const summary = el("summary", {},
    el("span", { className: "arrow", "aria-hidden": "true" }, direction === "out" ? "↑" : "↓"),
    el("span", { className: "visually-hidden" }, direction === "out" ? "sent " : "received "),
    el("b", {}, event),
    el("span", { className: "size" }, `${encoder.encode(text).length} B`),
    el("time", {}, clock(new Date(), true)),
    el("code", {}, text));
  const details = el("details", {}, summary);
  // Few frames are opened, so the long form is created when it is needed.
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(el("pre", { tabIndex: 0 }, envelope === null ? text : JSON.stringify(envelope, null, 2)));
    }
  });
  const li = el("li", { className: direction, data: { event } }, details);
  if (housekeeping.has(event)) li.classList.add("housekeeping");
  return li;
}
