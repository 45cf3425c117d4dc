// @ts-check
/** A canvas as a value: every change gives another document, and the old one stays as it was. */

import { inside, meet, rect } from "./raster.js";

/** @typedef {import("./raster.js").Rect} Rect @typedef {import("./tiles.js").Tiles} Tiles */
/**
 * @typedef {object} Layer
 * @property {string} id
 * @property {string} name
 * @property {boolean} visible
 * @property {number} opacity 0 to 1
 * @property {Tiles} pixels
 * @property {string[]} [of] the files, by their SHA-256, of which there is something in it
 * @property {Tiles | null} mask it takes the place of what is below where this is; none: it lies over it
 */
/**
 * @typedef {object} Document
 * @property {Rect} frame what is the picture
 * @property {Rect | null} known the part of it that was there before it was expanded
 * @property {Layer[]} layers the lowest first
 * @property {string | null} active
 * @property {Tiles | null} selection a coverage
 */

let count = 0;
export const newId = () => `${Date.now().toString(36)}-${(++count).toString(36)}-${Math.floor(Math.random() * 1e6).toString(36)}`;

/** @param {Rect} where @returns {Tiles} nothing at all, of four channels */
export const nothing = (where) => ({ ...rect(where), channels: 4, tiles: emptyTiles(where) });

/** @param {Rect} where */
function emptyTiles(where) {
  return new Array(Math.ceil(where.width / 128) * Math.ceil(where.height / 128)).fill("");
}

/** @param {number} width @param {number} height @returns {Document} with one empty layer */
export function created(width, height) {
  const frame = { x: 0, y: 0, width, height };
  const layer = made("Layer 1", nothing(frame));
  return { frame, known: null, layers: [layer], active: layer.id, selection: null };
}

/** @param {string} name @param {Tiles} pixels @param {Tiles | null} [mask] @param {string[]} [of] @returns {Layer} */
export const made = (name, pixels, mask = null, of = []) => ({ id: newId(), name, visible: true, opacity: 1, pixels, mask, of });

/** @param {Document} of @param {string | null} [id] @returns {Layer | null} */
export const layerOf = (of, id = of.active) => of.layers.find((layer) => layer.id === id) ?? null;

/** A layer above the active one, which it becomes. @param {Document} of @param {Layer} layer @returns {Document} */
export function added(of, layer) {
  const at = of.layers.findIndex((each) => each.id === of.active) + 1 || of.layers.length;
  return { ...of, layers: [...of.layers.slice(0, at), layer, ...of.layers.slice(at)], active: layer.id };
}

/** A layer above all. @param {Document} of @param {Layer} layer @returns {Document} */
export const onTop = (of, layer) => ({ ...of, layers: [...of.layers, layer], active: layer.id });

/** @param {Document} of @param {string} id @returns {Document} */
export function removed(of, id) {
  const at = of.layers.findIndex((layer) => layer.id === id);
  if (at < 0) return of;
  const layers = of.layers.filter((layer) => layer.id !== id);
  return { ...of, layers, active: of.active === id ? (layers[Math.max(at - 1, 0)]?.id ?? null) : of.active };
}

/** @param {Document} of @param {string} id @param {Partial<Layer>} by @returns {Document} */
export const changed = (of, id, by) => ({ ...of, layers: of.layers.map((layer) => (layer.id === id ? { ...layer, ...by } : layer)) });

/** @param {Document} of @param {string} id @param {number} by up or down so many @returns {Document} */
export function raised(of, id, by) {
  const at = of.layers.findIndex((layer) => layer.id === id);
  const to = Math.min(Math.max(at + by, 0), of.layers.length - 1);
  if (at < 0 || to === at) return of;
  const layers = of.layers.filter((_, i) => i !== at);
  layers.splice(to, 0, of.layers[at]);
  return { ...of, layers };
}

/** @param {Document} of @param {string} id @returns {Document} with a copy of it above */
export function doubled(of, id) {
  const layer = layerOf(of, id);
  return layer ? added({ ...of, active: id }, { ...layer, id: newId(), name: `${layer.name} copy` }) : of;
}

/** @param {Document} of @param {string} id @param {number} dx @param {number} dy whole pixels @returns {Document} */
export function moved(of, id, dx, dy) {
  const layer = layerOf(of, id);
  if (!layer) return of;
  const by = (/** @type {Tiles} */ tiles) => ({ ...tiles, x: tiles.x + dx, y: tiles.y + dy });
  return changed(of, id, { pixels: by(layer.pixels), mask: layer.mask && by(layer.mask) });
}

/** Another frame: the part of the old one in it is known, until what is new has been drawn.
 * @param {Document} of @param {Rect} frame @returns {Document} */
export function framed(of, frame) {
  const before = meet(of.known ?? of.frame, frame);
  const all = before.width === frame.width && before.height === frame.height;
  return { ...of, frame: rect(frame), known: all || !before.width ? null : before, selection: null };
}

/** What is added at the left, top, right and bottom. @param {Document} of */
export function sides(of) {
  const { frame, known } = of;
  if (!known) return null;
  return {
    left: known.x - frame.x,
    top: known.y - frame.y,
    right: frame.x + frame.width - known.x - known.width,
    bottom: frame.y + frame.height - known.y - known.height,
  };
}

/** The highest visible layer that is painted at a point. @param {Document} of @param {number} x @param {number} y
 * @param {(tiles: Tiles, x: number, y: number) => number} alpha 0 to 255 @returns {Layer | null} */
export function hit(of, x, y, alpha) {
  for (const layer of [...of.layers].reverse()) {
    if (!layer.visible || !layer.opacity || !inside(layer.pixels, x, y)) continue;
    if (layer.mask && (!inside(layer.mask, x, y) || alpha(layer.mask, x, y) < 8)) continue;
    if (alpha(layer.pixels, x, y) >= 8) return layer;
  }
  return null;
}

/** The files of which there is something to be seen. @param {Document} of @returns {string[]} */
export const parts = (of) =>
  [...new Set(of.layers.filter((layer) => layer.visible && layer.opacity > 0).flatMap((layer) => layer.of ?? []))];

/** All tiles that a document names. @param {Document} of @returns {string[]} */
export function named(of) {
  const all = [of.selection, ...of.layers.flatMap((layer) => [layer.pixels, layer.mask])];
  return all.flatMap((tiles) => tiles?.tiles ?? []).filter(Boolean);
}
