// @ts-check
/**
 * A canvas that is open: its document, the pixels of its layers, its history. Tools and panels call
 * it, and redraw when it says so. One change at a time: `busy` ones wait for each other.
 */

import { flatten, over } from "./compose.js";
import * as documents from "./document.js";
import { History } from "./history.js";
import * as masks from "./masks.js";
import { erase } from "./paint.js";
import { blank, copy, crop, holds, join, meet, rect, same } from "./raster.js";
import { Storage } from "./storage.js";
import { assembled, split, TileStore } from "./tiles.js";

/** @typedef {import("./document.js").Document} Document @typedef {import("./document.js").Layer} Layer */
/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {import("./tiles.js").Tiles} Tiles @typedef {import("./compose.js").Sheet} Sheet */
/** @typedef {import("./storage.js").Kept} Kept */

/** A stroke, a fill or a shape while it is drawn: what it paints on, and how that was before.
 * @typedef {{layer: string, raster: Raster, before: Raster, old: Tiles, part: "pixels" | "mask",
 *   coverage: Raster, dirty: Rect, allowed: Raster | null}} Work */

/** @param {Document} of @returns {(Tiles | null)[]} the selection first */
const needed = (of) => [of.selection, ...of.layers.flatMap((layer) => [layer.pixels, layer.mask])];

export class Editor {
  /** @param {Kept} kept @param {(message: string) => void} complain */
  constructor(kept, complain) {
    this.kept = kept;
    this.storage = new Storage(kept.id, (error) => complain(`This browser keeps nothing more: ${/** @type {Error} */ (error)?.message ?? error}`));
    this.store = new TileStore(this.storage.tiles);
    /** @type {History<Document>} */
    this.history = new History(this.storage.history(() => this.kept));
    this.document = documents.created(1, 1);
    /** Of the present document. @type {Map<string[], Raster>} */
    this.rasters = new Map();
    /** The picture as it is shown: of the frame. */
    this.picture = blank(this.document.frame);
    /** @type {Raster | null} */
    this.selection = null;
    /** A candidate that is looked at, over everything. @type {Sheet | null} */
    this.shown = null;
    /** A layer as it would be, while it is turned. @type {{layer: string, pixels: Raster, mask: Raster | null} | null} */
    this.trial = null;
    /** @type {Work | null} */
    this.work = null;
    this.turn = Promise.resolve();
    this.waiting = 0;
    /** @type {Set<(what: "pixels" | "all", where: Rect) => void>} */
    this.listeners = new Set();
    /** @type {() => void} */
    this.onCommit = () => {};
  }

  // --- opening ----------------------------------------------------------------------------------

  /** @param {string} id @param {(message: string) => void} complain @returns {Promise<Editor | null>} */
  static async open(id, complain) {
    const found = await new Storage(id, () => {}).load();
    if (!found) return null;
    const editor = new Editor(found.kept, complain);
    editor.history.resume(found.kept.at, found.kept.count);
    await editor.#show(found.entry.document);
    editor.storage.sweep(found.kept.settings.pending?.mask?.tiles ?? []);
    return editor;
  }

  /** @param {Kept} kept @param {Document} document @param {(message: string) => void} complain
   * @param {(editor: Editor) => Promise<Document>} [filled] */
  static async begin(kept, document, complain, filled) {
    const editor = new Editor(kept, complain);
    const whole = filled ? await filled(editor) : document;
    editor.history.add("new", whole);
    editor.#noted();
    await editor.#show(whole);
    return editor;
  }

  /** @param {(what: "pixels" | "all", where: Rect) => void} hear */
  listen(hear) {
    this.listeners.add(hear);
    return () => void this.listeners.delete(hear);
  }

  /** @param {"pixels" | "all"} what @param {Rect} [where] */
  #tell(what, where = this.document.frame) {
    for (const hear of this.listeners) hear(what, where);
  }

  // --- pixels -----------------------------------------------------------------------------------

  /** @param {Tiles} of @returns {Promise<Raster>} */
  async raster(of) {
    const held = this.rasters.get(of.tiles);
    if (held) return { ...held, x: of.x, y: of.y };
    const made = await assembled(of, this.store);
    this.rasters.set(of.tiles, made);
    return made;
  }

  /** One that is in memory already. @param {Tiles} of @returns {Raster} */
  at(of) {
    const held = this.rasters.get(of.tiles);
    return held ? { ...held, x: of.x, y: of.y } : blank(of, of.channels);
  }

  /** Tiles of a raster that is not changed any more. @param {Raster} raster @param {Tiles | null} [old] @param {Rect} [dirty] */
  tiled(raster, old = null, dirty = raster) {
    const made = split(raster, this.store, old, dirty);
    this.rasters.set(made.tiles, raster);
    return made;
  }

  /** @returns {Sheet[]} what is seen, the lowest first */
  sheets() {
    return this.document.layers.filter((layer) => layer.visible).map((layer) => {
      if (this.trial?.layer === layer.id) return { pixels: this.trial.pixels, mask: this.trial.mask, opacity: layer.opacity };
      const work = this.work?.layer === layer.id ? this.work : null;
      const pixels = work?.part === "pixels" ? work.raster : this.at(layer.pixels);
      const mask = work?.part === "mask" ? work.raster : layer.mask && this.at(layer.mask);
      return { pixels, mask, opacity: layer.opacity };
    });
  }

  /** The picture of a part, without a candidate that is only looked at. @param {Rect} [where] */
  flattened(where = this.document.frame) {
    return flatten(where, this.sheets());
  }

  /** @param {Rect} [where] */
  #drawn(where = this.document.frame) {
    const part = meet(where, this.picture);
    if (!part.width) return;
    const made = this.flattened(part);
    if (this.shown) over(made, this.shown);
    copy(made, this.picture);
    this.#tell("pixels", part);
  }

  /** Forget pixels of other documents: their tiles are kept. */
  #prune() {
    const used = new Set(needed(this.document).map((tiles) => tiles?.tiles));
    for (const tiles of this.rasters.keys()) if (!used.has(tiles)) this.rasters.delete(tiles);
  }

  /** @param {Document} document */
  async #show(document) {
    const [selection] = await Promise.all(needed(document).map((tiles) => tiles && this.raster(tiles)));
    this.document = document;
    this.#prune();
    this.selection = selection ?? null;
    if (!same(this.picture, document.frame)) this.picture = blank(document.frame);
    this.#drawn();
    this.#tell("all");
  }

  // --- changing ---------------------------------------------------------------------------------

  #noted() {
    this.kept = { ...this.kept, at: this.history.at, count: this.history.count, changed: Date.now(), saved: false };
    this.storage.keep(this.kept);
    this.onCommit();
  }

  /** A document that becomes the present one. @param {string} label @param {Document} document */
  async commit(label, document) {
    if (document === this.document) return;
    await this.#show(document);
    this.history.add(label, document);
    this.#noted();
  }

  /** Do something when what was begun before is done. @template T @param {() => Promise<T>} act @returns {Promise<T>} */
  queue(act) {
    this.waiting++;
    const done = this.turn.then(act).finally(() => { this.waiting--; });
    this.turn = done.then(() => {}, () => {});
    return done;
  }

  /** @param {-1 | 1} by @returns {Promise<string | null>} what was undone, or done again */
  step(by) {
    return this.queue(async () => {
      this.cancel();
      const entry = await this.history.step(by);
      if (!entry) return null;
      await this.#show(entry.document);
      this.#noted();
      return entry.undone;
    });
  }

  /** What is kept and not undone. @param {Record<string, any>} by */
  set(by) {
    this.kept = { ...this.kept, settings: { ...this.kept.settings, ...by } };
    this.storage.keep(this.kept);
  }

  /** @param {Partial<Kept>} by */
  keep(by) {
    this.kept = { ...this.kept, ...by };
    this.storage.keep(this.kept);
    this.#tell("all");
  }

  /** Another active layer: not worth an undo of its own. @param {string} id */
  choose(id) {
    this.document = { ...this.document, active: id };
    this.#tell("all");
  }

  /** How a layer would look, without a commit. @param {string} id @param {Partial<Layer>} by */
  preview(id, by) {
    const before = this.document;
    this.document = documents.changed(before, id, by);
    this.#drawn();
    this.document = before;
  }

  redraw() {
    this.#drawn();
    this.#tell("all");
  }

  /** Look at a candidate, or at none. @param {Sheet | null} sheet */
  look(sheet) {
    this.shown = sheet;
    this.redraw();
  }

  // --- painting ---------------------------------------------------------------------------------

  /** Begin to paint on the active layer, or to take from it; null where it cannot be.
   * @param {"paint" | "erase"} how @returns {Work | null} */
  begin(how) {
    const layer = documents.layerOf(this.document);
    if (!layer || !layer.visible || this.work || this.waiting) return null;
    const part = how === "erase" && layer.mask ? "mask" : "pixels";
    const old = /** @type {Tiles} */ (layer[part]);
    const frame = this.document.frame;
    const where = layer.mask || holds(old, frame) ? old : join(old, frame);
    const before = this.at(old);
    const raster = crop(before, where);
    const coverage = blank(frame, 1);
    this.work = {
      layer: layer.id, raster, before: same(where, old) ? before : crop(before, where), old, part, coverage,
      dirty: { x: 0, y: 0, width: 0, height: 0 }, allowed: this.selection,
    };
    return this.work;
  }

  /** The coverage was changed there, and the raster with it. @param {Rect} where */
  touched(where) {
    if (!this.work) return;
    this.work.dirty = join(this.work.dirty, where);
    this.#drawn(where);
  }

  /** @param {string} label */
  end(label) {
    const work = this.work;
    if (!work) return;
    this.work = null;
    if (!work.dirty.width) return;
    const old = same(work.raster, work.old) ? work.old : null;
    const tiles = this.tiled(work.raster, old, old ? work.dirty : work.raster);
    this.document = documents.changed(this.document, work.layer, { [work.part]: tiles });
    this.#prune();
    this.history.add(label, this.document);
    this.#noted();
    this.#tell("all");
  }

  cancel() {
    if (!this.work) return;
    this.work = null;
    this.#drawn();
  }

  // --- selecting --------------------------------------------------------------------------------

  /** @param {string} label @param {Raster | null} selection */
  select(label, selection) {
    const none = !selection || masks.isEmpty(selection);
    if (none && !this.document.selection) return this.turn;
    const tiles = none ? null : this.tiled(crop(selection, this.document.frame));
    return this.queue(() => this.commit(label, { ...this.document, selection: tiles }));
  }

  /** What is to be drawn anew: what is selected, or new by expanding. @returns {Raster | null} */
  asked() {
    const { frame, known } = this.document;
    if (this.selection) return this.selection;
    return known ? masks.around(frame, known) : null;
  }

  // --- layers -----------------------------------------------------------------------------------

  /** A picture as a layer of its own. @param {string} name @param {Raster} raster @param {Raster | null} [mask] @param {string[]} [of] */
  place(name, raster, mask = null, of = []) {
    const pixels = this.tiled(raster), tiles = mask && this.tiled(mask);
    return this.queue(() => this.commit("place", documents.added(this.document, documents.made(name, pixels, tiles, of))));
  }

  /** @param {string} label @param {(document: Document) => Document} by */
  apply(label, by) {
    return this.queue(() => this.commit(label, by(this.document)));
  }

  /** The active layer and the one below as one. */
  mergeDown() {
    return this.queue(async () => {
      const { layers, active } = this.document;
      const at = layers.findIndex((layer) => layer.id === active);
      const upper = layers[at], lower = layers[at - 1];
      if (!upper || !lower || lower.mask) return;
      const where = join(lower.pixels, meet(upper.pixels, join(lower.pixels, this.document.frame)));
      const made = crop(this.at(lower.pixels), where);
      if (lower.opacity < 1) for (let i = 3; i < made.data.length; i += 4) made.data[i] *= lower.opacity;
      if (upper.visible) over(made, { pixels: this.at(upper.pixels), mask: upper.mask && this.at(upper.mask), opacity: upper.opacity });
      const pixels = this.tiled(made), of = [...new Set([...(lower.of ?? []), ...(upper.visible ? upper.of ?? [] : [])])];
      const fewer = documents.removed(this.document, upper.id);
      await this.commit("merge", { ...documents.changed(fewer, lower.id, { pixels, opacity: 1, of }), active: lower.id });
    });
  }

  /** What is selected of the active layer goes. */
  clear() {
    const work = this.begin("erase");
    if (!work) return;
    const where = this.selection ? masks.bounds(this.selection) : rect(this.document.frame);
    work.coverage.data.fill(255);
    erase(work.raster, work.before, work.coverage, 1, where, work.allowed);
    this.touched(where);
    this.end("clear");
  }
}
