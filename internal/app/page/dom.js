// Small helpers for the DOM. Text from the server is inserted as text, never as markup.

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
 * Updates the children of parent to show items, one each, in order. It keeps elements by key, so focus and selection
 * survive. make(item) returns a new element, and update(element, item) updates it.
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

/** Sets the text of an element only if it differs: screen readers repeat text that is set again. */
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** Scrolls to the end after change(), unless the user has scrolled up. */
export function keepAtEnd(e, change) {
  const atEnd = e.scrollHeight - e.scrollTop - e.clientHeight < 40;
  change();
  if (atEnd) e.scrollTop = e.scrollHeight;
}

/**
 * Keeps e scrolled to its end when its size changes, unless the user has scrolled up. The size also changes when e is
 * shown for the first time: hidden elements, such as two of three columns on a phone, cannot be scrolled.
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

/** Returns a colour for a name, always the same: a hue from 0 to 359. */
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
