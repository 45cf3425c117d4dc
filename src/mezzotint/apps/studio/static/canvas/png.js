// @ts-check
/**
 * PNG, exactly: a browser's canvas multiplies colours by their opacity and so loses bits of what is
 * transparent. This writes 8-bit RGBA and grey, and reads 8-bit pictures that are not interlaced.
 */

/** @typedef {import("./raster.js").Raster} Raster */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** @param {Uint8Array} bytes */
function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** @param {Uint8Array} bytes @param {GenericTransformStream} through */
export async function piped(bytes, through) {
  const stream = new Blob([/** @type {BlobPart} */ (bytes)]).stream().pipeThrough(/** @type {any} */ (through));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {string} name @param {Uint8Array} body */
function chunk(name, body) {
  const made = new Uint8Array(body.length + 12), view = new DataView(made.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) made[4 + i] = name.charCodeAt(i);
  made.set(body, 8);
  view.setUint32(body.length + 8, crc(made.subarray(4, body.length + 8)));
  return made;
}

/** @param {Raster} of @returns {Promise<Blob>} */
export async function encode(of) {
  const { width, height, channels, data } = of, line = width * channels;
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, channels === 4 ? 6 : 0, 0, 0, 0], 8);
  const raw = new Uint8Array((line + 1) * height);
  for (let y = 0; y < height; y++) {
    const to = y * (line + 1) + 1, from = y * line;
    raw[to - 1] = y ? 2 : 0; // the difference to the line above, which packs best of the simple ones
    for (let i = 0; i < line; i++) raw[to + i] = data[from + i] - (y ? data[from + i - line] : 0);
  }
  const packed = await piped(raw, new CompressionStream("deflate"));
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", head), chunk("IDAT", packed), chunk("IEND", new Uint8Array())];
  return new Blob(/** @type {BlobPart[]} */ (parts), { type: "image/png" });
}

/** A picture, or null where it is not of a kind that this reads. @param {Uint8Array} bytes
 * @param {1 | 4} [channels] of what is wanted @returns {Promise<Raster | null>} */
export async function decode(bytes, channels = 4) {
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = view.getUint32(16), height = view.getUint32(20);
  const n = { 0: 1, 2: 3, 6: 4 }[bytes[25]];
  if (bytes[24] !== 8 || !n || bytes[28]) return null;
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const size = view.getUint32(at), name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "tRNS") return null;
    if (name === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + size));
    at += size + 12;
  }
  const packed = new Uint8Array(await new Blob(/** @type {BlobPart[]} */ (parts)).arrayBuffer());
  const raw = await piped(packed, new DecompressionStream("deflate"));
  if (raw.length < (width * n + 1) * height) return null;
  unfilter(raw, width * n, height, n);
  const data = new Uint8ClampedArray(width * height * channels);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, from = y * (width * n + 1) + 1; x < width; x++, from += n) {
      if (channels === 1) data[to++] = raw[from];
      else {
        for (let c = 0; c < 3; c++) data[to++] = raw[from + (n === 1 ? 0 : c)];
        data[to++] = n === 4 ? raw[from + 3] : 255;
      }
    }
  }
  return { x: 0, y: 0, width, height, channels, data };
}

/** @param {Uint8Array} raw @param {number} line @param {number} height @param {number} n bytes a pixel */
function unfilter(raw, line, height, n) {
  for (let y = 0; y < height; y++) {
    const start = y * (line + 1) + 1, kind = raw[start - 1];
    for (let i = 0; i < line; i++) {
      const at = start + i, left = i >= n ? raw[at - n] : 0, up = y ? raw[at - line - 1] : 0;
      const corner = i >= n && y ? raw[at - line - 1 - n] : 0;
      if (kind === 1) raw[at] += left;
      else if (kind === 2) raw[at] += up;
      else if (kind === 3) raw[at] += (left + up) >> 1;
      else if (kind === 4) {
        const p = left + up - corner, a = Math.abs(p - left), b = Math.abs(p - up), c = Math.abs(p - corner);
        raw[at] += a <= b && a <= c ? left : b <= c ? up : corner;
      }
    }
  }
}
