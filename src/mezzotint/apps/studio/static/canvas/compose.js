// @ts-check
/**
 * Layers, one over the other. Of premultiplied colours, with the coverage m of a layer's mask (or its
 * alpha, without one) times its opacity: out = below * (1 - m) + layer * m. A layer with a mask takes
 * the place of what is below it, so something transparent can be drawn over something that is not.
 */

import { blank, meet } from "./raster.js";

/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {{pixels: Raster, mask: Raster | null, opacity: number}} Sheet */

/** Lay a sheet over a picture, in place. @param {Raster} on @param {Sheet} sheet @param {Rect} [where] */
export function over(on, { pixels, mask, opacity }, where = on) {
  const common = meet(meet(where, on), mask ? meet(mask, pixels) : pixels);
  const to = on.data, from = pixels.data;
  for (let y = common.y; y < common.y + common.height; y++) {
    let i = ((y - on.y) * on.width + common.x - on.x) * 4;
    let j = ((y - pixels.y) * pixels.width + common.x - pixels.x) * 4;
    let k = mask ? (y - mask.y) * mask.width + common.x - mask.x : 0;
    for (let x = 0; x < common.width; x++, i += 4, j += 4, k++) {
      const alpha = from[j + 3] / 255;
      const m = (mask ? mask.data[k] / 255 : 1) * opacity, share = alpha * m;
      const below = (to[i + 3] / 255) * (1 - (mask ? m : share));
      const whole = share + below;
      if (m === 0 || (!mask && share === 0)) continue; // exactly what was there
      if (whole > 0) {
        for (let c = 0; c < 3; c++) to[i + c] = (from[j + c] * share + to[i + c] * below) / whole;
      }
      to[i + 3] = whole * 255;
    }
  }
  return on;
}

/** The picture of a frame. @param {Rect} frame @param {Sheet[]} sheets the lowest first @returns {Raster} */
export function flatten(frame, sheets) {
  const made = blank(frame);
  for (const sheet of sheets) over(made, sheet);
  return made;
}
