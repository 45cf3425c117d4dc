// @ts-check
/** The canvas on the screen: where the picture lies, and how it is drawn there. */

import { outline } from "./masks.js";
import { rect, same } from "./raster.js";

/** @typedef {import("./raster.js").Rect} Rect @typedef {import("./editor.js").Editor} Editor */
/** @typedef {{x: number, y: number}} Spot */

const LEAST = 0.05, MOST = 64;

/** Draws an editor on a `<canvas>`; x and y of the picture are `(x - left) * zoom` on the screen. */
export class View {
  /** @param {HTMLCanvasElement} canvas @param {Editor} editor */
  constructor(canvas, editor) {
    this.canvas = canvas;
    this.editor = editor;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.left = 0;
    this.top = 0;
    this.zoom = 1;
    this.surface = new OffscreenCanvas(1, 1);
    this.veil = new OffscreenCanvas(1, 1);
    /** @type {Path2D | null} */
    this.edge = null;
    /** @type {import("./raster.js").Raster | null} */
    this.edged = null;
    /** What a tool draws over it. @type {((context: CanvasRenderingContext2D, view: View) => void) | null} */
    this.over = null;
    /** The keys as a pointer. @type {{nudge: (dx: number, dy: number) => import("./tools.js").Point, press: (keys: {shiftKey: boolean, altKey: boolean}) => void,
     *   cancel: () => boolean} | null} */
    this.pointer = null;
    this.frame = rect(editor.document.frame);
    this.asked = 0;
    this.dash = 0;
    this.fitted = true; // until one zooms oneself
    this.stop = editor.listen((what, where) => {
      if (what === "pixels") this.#put(where);
      this.draw();
    });
    this.watch = new ResizeObserver(() => {
      if (this.fitted) this.fit();
      else this.draw();
    });
    this.watch.observe(canvas);
    this.#put(editor.document.frame);
    this.fit();
    this.walk = setInterval(() => {
      if (!this.edge || document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      this.dash = (this.dash + 1) % 8;
      this.draw();
    }, 120);
  }

  close() {
    this.stop();
    this.watch.disconnect();
    clearInterval(this.walk);
    cancelAnimationFrame(this.asked);
  }

  /** Pixels of the picture to the surface that is drawn. @param {Rect} where */
  #put(where) {
    const { picture } = this.editor;
    if (this.surface.width !== picture.width || this.surface.height !== picture.height) {
      this.surface = new OffscreenCanvas(picture.width, picture.height);
      where = picture;
    }
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (this.surface.getContext("2d"));
    const data = new ImageData(/** @type {any} */ (picture.data), picture.width, picture.height);
    context.putImageData(data, 0, 0, where.x - picture.x, where.y - picture.y, where.width, where.height);
  }

  get size() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return { width, height };
  }

  /** A point of the screen in the picture. @param {{clientX: number, clientY: number}} event @returns {Spot} */
  spot(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / this.zoom + this.left, y: (event.clientY - box.top) / this.zoom + this.top };
  }

  /** @param {number} x @param {number} y @returns {Spot} on the canvas element */
  on(x, y) {
    return { x: (x - this.left) * this.zoom, y: (y - this.top) * this.zoom };
  }

  /** Pan until a point of the picture is seen. @param {Spot} point */
  reach(point) {
    const at = this.on(point.x, point.y), { width, height } = this.size, edge = 24;
    const beyond = (/** @type {number} */ value, /** @type {number} */ size) => (value < edge ? edge - value : value > size - edge ? size - edge - value : 0);
    const dx = beyond(at.x, width), dy = beyond(at.y, height);
    if (dx || dy) this.pan(dx, dy);
  }

  /** All of the picture, in the middle. */
  fit() {
    const { width, height } = this.size, { frame } = this.editor.document;
    if (!width || !height) return;
    const room = width < 500 ? 24 : 72;
    const zoom = Math.min((width - room) / frame.width, (height - room) / frame.height);
    this.zoom = Math.min(Math.max(zoom > 2 ? Math.floor(zoom) : zoom, LEAST), MOST);
    this.left = frame.x + frame.width / 2 - width / 2 / this.zoom;
    this.top = frame.y + frame.height / 2 - height / 2 / this.zoom;
    this.fitted = true;
    this.draw();
  }

  /** Nearer or farther, with a point of the element staying where it is. @param {number} by @param {Spot} [at] */
  closer(by, at = { x: this.size.width / 2, y: this.size.height / 2 }) {
    const x = at.x / this.zoom + this.left, y = at.y / this.zoom + this.top;
    this.zoom = Math.min(Math.max(this.zoom * by, LEAST), MOST);
    this.left = x - at.x / this.zoom;
    this.top = y - at.y / this.zoom;
    this.fitted = false;
    this.draw();
  }

  /** @param {number} dx @param {number} dy on the screen */
  pan(dx, dy) {
    this.left -= dx / this.zoom;
    this.top -= dy / this.zoom;
    this.fitted = false;
    this.draw();
  }

  draw() {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.#draw();
    });
  }

  #draw() {
    const { canvas, context, editor } = this, { width, height } = this.size;
    const dense = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
    }
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const { frame, known } = editor.document;
    if (!same(frame, this.frame)) {
      this.frame = rect(frame);
      if (this.fitted && !this.over) this.fit();
    }
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    const at = this.on(frame.x, frame.y), w = frame.width * this.zoom, h = frame.height * this.zoom;
    this.#board(at, w, h, colour("--raised"), colour("--check"));
    context.imageSmoothingEnabled = this.zoom < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.surface, at.x, at.y, w, h);
    if (known && !editor.shown) this.#around(known, at, w, h, colour("--accent"));
    this.#selected(at, w, h, colour("--accent"));
    context.lineWidth = 1;
    context.strokeStyle = colour("--strong");
    context.strokeRect(at.x - 0.5, at.y - 0.5, w + 1, h + 1);
    this.over?.(context, this);
  }

  /** What shows that there is nothing. */
  #board(/** @type {Spot} */ at, /** @type {number} */ w, /** @type {number} */ h, /** @type {string} */ light, /** @type {string} */ dark) {
    const { context } = this, edge = 8;
    context.save();
    context.beginPath();
    context.rect(at.x, at.y, w, h);
    context.clip();
    context.fillStyle = light;
    context.fillRect(at.x, at.y, w, h);
    context.fillStyle = dark;
    const size = this.size;
    const from = { x: Math.max(Math.floor(-at.x / edge), 0), y: Math.max(Math.floor(-at.y / edge), 0) };
    for (let j = from.y; j * edge < Math.min(h, size.height - at.y); j++)
      for (let i = from.x + ((from.x + j) & 1); i * edge < Math.min(w, size.width - at.x); i += 2)
        context.fillRect(at.x + i * edge, at.y + j * edge, edge, edge);
    context.restore();
  }

  /** What is new by expanding. */
  #around(/** @type {Rect} */ known, /** @type {Spot} */ at, /** @type {number} */ w, /** @type {number} */ h, /** @type {string} */ colour) {
    const { context } = this, inner = this.on(known.x, known.y);
    context.save();
    context.fillStyle = colour;
    context.globalAlpha = 0.16;
    context.beginPath();
    context.rect(at.x, at.y, w, h);
    context.rect(inner.x, inner.y, known.width * this.zoom, known.height * this.zoom);
    context.fill("evenodd");
    context.restore();
  }

  /** The selection, tinted, with a line that walks. */
  #selected(/** @type {Spot} */ at, /** @type {number} */ w, /** @type {number} */ h, /** @type {string} */ colour) {
    const { context, editor } = this, { selection } = editor;
    if (selection !== this.edged) this.#trace(selection, colour);
    if (!selection || !this.edge) return;
    const where = this.on(selection.x, selection.y);
    context.save();
    context.globalAlpha = editor.shown ? 0 : 0.3; // what came back is seen as it is
    context.imageSmoothingEnabled = false;
    context.drawImage(this.veil, where.x, where.y, selection.width * this.zoom, selection.height * this.zoom);
    context.globalAlpha = 1;
    context.translate(-this.left * this.zoom, -this.top * this.zoom);
    context.scale(this.zoom, this.zoom);
    for (const [stroke, offset] of /** @type {const} */ ([["#fff", 0], ["#000", 4]])) {
      context.lineWidth = 1.4 / this.zoom;
      context.setLineDash([4 / this.zoom, 4 / this.zoom]);
      context.lineDashOffset = (offset - this.dash) / this.zoom;
      context.strokeStyle = stroke;
      context.stroke(this.edge);
    }
    context.restore();
  }

  /** @param {import("./raster.js").Raster | null} selection @param {string} colour */
  #trace(selection, colour) {
    this.edged = selection;
    this.edge = null;
    if (!selection) return;
    this.veil = new OffscreenCanvas(selection.width, selection.height);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (this.veil.getContext("2d"));
    const data = new ImageData(selection.width, selection.height);
    for (let i = 0; i < selection.data.length; i++) data.data[i * 4 + 3] = selection.data[i];
    context.putImageData(data, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = colour;
    context.fillRect(0, 0, selection.width, selection.height);
    this.edge = new Path2D();
    const lines = outline(selection);
    for (let i = 0; i < lines.length; i += 4) {
      this.edge.moveTo(lines[i], lines[i + 1]);
      this.edge.lineTo(lines[i + 2], lines[i + 3]);
    }
  }
}
