// @ts-check
/**
 * A layer scaled, turned and mirrored. No DOM.
 *
 * A `Box` says where the pixels of a rectangle go: its middle, its size (negative: mirrored) and its
 * angle. Pixels are moved once, from how they were: turning on adds up in the box, not in the pixels.
 */

import { blank, resized } from "./raster.js";

/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {{x: number, y: number, width: number, height: number, angle: number}} Box x, y: its middle; angle: degrees, clockwise */

export const LEAST = 1;
export const MOST = 8192;
const RADIAN = Math.PI / 180;

/** @param {Rect} of @returns {Box} the box that leaves it as it is */
export const boxOf = (of) => ({ x: of.x + of.width / 2, y: of.y + of.height / 2, width: of.width, height: of.height, angle: 0 });

/** A point of a box, of which (-1, -1) is the corner at the top left and (1, 1) that at the bottom right.
 * @param {Box} box @param {number} across @param {number} down @returns {Point} */
export function pointOf(box, across, down) {
  const dx = (across * Math.abs(box.width)) / 2, dy = (down * Math.abs(box.height)) / 2;
  const { cos, sin } = turn(box.angle);
  return { x: box.x + dx * cos - dy * sin, y: box.y + dx * sin + dy * cos };
}

/** Exact at quarters of a turn. @param {number} angle degrees */
function turn(angle) {
  const quarter = ((((angle % 360) + 360) % 360) / 90);
  if (Number.isInteger(quarter)) return { cos: [1, 0, -1, 0][quarter] ?? 1, sin: [0, 1, 0, -1][quarter] ?? 0 };
  return { cos: Math.cos(angle * RADIAN), sin: Math.sin(angle * RADIAN) };
}

/** From -180 to 180. @param {number} angle */
export const wrapped = (angle) => ((((angle + 180) % 360) + 360) % 360) - 180;

/** A box whose handle is dragged to a point; what lies opposite stays where it is.
 * @param {Box} box @param {{across: number, down: number}} handle -1, 0 or 1 each @param {Point} to
 * @param {boolean} keep the proportions, at a corner @returns {Box} */
export function stretched(box, { across, down }, to, keep) {
  const { cos, sin } = turn(box.angle), fixed = pointOf(box, -across, -down);
  const dx = to.x - fixed.x, dy = to.y - fixed.y;
  const size = (/** @type {number} */ old, /** @type {number} */ side, /** @type {number} */ along) =>
    (side ? Math.min(Math.max(Math.round(along * side), LEAST), MOST) : Math.abs(old));
  let width = size(box.width, across, dx * cos + dy * sin), height = size(box.height, down, dy * cos - dx * sin);
  if (keep && across && down) {
    const by = Math.max(width / Math.abs(box.width), height / Math.abs(box.height));
    width = Math.min(Math.max(Math.round(Math.abs(box.width) * by), LEAST), MOST);
    height = Math.min(Math.max(Math.round(Math.abs(box.height) * by), LEAST), MOST);
  }
  const middle = pointOf({ x: fixed.x, y: fixed.y, width, height, angle: box.angle }, across, down);
  return { ...middle, width: Math.sign(box.width) * width, height: Math.sign(box.height) * height, angle: box.angle };
}

/** A box that is turned so that its top looks to a point. @param {Box} box @param {Point} to @param {number} step degrees
 * @returns {Box} */
export function turned(box, to, step) {
  const angle = Math.atan2(to.y - box.y, to.x - box.x) / RADIAN + 90;
  return { ...box, angle: wrapped(Math.round(angle / step) * step) };
}

/** Where a box goes when a rectangle is moved by whole pixels. @param {Box} box @param {number} dx @param {number} dy @returns {Box} */
export const shifted = (box, dx, dy) => ({ ...box, x: box.x + dx, y: box.y + dy });

/** The pixels in a rectangle, where a box puts them: exactly where nothing but whole pixels moves, else by area
 * when they become smaller, and between neighbours. @param {Raster} from @param {Box} box @returns {Raster} */
export function transformed(from, box) {
  const width = Math.max(Math.round(Math.abs(box.width)), LEAST), height = Math.max(Math.round(Math.abs(box.height)), LEAST);
  const sized = width === from.width && height === from.height ? from : resized(from, { x: 0, y: 0, width, height });
  const mirrored = flipped(sized, box.width < 0, box.height < 0);
  const quarter = wrapped(box.angle) / 90;
  const made = Number.isInteger(quarter) ? quartered(mirrored, (quarter + 4) % 4) : rotated(mirrored, box);
  if (!Number.isInteger(quarter)) return made;
  return { ...made, x: Math.round(box.x - made.width / 2), y: Math.round(box.y - made.height / 2) };
}

/** Pixels in another order. @param {Raster} from @param {number} width @param {number} height
 * @param {(x: number, y: number) => number} source which pixel goes there @returns {Raster} */
function reordered(from, width, height, source) {
  const made = blank({ x: from.x, y: from.y, width, height }, from.channels), n = from.channels;
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0; x < width; x++, to += n) {
      const at = source(x, y) * n;
      for (let c = 0; c < n; c++) made.data[to + c] = from.data[at + c];
    }
  return made;
}

/** @param {Raster} of @param {boolean} across @param {boolean} down @returns {Raster} */
function flipped(of, across, down) {
  if (!across && !down) return of;
  const { width, height } = of;
  return reordered(of, width, height, (x, y) => (down ? height - 1 - y : y) * width + (across ? width - 1 - x : x));
}

/** By quarters of a turn, clockwise. @param {Raster} of @param {number} quarters 0 to 3 @returns {Raster} */
function quartered(of, quarters) {
  const { width, height } = of;
  if (quarters === 0) return of;
  if (quarters === 2) return flipped(of, true, true);
  return quarters === 1
    ? reordered(of, height, width, (x, y) => (height - 1 - x) * width + y)
    : reordered(of, height, width, (x, y) => x * width + width - 1 - y);
}

/** Turned about the middle of a box; colours are weighed by their opacity. @param {Raster} of @param {Box} box @returns {Raster} */
function rotated(of, { x: cx, y: cy, angle }) {
  const { cos, sin } = turn(angle), { width, height, data, channels: n } = of;
  const reach = { x: (Math.abs(width * cos) + Math.abs(height * sin)) / 2, y: (Math.abs(width * sin) + Math.abs(height * cos)) / 2 };
  const left = Math.floor(cx - reach.x), top = Math.floor(cy - reach.y);
  const made = blank({ x: left, y: top, width: Math.ceil(cx + reach.x) - left, height: Math.ceil(cy + reach.y) - top }, n);
  for (let j = 0, to = 0; j < made.height; j++)
    for (let i = 0; i < made.width; i++, to += n) {
      const dx = left + i + 0.5 - cx, dy = top + j + 0.5 - cy;
      const u = dx * cos + dy * sin + width / 2 - 0.5, v = dy * cos - dx * sin + height / 2 - 0.5;
      const x = Math.floor(u), y = Math.floor(v);
      if (x < -1 || y < -1 || x >= width || y >= height) continue;
      const sum = [0, 0, 0, 0];
      for (let k = 0; k < 4; k++) {
        const px = x + (k & 1), py = y + (k >> 1);
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const at = (py * width + px) * n, weight = (k & 1 ? u - x : 1 - u + x) * (k >> 1 ? v - y : 1 - v + y);
        const share = n === 4 ? (weight * data[at + 3]) / 255 : weight;
        for (let c = 0; c < Math.min(n, 3); c++) sum[c] += data[at + c] * share;
        sum[3] += share;
      }
      if (sum[3] <= 0) continue;
      if (n === 1) made.data[to] = sum[0];
      else {
        for (let c = 0; c < 3; c++) made.data[to + c] = sum[c] / sum[3];
        made.data[to + 3] = sum[3] * 255;
      }
    }
  return made;
}
