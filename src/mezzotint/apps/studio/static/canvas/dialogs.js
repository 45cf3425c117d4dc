// @ts-check
/** Canvases to open, the size of a new one, and pictures to place. */

import { api, ApiError, request } from "../api.js";
import { Icon } from "../icons.js";
import { Dialog, since } from "../parts.js";
import { attempt, models, say } from "../store.js";
import { html, useEffect, useState } from "../ui.js";
import { Picker } from "../viewer/picker.js";
import { added } from "../viewer/steer.js";
import { parts } from "./document.js";
import { usual } from "./plan.js";
import { encode } from "./png.js";
import { create, entries, open, place, remove, session } from "./session.js";

/** @param {{onClose: () => void}} props */
export function Canvases({ onClose }) {
  const [all, setAll] = useState(/** @type {import("./session.js").Entry[] | null} */ (null));
  const [sure, setSure] = useState("");
  const read = () => void entries().then(setAll);
  useEffect(read, []);
  const here = session.value?.editor.kept.id;
  return html`<${Dialog} title="Canvases" onClose=${onClose}>
    <ul class="cv-list">${all?.map((each) => html`<li key=${each.id}>
      <button type="button" class="button grow" aria-current=${each.id === here ? "true" : undefined}
        onClick=${async () => { if (await open(each.id)) onClose(); }}>
        <span class="grow">${each.name}</span><time class="soft">${since(new Date(each.changed).toISOString())}</time></button>
      ${each.id !== here && (sure === each.id
        ? html`<button type="button" class="button danger" onClick=${async () => { await remove(each.id); setSure(""); read(); }}>Delete it</button>`
        : html`<button type="button" class="bare" aria-label=${`Delete ${each.name}`} onClick=${() => setSure(each.id)}><${Icon} name="trash" /></button>`)}
    </li>`)}</ul>
  <//>`;
}

/** @param {{onClose: () => void}} props */
export function NewCanvas({ onClose }) {
  const [width, height] = usual(models.value[0]);
  const [size, setSize] = useState(`${width}x${height}`);
  const [name, setName] = useState("");
  const sizes = [...new Set([`${width}x${height}`, "128x128", "256x256", "512x512", "768x512", "1024x1024", "1344x768", "768x1344"])];
  const match = /^\s*(\d{1,4})\s*[x×]\s*(\d{1,4})\s*$/.exec(size);
  const [w, h] = match ? [Number(match[1]), Number(match[2])] : [0, 0];
  const good = w >= 8 && h >= 8 && w <= 4096 && h <= 4096;
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!good) return;
    await create(w, h, name.trim() || undefined);
    onClose();
  };
  return html`<${Dialog} title="New canvas" onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      <label class="field"><span>Name</span><input type="text" maxlength="100" placeholder="Untitled" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
      <label class="field"><span>Width × height, 8 to 4096</span><input type="text" value=${size} aria-invalid=${!good} onInput=${(/** @type {any} */ event) => setSize(event.target.value)} /></label>
      <div class="row">${sizes.map((each) => html`<button key=${each} type="button" class="button small" aria-pressed=${each === size} onClick=${() => setSize(each)}>${each.replace("x", " × ")}</button>`)}</div>
      <button class="button primary" type="submit" disabled=${!good}>Make it</button>
    </form>
  <//>`;
}

const FORMATS = /** @type {const} */ (["png", "webp", "jpeg"]);

/** The canvas as a file that says of what it is put together. @param {{session: import("./session.js").Session, onClose: () => void}} props */
export function Save({ session: { editor }, onClose }) {
  const [format, setFormat] = useState(/** @type {(typeof FORMATS)[number]} */ ("png"));
  const [keep, setKeep] = useState(false);
  const [busy, setBusy] = useState(false);
  const [wrong, setWrong] = useState("");
  const name = editor.kept.name, found = parts(editor.document);
  const offer = (/** @type {Blob} */ file, /** @type {string} */ end) => {
    const url = URL.createObjectURL(file);
    Object.assign(document.createElement("a"), { href: url, download: `${name.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "canvas"}.${end}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  const bare = async () => { offer(await encode(editor.flattened()), "png"); onClose(); };
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setWrong("");
    try {
      const made = await api.compose(await encode(editor.flattened()), { part: found, name, format, keep });
      offer(made.file, format === "jpeg" ? "jpg" : format);
      if (made.output) {
        added.value++;
        say("It is in the gallery too.");
      }
      onClose();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setWrong(error.message);
    }
    setBusy(false);
  };
  return html`<${Dialog} title="Download" onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      <fieldset class="row bare-set"><legend>As</legend>${FORMATS.map((each) => html`<label key=${each} class="button small"><input type="radio" name="format" value=${each} checked=${format === each}
        onChange=${() => setFormat(each)} /> ${each.toUpperCase()}</label>`)}</fieldset>
      <label class="row"><input type="checkbox" checked=${keep} onChange=${(/** @type {any} */ event) => setKeep(event.target.checked)} /> Keep it in the gallery</label>
      <p class="soft small-text">${found.length
        ? `Signed: put together by you, of ${found.length === 1 ? "a picture" : `${found.length} pictures`} with what they carry and their licences. No recipe makes it again.`
        : "Signed: painted by you."}</p>
      ${wrong && html`<p class="bad" role="alert">${wrong}</p><button type="button" class="button small" onClick=${bare}>Download a PNG without credentials</button>`}
      <button class="button primary" type="submit" disabled=${busy}><${Icon} name="download" /> ${busy ? "Signing …" : "Download"}</button>
    </form>
  <//>`;
}

/** @param {{onClose: () => void}} props */
export function Place({ onClose }) {
  const take = async (/** @type {import("../api.js").Output} */ output) => {
    const answer = await attempt(request("GET", output.url));
    if (answer) await place(await answer.blob(), output.prompt, output.file);
    onClose();
  };
  const file = async (/** @type {File} */ given) => {
    await place(given, given.name);
    onClose();
  };
  return html`<${Picker} title="Place a picture" note="or paste one, or drop it on the canvas" several=${true} onOutput=${take} onFile=${file} onClose=${onClose} />`;
}
