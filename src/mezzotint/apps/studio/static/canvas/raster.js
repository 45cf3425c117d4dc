// @ts-check
/**
 * Rectangles and pixels. No DOM: everything here runs in node too.
 *
 * Colours are 8 bits a channel and not premultiplied, as in a PNG: what is not painted on keeps its
 * bytes, whatever its opacity.
 *
 * @typedef {{x: number, y: number, width: number, height: number}} Rect
 * @typedef {Rect & {channels: 1 | 4, data: Uint8ClampedArray}} Raster
 */

/** @param {Rect} a @param {Rect} b @returns {Rect} what lies in both; 0 by 0 for nothing */
export function meet(a, b) {
  const x = Math.max(a.x, b.x), y = Math.max(a.y, b.y);
  const width = Math.min(a.x + a.width, b.x + b.width) - x;
  const height = Math.min(a.y + a.height, b.y + b.height) - y;
  return width > 0 && height > 0 ? { x, y, width, height } : { x, y, width: 0, height: 0 };
}

/** @param {Rect} a @param {Rect} b @returns {Rect} the smallest around both; an empty one counts not */
export function join(a, b) {
  if (!a.width || !a.height) return rect(b);
  if (!b.width || !b.height) return rect(a);
  const x = Math.min(a.x, b.x), y = Math.min(a.y, b.y);
  const width = Math.max(a.x + a.width, b.x + b.width) - x;
  return { x, y, width, height: Math.max(a.y + a.height, b.y + b.height) - y };
}

/** @param {Rect} a @returns {Rect} */
export const rect = (a) => ({ x: a.x, y: a.y, width: a.width, height: a.height });

/** @param {Rect} a @param {Rect} b */
export const same = (a, b) =>
  a.x === b.x && a.y === b.y && a.width === b.width && a.height === b.height;

/** @param {Rect} a @param {number} x @param {number} y */
export const inside = (a, x, y) => x >= a.x && y >= a.y && x < a.x + a.width && y < a.y + a.height;

/** @param {Rect} outer @param {Rect} inner */
export const holds = (outer, inner) => same(meet(outer, inner), rect(inner));

/** An empty raster. @param {Rect} where @param {1 | 4} [channels] @returns {Raster} */
export function blank(where, channels = 4) {
  const data = new Uint8ClampedArray(where.width * where.height * channels);
  return { ...rect(where), channels, data };
}

/** Copy what two rasters have in common from one to the other. @param {Raster} from @param {Raster} to */
export function copy(from, to) {
  const common = meet(from, to), n = from.channels;
  for (let y = common.y; y < common.y + common.height; y++) {
    const start = ((y - from.y) * from.width + common.x - from.x) * n;
    const row = from.data.subarray(start, start + common.width * n);
    to.data.set(row, ((y - to.y) * to.width + common.x - to.x) * n);
  }
  return to;
}

/** A part of a raster, or more than it: empty there. @param {Raster} from @param {Rect} where */
export const crop = (from, where) => copy(from, blank(where, from.channels));

/** @param {Raster} a @param {Raster} b */
export function equal(a, b) {
  if (!same(a, b) || a.channels !== b.channels) return false;
  return a.data.every((value, i) => value === b.data[i]);
}

/** Where a raster is not empty. @param {Raster} of @returns {Rect} */
export function content(of) {
  const { width, height, channels, data } = of;
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0, i = channels - 1; y < height; y++) {
    for (let x = 0; x < width; x++, i += channels) {
      if (!data[i]) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  }
  if (right < 0) return { x: of.x, y: of.y, width: 0, height: 0 };
  return { x: of.x + left, y: of.y + top, width: right - left + 1, height: bottom - top + 1 };
}

/** A picture at another size: the mean of what falls on a pixel, or its neighbours between.
 * @param {Raster} from @param {Rect} to @returns {Raster} */
export function resized(from, to) {
  const made = blank(to, from.channels), n = from.channels;
  const across = from.width / to.width, down = from.height / to.height;
  const columns = spread(from.width, to.width, across), rows = spread(from.height, to.height, down);
  for (let y = 0; y < to.height; y++) {
    for (let x = 0; x < to.width; x++) {
      const sum = [0, 0, 0, 0];
      let whole = 0;
      for (const [j, wy] of rows[y]) {
        for (const [i, wx] of columns[x]) {
          const at = (j * from.width + i) * n, weight = wx * wy;
          const alpha = n === 4 ? from.data[at + 3] * weight : weight;
          for (let c = 0; c < Math.min(n, 3); c++) sum[c] += from.data[at + c] * alpha;
          sum[3] += alpha;
          whole += weight;
        }
      }
      const at = (y * to.width + x) * n;
      if (!sum[3]) continue;
      for (let c = 0; c < Math.min(n, 3); c++) made.data[at + c] = sum[c] / sum[3];
      if (n === 4) made.data[at + 3] = sum[3] / whole;
    }
  }
  return made;
}

/** For each new pixel of an edge the old ones with their weights: area when smaller, else linear.
 * @param {number} old @param {number} now @param {number} factor */
function spread(old, now, factor) {
  return Array.from({ length: now }, (_, x) => {
    const middle = (x + 0.5) * factor - 0.5, reach = Math.max(factor, 1);
    /** @type {[number, number][]} */
    const found = [];
    for (let i = Math.ceil(middle - reach); i <= middle + reach; i++) {
      const weight = 1 - Math.abs(i - middle) / reach;
      if (weight > 1e-9) found.push([Math.min(Math.max(i, 0), old - 1), weight]);
    }
    return found;
  });
}
