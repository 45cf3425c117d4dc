// @ts-check
/** The canvas that is open, whichever view is shown: opened, made, copied. One tab has it. */

import { api, ApiError, request } from "../api.js";
import { attempt, models, say } from "../store.js";
import { signal } from "../ui.js";
import * as documents from "./document.js";
import { Editor } from "./editor.js";
import { Making } from "./making.js";
import { picture } from "./pictures.js";
import { usual } from "./plan.js";
import { resized } from "./raster.js";
import * as storage from "./storage.js";
import { fetched, forget, listed, Sync } from "./sync.js";

/** @typedef {import("./storage.js").Kept} Kept @typedef {import("./raster.js").Raster} Raster */
/** @typedef {{editor: Editor, making: Making, sync: Sync}} Session */
/** A canvas that can be opened. @typedef {{id: string, name: string, changed: number, here: boolean}} Entry */

/** @type {import("../ui.js").Signal<Session | null>} */
export const session = signal(null);
let release = () => {};

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** @param {string} name @returns {Kept} */
const fresh = (name) => ({ id: newId(), name, at: 0, count: 0, version: 0, saved: false, changed: Date.now(), settings: {} });

/** Keep other tabs from it; false: one of them has it. @param {string} id @returns {Promise<boolean>} */
function alone(id) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((done) => {
    navigator.locks.request(`mezzotint-canvas-${id}`, { ifAvailable: true }, (lock) => {
      done(lock !== null);
      return lock && new Promise((gone) => { release = () => gone(undefined); });
    });
  });
}

/** @param {string} message */
const complain = (message) => say(message, true);

/** @param {Editor} editor */
function enter(editor) {
  const sync = new Sync(editor, (why) => {
    say(`${why[0].toUpperCase()}${why.slice(1)}`, true);
    copy(`${editor.kept.name} (copy)`);
  });
  session.value = { editor, sync, making: new Making(editor) };
}

async function leave() {
  const held = session.peek();
  if (!held) return;
  session.value = null;
  held.editor.cancel();
  held.making.close();
  held.sync.close();
  if (!held.editor.kept.saved) await held.sync.save();
  await held.editor.storage.settled;
  release();
}

/** Go on with a canvas; false where it cannot be. @param {string} id */
export async function open(id) {
  if (session.peek()?.editor.kept.id === id) return true;
  if (!(await alone(id))) {
    say("This canvas is open in another tab", true);
    return false;
  }
  const gone = release;
  release = () => {};
  await leave();
  release = gone;
  let editor = await Editor.open(id, complain);
  const there = (await listed().catch(() => [])).find((each) => each.id === id);
  const newer = there && editor && there.version > editor.kept.version;
  if (there && newer && !editor?.kept.saved) say("It was changed elsewhere too: both are kept");
  if (there && (!editor || (newer && editor.kept.saved))) {
    const found = await attempt(fetched(id));
    if (found) {
      await storage.forget(id);
      const kept = { ...fresh(found.name), id, version: found.version, settings: found.settings };
      editor = await Editor.begin(kept, documents.created(1, 1), complain, found.filled);
      editor.keep({ saved: true });
    }
  }
  if (!editor) {
    release();
    return false;
  }
  enter(editor);
  return true;
}

/** @param {number} width @param {number} height @param {string} [name] @param {Raster} [first] a picture to begin with @param {string[]} [of] its files */
export async function create(width, height, name = "Untitled", first, of = []) {
  await leave();
  const kept = fresh(name), document = documents.created(width, height);
  await alone(kept.id);
  const filled = first && (async (/** @type {Editor} */ editor) => documents.changed(document, document.layers[0].id, {
    name: "Picture", pixels: editor.tiled(first), of,
  }));
  enter(await Editor.begin(kept, document, complain, filled));
}

/** The open canvas once more, under another name. @param {string} name */
export async function copy(name) {
  const held = session.peek();
  if (!held) return;
  const { editor } = held, { document } = editor;
  const kept = { ...fresh(name), settings: { ...editor.kept.settings, pending: null } };
  held.sync.close();
  held.making.close();
  const made = await Editor.begin(kept, document, complain, async (next) => {
    const again = async (/** @type {import("./tiles.js").Tiles | null} */ of) => of && next.tiled(await editor.raster(of));
    const layers = [];
    for (const layer of document.layers) {
      const pixels = /** @type {import("./tiles.js").Tiles} */ (await again(layer.pixels));
      layers.push({ ...layer, pixels, mask: await again(layer.mask) });
    }
    return { ...document, layers, selection: await again(document.selection) };
  });
  release();
  await alone(kept.id);
  enter(made);
}

/** Canvases here and at the server, the last changed first. @returns {Promise<Entry[]>} */
export async function entries() {
  const [here, there] = await Promise.all([storage.list(), listed().catch(() => [])]);
  /** @type {Map<string, Entry>} */
  const all = new Map(here.map((kept) => [kept.id, { id: kept.id, name: kept.name, changed: kept.changed, here: true }]));
  for (const each of there)
    if (!all.has(each.id)) all.set(each.id, { id: each.id, name: each.name, changed: Date.parse(each.changed), here: false });
  return [...all.values()].sort((a, b) => b.changed - a.changed);
}

/** @param {string} id */
export async function remove(id) {
  const held = session.peek();
  if (held?.editor.kept.id === id) {
    session.value = null;
    held.sync.close();
    held.making.close();
    await held.editor.storage.settled;
    release();
  }
  await storage.forget(id);
  await forget(id).catch((error) => { if (!(error instanceof ApiError)) throw error; });
}

/** The last canvas, or the first. */
export async function begin() {
  if (session.peek()) return;
  for (const entry of (await entries()).slice(0, 3)) if (await open(entry.id)) return;
  const [width, height] = usual(models.peek()[0]);
  await create(width, height);
}

/** A picture of the gallery as a canvas of its own. @param {import("../api.js").Output} output */
export async function from(output) {
  const answer = await attempt(request("GET", output.url));
  if (!answer) return;
  const raster = await picture(await answer.blob());
  await create(raster.width, raster.height, output.prompt.slice(0, 60) || "Untitled", raster, [output.file]);
}

/** A file as a new layer, as large as the frame at most, in its middle.
 * @param {Blob} file @param {string} name @param {string} [of] what the server calls it; else it is given to it, so that
 * what it carries is not lost */
export async function place(file, name, of) {
  const held = session.peek();
  if (!held) return;
  try {
    let raster = await picture(file);
    const { frame } = held.editor.document;
    const by = Math.min(frame.width / raster.width, frame.height / raster.height, 1);
    const width = Math.max(Math.round(raster.width * by), 1), height = Math.max(Math.round(raster.height * by), 1);
    const where = { x: frame.x + Math.round((frame.width - width) / 2), y: frame.y + Math.round((frame.height - height) / 2), width, height };
    raster = by < 1 ? resized(raster, where) : { ...raster, ...where };
    const known = of ?? (await api.upload(file, name.slice(0, 200)).catch(() => null))?.id;
    await held.editor.place(name.slice(0, 60) || "Picture", raster, null, known ? [known] : []);
  } catch {
    say(`${name || "It"} is no picture that this browser can read`, true);
  }
}
