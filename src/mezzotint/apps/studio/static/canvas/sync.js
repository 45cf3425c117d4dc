// @ts-check
/** A canvas at the server: saved a moment after each change, and fetched from there. */

import { api, ApiError, request } from "../api.js";
import { signal } from "../ui.js";
import { content, crop } from "./raster.js";
import { encode } from "./png.js";
import { picture } from "./pictures.js";
import { nothing } from "./document.js";

/** @typedef {import("./editor.js").Editor} Editor @typedef {import("./document.js").Document} Document */
/** @typedef {import("./tiles.js").Tiles} Tiles @typedef {import("./raster.js").Rect} Rect */
/** @typedef {{id: string, name: string, version: number, changed: string}} Short */
/** Pixels at the server: an upload, where it lies, and how large the raster is.
 * @typedef {Rect & {file: string | null, at: Rect | null}} Kept */

const SECONDS = 1.5;
const MOST = 40; // seconds between tries, where the server does not answer

export class Sync {
  /** @param {Editor} editor @param {(why: string) => void} conflict */
  constructor(editor, conflict) {
    this.editor = editor;
    this.conflict = conflict;
    /** @type {import("../ui.js").Signal<"saved" | "waiting" | "saving" | "here">} here: in this browser only */
    this.state = signal(editor.kept.saved ? "saved" : "waiting");
    /** @type {WeakMap<string[], {file: string | null, at: Rect | null}>} */
    this.known = new WeakMap();
    this.timer = 0;
    this.pause = SECONDS;
    editor.onCommit = () => this.soon();
    if (!editor.kept.saved) this.soon();
  }

  close() {
    clearTimeout(this.timer);
    this.editor.onCommit = () => {};
  }

  soon() {
    if (this.state.value !== "saving") this.state.value = "waiting";
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.save(), this.pause * 1000);
  }

  /** @param {Tiles} of @returns {Promise<Kept>} */
  async #give(of) {
    const where = { x: of.x, y: of.y, width: of.width, height: of.height };
    let held = this.known.get(of.tiles);
    if (!held) {
      const raster = await this.editor.raster(of), at = content({ ...raster, x: 0, y: 0 });
      const part = crop({ ...raster, x: 0, y: 0 }, at);
      held = at.width ? { file: (await api.upload(await encode(part), "layer.png")).id, at } : { file: null, at: null };
      this.known.set(of.tiles, held);
    }
    return { ...where, ...held };
  }

  async save() {
    if (this.state.value === "saving") return;
    this.state.value = "saving";
    const { document, kept } = this.editor, changed = kept.changed;
    try {
      const layers = [];
      for (const layer of document.layers)
        layers.push({ ...layer, pixels: await this.#give(layer.pixels), mask: layer.mask && (await this.#give(layer.mask)) });
      const selection = document.selection && (await this.#give(document.selection));
      const { pending: _, ...settings } = kept.settings;
      const files = [selection, ...layers.flatMap((layer) => [layer.pixels, layer.mask])].map((each) => each?.file);
      const json = {
        name: kept.name, base: kept.version,
        document: { form: 1, frame: document.frame, known: document.known, active: document.active, layers, selection, settings },
        files: [...new Set(files)].filter(Boolean),
      };
      const { version } = await (await request("PUT", `/v1/canvases/${kept.id}`, { json })).json();
      const now = this.editor.kept;
      this.editor.keep({ version, saved: now.changed === changed });
      this.state.value = "saved";
      this.pause = SECONDS;
      if (now.changed !== changed) this.soon();
    } catch (error) {
      this.state.value = "here";
      if (error instanceof ApiError && error.status === 409) return this.conflict(error.message);
      this.pause = Math.min(this.pause * 2, MOST);
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.save(), this.pause * 1000);
    }
  }
}

/** @returns {Promise<Short[]>} */
export const listed = async () => (await (await request("GET", "/v1/canvases")).json()).canvases;

/** @param {string} id */
export const forget = (id) => request("DELETE", `/v1/canvases/${id}`);

/** A canvas of the server. @param {string} id
 * @returns {Promise<{name: string, version: number, settings: Record<string, any>, filled: (editor: Editor) => Promise<Document>}>} */
export async function fetched(id) {
  const found = await (await request("GET", `/v1/canvases/${id}`)).json(), { document } = found;
  const filled = async (/** @type {Editor} */ editor) => {
    const read = async (/** @type {Kept} */ of, /** @type {1 | 4} */ channels) => {
      if (!of.file || !of.at) return { ...nothing(of), channels };
      const blob = await (await request("GET", `/v1/canvases/${id}/files/${of.file}`)).blob();
      const part = { ...(await picture(blob, channels)), x: of.x + of.at.x, y: of.y + of.at.y };
      return editor.tiled(crop(part, of));
    };
    const layers = [];
    for (const layer of document.layers)
      layers.push({ ...layer, pixels: await read(layer.pixels, 4), mask: layer.mask && (await read(layer.mask, 1)) });
    const selection = document.selection && (await read(document.selection, 1));
    return { frame: document.frame, known: document.known, active: document.active, layers, selection };
  };
  return { name: found.name, version: found.version, settings: document.settings ?? {}, filled };
}
