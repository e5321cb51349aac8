// Small helpers over the DOM. Everything that comes from the wire goes in as text, never as markup.

/** Returns the element with that id. */
export const $ = (id) => document.getElementById(id);

/** Makes an element: el("li", { className: "x", onclick: f }, "text", otherElement). */
export function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k === "data") Object.assign(e.dataset, v);
    else if (k.includes("-") || k === "role") e.setAttribute(k, v);
    else e[k] = v;
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

/**
 * Makes parent's children show items, one each, in order. Elements are kept by key, so that focus and selection survive.
 * make(item) returns a new element, update(element, item) brings it up to date.
 */
export function reconcile(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((e) => [e.dataset.key, e]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let e = old.get(k);
    old.delete(k);
    if (!e) {
      e = make(item);
      e.dataset.key = k;
    }
    if (e === at) at = at.nextElementSibling;
    else parent.insertBefore(e, at);
    update(e, item);
  }
  for (const e of old.values()) e.remove();
}

/** Sets an element's text only when it changes: screen readers repeat what is set again. */
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** Scrolls to the end after change(), if it was there before; someone who reads further up is left alone. */
export function keepAtEnd(e, change) {
  const atEnd = e.scrollHeight - e.scrollTop - e.clientHeight < 40;
  change();
  if (atEnd) e.scrollTop = e.scrollHeight;
}

/**
 * Keeps e at its end through changes of its own size, unless someone reads further up. Such a change is also to be shown
 * for the first time: what does not show, as two of three columns on a phone, cannot be scrolled.
 */
export function stayAtEnd(e) {
  let atEnd = true;
  e.addEventListener("scroll", () => {
    if (e.clientHeight > 0) atEnd = e.scrollHeight - e.scrollTop - e.clientHeight < 40;
  });
  new ResizeObserver(() => {
    if (atEnd) e.scrollTop = e.scrollHeight;
  }).observe(e);
}

/** A colour for a name, always the same one: a hue from 0 to 359. */
export function hue(name) {
  let h = 7;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) % 3600;
  return h % 360;
}

export function clock(date, withMillis = false) {
  const two = (n) => String(n).padStart(2, "0");
  const text = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return withMillis ? `${text}.${String(date.getMilliseconds()).padStart(3, "0")}` : text;
}

export const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
