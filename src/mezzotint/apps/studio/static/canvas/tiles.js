// @ts-check
/**
 * Rasters as tiles that never change: a version of a layer names its tiles, and two versions share
 * those in which they are equal. So history costs what was painted, and undo is exact.
 */

import { blank, copy, crop, meet, rect } from "./raster.js";

/** @typedef {import("./raster.js").Raster} Raster @typedef {import("./raster.js").Rect} Rect */
/** @typedef {Rect & {channels: 1 | 4, tiles: string[]}} Tiles row by row; "" is an empty tile */
/** @typedef {{read: (name: string) => Promise<Uint8ClampedArray>, write: (name: string, data: Uint8ClampedArray) => void}} Backing */

export const EDGE = 128;

/** Where each tile of a raster lies. @param {Rect} of @returns {Rect[]} */
export function places(of) {
  const found = [];
  for (let y = of.y; y < of.y + of.height; y += EDGE)
    for (let x = of.x; x < of.x + of.width; x += EDGE) found.push(meet({ x, y, width: EDGE, height: EDGE }, of));
  return found;
}

/** The tiles of a raster; those that `dirty` does not touch are those of `old`, which lies as it does.
 * @param {Raster} raster @param {TileStore} store @param {Tiles | null} [old] @param {Rect} [dirty] @returns {Tiles} */
export function split(raster, store, old = null, dirty = raster) {
  const tiles = places(raster).map((place, i) => {
    if (old && !meet(place, dirty).width) return old.tiles[i];
    return store.put(crop(raster, place).data);
  });
  return { ...rect(raster), channels: raster.channels, tiles };
}

/** @param {Tiles} of @param {TileStore} store @returns {Promise<Raster>} */
export async function assembled(of, store) {
  const made = blank(of, of.channels);
  await Promise.all(places(of).map(async (place, i) => {
    if (of.tiles[i]) copy({ ...place, channels: of.channels, data: await store.get(of.tiles[i]) }, made);
  }));
  return made;
}

const name = () => Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Tiles by their names: the last used ones in memory, all of them in what lies behind. */
export class TileStore {
  /** @param {Backing} backing @param {number} [most] bytes in memory */
  constructor(backing, most = 96 << 20) {
    this.backing = backing;
    this.most = most;
    this.bytes = 0;
    /** @type {Map<string, Uint8ClampedArray>} the last used last */
    this.held = new Map();
  }

  /** @param {Uint8ClampedArray} data @returns {string} */
  put(data) {
    if (!data.some((value) => value)) return "";
    const made = name();
    this.backing.write(made, data);
    this.#hold(made, data);
    return made;
  }

  /** @param {string} name @returns {Promise<Uint8ClampedArray>} */
  async get(name) {
    const data = this.held.get(name) ?? (await this.backing.read(name));
    this.#hold(name, data);
    return data;
  }

  /** @param {string} name @param {Uint8ClampedArray} data */
  #hold(name, data) {
    if (this.held.delete(name)) this.bytes -= data.length;
    this.held.set(name, data);
    this.bytes += data.length;
    for (const [oldest, bytes] of this.held) {
      if (this.bytes <= this.most || oldest === name) break;
      this.held.delete(oldest);
      this.bytes -= bytes.length;
    }
  }
}
