// @ts-check
/** Files as pixels: exactly where it can be, by the browser where it must be. */

import { decode } from "./png.js";

/** @typedef {import("./raster.js").Raster} Raster */

/** @param {Blob} file @param {1 | 4} [channels] @returns {Promise<Raster>} at 0, 0 */
export async function picture(file, channels = 4) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const exact = await decode(bytes, channels).catch(() => null);
  if (exact) return exact;
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(width, height).getContext("2d"));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  if (channels === 4) return { x: 0, y: 0, width, height, channels, data: new Uint8ClampedArray(data) };
  return { x: 0, y: 0, width, height, channels, data: data.filter((_, i) => i % 4 === 0) };
}
