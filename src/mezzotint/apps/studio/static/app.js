// The shell: the menu, the view that is open, what lies over it, and the keys.
import { setToken, token, whenDenied } from "./api.js";
import { KEYS } from "./help.js";
import { Icon } from "./icons.js";
import { connection, open, stay } from "./live.js";
import { Dialog } from "./parts.js";
import { routes } from "./routes.js";
import { drop, go, learn, notes, place, theme } from "./store.js";
import { html, render, signal, useEffect, useState } from "./ui.js";
import { dropped, DropTarget } from "./viewer/drop.js";
import { Viewer } from "./viewer/view.js";

/** @typedef {import("./vendor/preact.js").Component<object>} View */

const helping = signal(false);
const denied = signal(false);

function Menu() {
  const here = place.value.view;
  const count = open.value.length;
  return html`<nav class="menu" aria-label="Views">
    <a class="brand" href="#/create" aria-label="Mezzotint"><img src="mark.svg" alt="" width="32" height="32" /></a>
    ${routes.map((route) => html`<a key=${route.name} href=${`#/${route.name}`} class="menu-item"
      aria-current=${here === route.name ? "page" : undefined} title=${`${route.title} (${route.key})`}>
      <${Icon} name=${route.icon} /><span>${route.title}</span>
      ${route.name === "queue" && count > 0 && html`<b class="badge" aria-label=${`${count} open`}>${count}</b>`}
    </a>`)}
    <div class="menu-end">
      <${Theme} />
      <button class="menu-item" type="button" title="Keys (?)" onClick=${() => { helping.value = true; }}>
        <${Icon} name="help" /><span>Keys</span></button>
    </div>
  </nav>`;
}

function Theme() {
  const order = /** @type {const} */ (["auto", "light", "dark"]);
  const icon = { auto: "half", light: "sun", dark: "moon" }[theme.value];
  const said = { auto: "as the system", light: "light", dark: "dark" }[theme.value];
  const next = () => { theme.value = order[(order.indexOf(theme.value) + 1) % 3] ?? "auto"; };
  return html`<button class="menu-item" type="button" onClick=${next} title=${`Colours: ${said}`}>
    <${Icon} name=${icon} /><span>Colours<span class="hidden">: ${said}</span></span></button>`;
}

function Notes() {
  return html`<div class="notes" role="status" aria-live="polite">
    ${connection.value === "lost" && html`<p class="note bad">The server does not answer: is it running? What it was at goes on when it is back; this page asks again by itself.</p>`}
    ${notes.value.map((note) => html`<p key=${note.key} class=${note.bad ? "note bad" : "note"}>
      <span>${note.text}</span>
      <button type="button" aria-label="Dismiss" onClick=${() => drop(note.key)}><${Icon} name="close" /></button>
    </p>`)}
  </div>`;
}

function Keys() {
  if (!helping.value) return null;
  return html`<${Dialog} title="Keys" wide onClose=${() => { helping.value = false; }}>
    <div class="keys">${KEYS.map(({ title, keys }) => html`<section key=${title}><h3>${title}</h3>
      <dl>${keys.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></section>`)}</div>
  <//>`;
}

function Denied() {
  const [given, setGiven] = useState(token() ?? "");
  if (!denied.value) return null;
  const save = (/** @type {Event} */ event) => {
    event.preventDefault();
    setToken(given.trim());
    location.reload();
  };
  return html`<${Dialog} title="A token is needed" onClose=${() => { denied.value = false; }}>
    <form class="stack" onSubmit=${save}>
      <p>This server asks who you are. Whoever runs it makes a token with <code>mezzotint token add NAME</code>.</p>
      <label class="field"><span>Token</span>
        <input type="password" autocomplete="off" value=${given}
          onInput=${(/** @type {InputEvent} */ event) => setGiven(/** @type {HTMLInputElement} */ (event.target).value)} /></label>
      <button class="button primary" type="submit">Go on</button>
    </form>
  <//>`;
}

/** @type {Map<string, View>} */
const loaded = new Map();

function Open() {
  const name = place.value.view;
  const [, setCount] = useState(0);
  const route = routes.find((each) => each.name === name) ?? routes[0];
  const Shown = loaded.get(name);
  useEffect(() => {
    document.title = `${route?.title} · Mezzotint`;
    if (Shown || !route) return;
    route.load().then((view) => { loaded.set(name, view); setCount((n) => n + 1); });
  }, [name]);
  return html`<main class="view" id="view" tabindex="-1">${Shown ? html`<${Shown} />` : null}</main>`;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const at = /** @type {HTMLElement} */ (event.target);
  const typing = at.matches("input:not([type=checkbox]):not([type=range]), textarea, select, [contenteditable]");
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (document.querySelector("dialog[open]") && event.key !== "?") return;
  const route = routes.find((each) => each.key === event.key);
  if (route) go(route.name);
  else if (event.key === "?") helping.value = !helping.value;
  else if (event.key === "/") {
    const first = /** @type {HTMLElement | null} */ (document.querySelector("[data-first]"));
    if (!first) return;
    first.focus();
  } else return;
  event.preventDefault();
}

function App() {
  return html`<a class="skip" href="#view" onClick=${(/** @type {Event} */ event) => {
    event.preventDefault();
    document.getElementById("view")?.focus();
  }}>Skip the menu</a>
  <${Menu} /><${Open} /><${Viewer} /><${Keys} /><${Denied} /><${DropTarget} /><${Notes} />`;
}

whenDenied(() => { denied.value = true; });
addEventListener("keydown", onKey);
dropped();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
learn();
stay();
