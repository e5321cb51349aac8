// The page: sign in and out, the state of the connection, the theme. The other modules hold the
// rest.
import { $ } from "./dom.js";
import { Connection } from "./connection.js";
import { Chat } from "./chat.js";
import { Wire } from "./wire.js";

const setting = (name) => document.querySelector(`meta[name="hearth-${name}"]`).content;
const defaultRooms = JSON.parse(setting("default-rooms"));

const url = new URL(setting("path"), location.href);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
url.search = "";

const connection = new Connection(url.href);
const chat = new Chat(connection);
new Wire(connection);

// State of the tab that survives a reload. Each tab has its own, so two tabs can be two users.
const memory = {
  get name() { return sessionStorage.getItem("name"); },
  get rooms() { return JSON.parse(sessionStorage.getItem("rooms") ?? '["lobby"]'); },
  keep() {
    sessionStorage.setItem("name", chat.me);
    sessionStorage.setItem("rooms", JSON.stringify(chat.rooms.filter((r) => !defaultRooms.includes(r))));
  },
};

function signIn(name) {
  $("name-error").textContent = "";
  $("login").hidden = true;
  $("chat").hidden = false;
  $("sign-out").hidden = false;
  chat.enter(name, memory.rooms, defaultRooms);
  memory.keep();
  connection.signIn(name);
  $("text").focus();
}

function signOut(why = "") {
  connection.signOut();
  sessionStorage.removeItem("name");
  $("login").hidden = false;
  $("chat").hidden = true;
  $("sign-out").hidden = true;
  $("name-error").textContent = why;
  document.title = "Hearth";
  $("name").focus();
}

$("sign-in").onsubmit = (e) => {
  e.preventDefault();
  const name = $("name").value.trim();
  if (name) signIn(name);
};
$("sign-out").onclick = () => signOut();
$("reconnect").onclick = () => connection.reconnect();
chat.onRoomsChange = () => memory.keep();
connection.addEventListener("rejected", (e) => signOut(`Closed: ${e.detail.code} ${e.detail.reason} (${e.detail.meaning}).`));

// The link to a second tab uses a name that is not signed in.
const names = ["grace", "ada", "linus", "radia", "ken", "barbara", "edsger", "hedy", "alan", "joan"];
function freeName() {
  const here = chat.users;
  return names.find((n) => !here.has(n) && n !== chat.me) ?? `guest-${here.size + 1}`;
}
connection.addEventListener("message", () => {
  const name = freeName();
  $("second-tab").href = `/?as=${encodeURIComponent(name)}`;
  $("second-name").textContent = ` as ${name}`;
});

// The state of the connection, with a countdown while it waits for the next attempt.
let countdown = 0;
connection.addEventListener("state", () => {
  clearInterval(countdown);
  $("status").dataset.state = connection.state;
  $("reconnect").hidden = connection.state !== "waiting";
  $("second-tab").hidden = connection.state !== "connected"; // without a connection it would show nothing
  const showStatus = () => {
    const seconds = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000));
    $("status").title = connection.clientId ? `client ${connection.clientId}` : "";
    const user = connection.state === "connected" ? ` as ${chat.me}` : "";
    $("status-text").textContent = connection.detail + user;
    if (connection.state === "waiting") $("reconnect").textContent = `Reconnecting in ${seconds} s (click to reconnect now)`;
  };
  showStatus();
  if (connection.state === "waiting") countdown = setInterval(showStatus, 250);
});

// Errors that belong to no message are shown for a few seconds.
let noticeTimer = 0;
function notice(text) {
  clearTimeout(noticeTimer);
  $("notice").textContent = text;
  $("notice").hidden = false;
  noticeTimer = setTimeout(() => ($("notice").hidden = true), 6000);
}
connection.addEventListener("trouble", (e) => notice(e.detail));
connection.addEventListener("message", ({ detail: { event, data } }) => {
  if (event === "error") notice(`The server sent an error: ${data?.message ?? "error"}`);
});

// The theme: the button switches between system, light and dark.
const themes = ["system", "light", "dark"];
const themeSigns = { system: "◐", light: "☀", dark: "☾" };
function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").textContent = themeSigns[theme];
  $("theme").setAttribute("aria-label", `Theme: ${theme === "system" ? "same as the system" : theme}`);
  $("theme").title = $("theme").getAttribute("aria-label");
}
let theme = themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
showTheme(theme);
$("theme").onclick = () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  localStorage.setItem("theme", theme);
  showTheme(theme);
};

// A narrow screen shows one of the three columns at a time.
const views = document.querySelectorAll(".views button");
new MutationObserver(() => {
  for (const b of views) b.setAttribute("aria-pressed", b.dataset.view === document.body.dataset.view);
}).observe(document.body, { attributeFilter: ["data-view"] });
for (const b of views) b.onclick = () => (document.body.dataset.view = b.dataset.view);

// /?as=grace signs in as grace. A reload signs in with the previous name.
const query = new URLSearchParams(location.search);
const asked = query.get("as")?.trim();
if (query.has("as")) history.replaceState(null, "", "/");
if (asked) signIn(asked);
else if (memory.name) signIn(memory.name);
else $("name").focus();
