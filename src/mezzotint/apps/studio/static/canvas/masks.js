// @ts-check
/** Selections: coverages (rasters of one channel) that are combined, softened and drawn around. */

import { blank, content, copy, crop, meet, rect } from "./raster.js";

/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {"new" | "add" | "take" | "both"} How a selection meets the one before */

/** @param {Raster | null} old @param {Raster} now @param {How} how @returns {Raster} of the size of `now` */
export function combine(old, now, how) {
  if (!old || how === "new") return how === "take" || how === "both" ? blank(now, 1) : now;
  const made = crop(old, now);
  for (let i = 0; i < made.data.length; i++) {
    const a = made.data[i], b = now.data[i];
    made.data[i] = how === "add" ? Math.max(a, b) : how === "take" ? Math.min(a, 255 - b) : Math.min(a, b);
  }
  return made;
}

/** @param {Raster} of @returns {Raster} what is not selected */
export function inverted(of) {
  return { ...of, data: of.data.map((value) => 255 - value) };
}

/** Everything in a rectangle. @param {Rect} where @returns {Raster} */
export function all(where) {
  const made = blank(where, 1);
  made.data.fill(255);
  return made;
}

/** @param {Raster} of */
export const isEmpty = (of) => !of.data.some((value) => value > 0);

/** @param {Raster} of @returns {Rect} */
export const bounds = content;

/**
 * A soft edge that lies inside the selection, as wide as asked: 0 at the edge and whole `by` pixels
 * within. So nothing beyond what was selected changes. The distance is the chamfer (3, 4) / 3 one.
 * The picture's own border is no edge.
 * @param {Raster} of @param {number} by @returns {Raster}
 */
export function feathered(of, by) {
  if (by <= 0) return of;
  const { width, height } = of, far = new Float32Array(width * height);
  for (let i = 0; i < far.length; i++) far[i] = of.data[i] ? 1e9 : 0;
  const near = (/** @type {number} */ i, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ dx, /** @type {number} */ dy) => {
    if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) return;
    const through = far[i + dy * width + dx] + (dx && dy ? 4 / 3 : 1);
    if (through < far[i]) far[i] = through;
  };
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) for (const [dx, dy] of [[-1, 0], [-1, -1], [0, -1], [1, -1]]) near(i, x, y, dx, dy);
  for (let y = height - 1, i = far.length - 1; y >= 0; y--)
    for (let x = width - 1; x >= 0; x--, i--) for (const [dx, dy] of [[1, 0], [1, 1], [0, 1], [-1, 1]]) near(i, x, y, dx, dy);
  const made = blank(of, 1);
  for (let i = 0; i < far.length; i++) {
    if (!of.data[i]) continue;
    const t = Math.min(far[i] / (by + 1), 1);
    made.data[i] = Math.max(1, of.data[i] * t * t * (3 - 2 * t));
  }
  return made;
}

/** White wherever there is any of it: what the model is to draw anew. @param {Raster} of @returns {Raster} */
export function hard(of) {
  return { ...of, data: of.data.map((value) => (value ? 255 : 0)) };
}

/** The frame without what was there before it grew. @param {Rect} frame @param {Rect} known @returns {Raster} */
export function around(frame, known) {
  const made = all(frame);
  return copy(blank(meet(known, frame), 1), made);
}

/** Its edge as line segments between pixels: x, y, x, y …, joined along rows and columns.
 * @param {Raster} of @returns {number[]} */
export function outline(of) {
  const { width, height, data } = of, on = (/** @type {number} */ x, /** @type {number} */ y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] > 127;
  /** @type {number[]} */
  const found = [];
  for (let y = 0; y <= height; y++)
    for (let x = 0, from = -1; x <= width; x++) {
      const edge = x < width && on(x, y) !== on(x, y - 1);
      if (edge && from < 0) from = x;
      if (!edge && from >= 0) found.push(of.x + from, of.y + y, of.x + x, of.y + y), (from = -1);
    }
  for (let x = 0; x <= width; x++)
    for (let y = 0, from = -1; y <= height; y++) {
      const edge = y < height && on(x, y) !== on(x - 1, y);
      if (edge && from < 0) from = y;
      if (!edge && from >= 0) found.push(of.x + x, of.y + from, of.x + x, of.y + y), (from = -1);
    }
  return found;
}

/** As an opaque grey picture. @param {Raster} of @returns {Raster} */
export const grey = (of) => ({ ...rect(of), channels: 1, data: of.data });
