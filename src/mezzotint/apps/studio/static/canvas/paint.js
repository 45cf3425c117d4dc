// @ts-check
/**
 * Painting: coverage first, colour after. A stroke, a shape or a fill gives a coverage of 0 to 255 a
 * pixel (a raster of one channel); `lay` puts a colour there, `erase` takes it away. So a stroke
 * that crosses itself is not darker there, and everything obeys the selection in one place.
 */

import { blank, inside, join, meet } from "./raster.js";

/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {{x: number, y: number, pressure: number}} Point in pixels; pressure 0 to 1 */
/** @typedef {{size: number, hardness: number}} Tip diameter in pixels; the share that is not soft */

/** Coverage of one dab, put over what is there by the larger of both; returns where.
 * @param {Raster} on @param {number} x @param {number} y @param {Tip} tip @returns {Rect} */
export function dab(on, x, y, tip) {
  const radius = Math.max(tip.size, 1) / 2;
  const reach = Math.ceil(radius + 1);
  const where = { x: Math.floor(x) - reach, y: Math.floor(y) - reach, width: 2 * reach + 1, height: 2 * reach + 1 };
  const common = meet(where, on);
  const soft = Math.max(radius * (1 - tip.hardness), 1); // at least a pixel: no stairs
  for (let j = common.y; j < common.y + common.height; j++) {
    for (let i = common.x; i < common.x + common.width; i++) {
      const far = Math.hypot(i + 0.5 - x, j + 0.5 - y);
      let t = (radius + 0.5 - far) / soft;
      if (t <= 0) continue;
      t = t >= 1 ? 1 : tip.hardness < 1 ? t * t * (3 - 2 * t) : t;
      const at = (j - on.y) * on.width + i - on.x;
      if (t * 255 > on.data[at]) on.data[at] = t * 255;
    }
  }
  return common;
}

/** A stretch of a stroke, dab by dab; returns where and how far beyond the last dab it has come.
 * @param {Raster} on @param {Point} from @param {Point} to @param {Tip} tip @param {number} carried */
export function stretch(on, from, to, tip, carried) {
  const length = Math.hypot(to.x - from.x, to.y - from.y);
  let where = { x: 0, y: 0, width: 0, height: 0 }, at = carried;
  for (; at <= length; ) {
    const share = length ? at / length : 0;
    const pressure = from.pressure + (to.pressure - from.pressure) * share;
    const size = Math.max(tip.size * pressure, 1);
    const touched = dab(on, from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, { ...tip, size });
    where = join(where, touched);
    at += Math.max(size * 0.12, 0.5);
  }
  return { where, carried: at - length };
}

/** The coverage of what a function says is inside: 4 by 4 points a pixel.
 * @param {Raster} on @param {Rect} where @param {(x: number, y: number) => boolean} has */
export function cover(on, where, has) {
  const common = meet(where, on);
  for (let j = common.y; j < common.y + common.height; j++) {
    for (let i = common.x; i < common.x + common.width; i++) {
      let hits = 0;
      for (let s = 0; s < 16; s++) if (has(i + ((s & 3) + 0.5) / 4, j + ((s >> 2) + 0.5) / 4)) hits++;
      const at = (j - on.y) * on.width + i - on.x;
      on.data[at] = Math.max(on.data[at], (hits * 255) / 16);
    }
  }
  return common;
}

/** Whether a point lies in a polygon, by the even-odd rule. @param {{x: number, y: number}[]} corners
 * @param {number} x @param {number} y */
export function within(corners, x, y) {
  let odd = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const a = corners[i], b = corners[j];
    if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) odd = !odd;
  }
  return odd;
}

/** @param {Rect} box exact edges, not whole pixels @param {"line"|"rectangle"|"ellipse"} kind
 * @param {{ax: number, ay: number, bx: number, by: number}} ends @param {number} width of the line; 0: filled
 * @returns {(x: number, y: number) => boolean} */
export function shape(kind, box, ends, width) {
  if (kind === "line") {
    const dx = ends.bx - ends.ax, dy = ends.by - ends.ay, square = dx * dx + dy * dy || 1;
    const half = Math.max(width, 1) / 2;
    return (x, y) => {
      const t = Math.min(Math.max(((x - ends.ax) * dx + (y - ends.ay) * dy) / square, 0), 1);
      return Math.hypot(x - ends.ax - t * dx, y - ends.ay - t * dy) <= half;
    };
  }
  const has = (/** @type {number} */ by) => {
    const a = box.width / 2 - by, b = box.height / 2 - by;
    const cx = box.x + box.width / 2, cy = box.y + box.height / 2;
    return (/** @type {number} */ x, /** @type {number} */ y) => {
      if (a <= 0 || b <= 0) return false;
      if (kind === "ellipse") return ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1;
      return Math.abs(x - cx) <= a && Math.abs(y - cy) <= b;
    };
  };
  const outer = has(0), hole = width ? has(width) : () => false;
  return (x, y) => outer(x, y) && !hole(x, y);
}

/** What is joined to a point and of about its colour. @param {Raster} of @param {number} x @param {number} y @param {number} tolerance 0 to 255
 * @returns {Raster} coverage, as large as the picture */
export function flood(of, x, y, tolerance) {
  const found = blank(of, 1);
  if (!inside(of, x, y)) return found;
  const { width, height, data } = of;
  const start = (Math.floor(y) - of.y) * width + Math.floor(x) - of.x;
  const [r, g, b, a] = data.slice(start * 4, start * 4 + 4);
  const like = (/** @type {number} */ p) => {
    const i = p * 4;
    if (!a && !data[i + 3]) return true; // what is not to be seen has no colour
    return Math.max(Math.abs(data[i] - r), Math.abs(data[i + 1] - g), Math.abs(data[i + 2] - b), Math.abs(data[i + 3] - a)) <= tolerance;
  };
  const stack = [start];
  while (stack.length) {
    const seed = /** @type {number} */ (stack.pop());
    if (found.data[seed] || !like(seed)) continue;
    const row = Math.floor(seed / width) * width;
    let left = seed, right = seed;
    while (left > row && !found.data[left - 1] && like(left - 1)) left--;
    while (right < row + width - 1 && !found.data[right + 1] && like(right + 1)) right++;
    for (let p = left; p <= right; p++) {
      found.data[p] = 255;
      if (p >= width && !found.data[p - width]) stack.push(p - width);
      if (p < width * (height - 1) && !found.data[p + width]) stack.push(p + width);
    }
  }
  return found;
}

/** Put a colour where a coverage is: over what is there.
 * @param {Raster} on @param {Raster} before what was there @param {Raster} coverage
 * @param {number[]} colour red, green, blue, 0 to 255 @param {number} opacity 0 to 1
 * @param {Rect} where @param {Raster | null} allowed the selection */
export function lay(on, before, coverage, colour, opacity, where, allowed) {
  each(on, coverage, where, allowed, (at, cover) => {
    const a = (cover / 255) * opacity, under = (before.data[at + 3] / 255) * (1 - a), whole = a + under;
    if (a === 0) {
      for (let c = 0; c < 4; c++) on.data[at + c] = before.data[at + c];
      return;
    }
    for (let c = 0; c < 3; c++) on.data[at + c] = (colour[c] * a + before.data[at + c] * under) / whole;
    on.data[at + 3] = whole * 255;
  });
}

/** Take away where a coverage is; of one channel too. Arguments as those of `lay`.
 * @param {Raster} on @param {Raster} before @param {Raster} coverage @param {number} opacity @param {Rect} where
 * @param {Raster | null} allowed */
export function erase(on, before, coverage, opacity, where, allowed) {
  const last = on.channels - 1;
  each(on, coverage, where, allowed, (at, cover) => {
    for (let c = 0; c < last; c++) on.data[at + c] = before.data[at + c];
    on.data[at + last] = before.data[at + last] * (1 - (cover / 255) * opacity);
  });
}

/** @param {Raster} on @param {Raster} coverage @param {Rect} where @param {Raster | null} allowed
 * @param {(at: number, cover: number) => void} act */
function each(on, coverage, where, allowed, act) {
  const common = meet(meet(where, on), coverage);
  for (let y = common.y; y < common.y + common.height; y++) {
    for (let x = common.x; x < common.x + common.width; x++) {
      let cover = coverage.data[(y - coverage.y) * coverage.width + x - coverage.x];
      if (allowed) cover = inside(allowed, x, y) ? (cover * allowed.data[(y - allowed.y) * allowed.width + x - allowed.x]) / 255 : 0;
      act(((y - on.y) * on.width + x - on.x) * on.channels, cover);
    }
  }
}
