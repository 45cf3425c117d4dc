// @ts-check
/**
 * The tools, as a table. A tool is told of a drag: where it began, where it is, and that it ended;
 * `Hand` turns pointer events into that, with pinching and panning, for mouse, pen and fingers.
 */

import * as documents from "./document.js";
import * as masks from "./masks.js";
import { cover, dab, erase, flood, lay, shape, stretch, within } from "./paint.js";
import { blank, inside, join, rect } from "./raster.js";
import { drag as turning, handleAt } from "./turning.js";

/** @typedef {import("./editor.js").Editor} Editor @typedef {import("./view.js").View} View */
/** @typedef {import("./raster.js").Rect} Rect @typedef {import("./raster.js").Raster} Raster */
/**
 * @typedef {object} Options what the user has set
 * @property {string} colour #rrggbb
 * @property {number} size
 * @property {number} hardness 0 to 1
 * @property {number} opacity 0 to 1
 * @property {boolean} pressure whether it acts on the size
 * @property {number} tolerance of a fill, 0 to 255
 * @property {"line" | "rectangle" | "ellipse"} shape
 * @property {number} line width of a shape's line; 0: filled
 * @property {import("./masks.js").How} how selections meet
 * @property {string} text
 * @property {number} letters height of letters
 */
/** @typedef {{x: number, y: number, pressure: number}} Point */
/** @typedef {{editor: Editor, view: View, options: Options, shift: boolean, alt: boolean, from: Point, choose: (by: Partial<Options>) => void}} Drag */
/** @typedef {{move?: (to: Point) => void, end?: (to: Point) => void, cancel?: () => void, over?: (context: CanvasRenderingContext2D) => void}} Act */
/** @typedef {{name: string, title: string, key: string, icon: string, cursor: string, begin: (drag: Drag) => Act | null}} Tool */

/** @param {string} colour #rrggbb @returns {number[]} */
export const numbers = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

/** @param {number[]} rgb */
export const hex = (rgb) => `#${rgb.slice(0, 3).map((value) => value.toString(16).padStart(2, "0")).join("")}`;

/** @param {Drag} drag @param {"paint" | "erase"} how @returns {Act | null} */
function stroke({ editor, options, from, shift }, how) {
  const work = editor.begin(how);
  if (!work) return null;
  const tip = { size: options.size, hardness: options.hardness }, colour = numbers(options.colour);
  let last = bent(from, options), carried = 0;
  const act = (/** @type {Rect} */ where) => {
    if (!where.width) return;
    if (how === "paint") lay(work.raster, work.before, work.coverage, colour, options.opacity, where, work.allowed);
    else erase(work.raster, work.before, work.coverage, options.opacity, where, work.allowed);
    editor.touched(where);
  };
  act(dab(work.coverage, last.x, last.y, { ...tip, size: Math.max(tip.size * last.pressure, 1) }));
  return {
    move(to) {
      const next = bent(shift ? straight(from, to) : to, options);
      const { where, carried: left } = stretch(work.coverage, last, next, tip, carried);
      [last, carried] = [next, left];
      act(where);
    },
    end: () => editor.end(how === "paint" ? "brush" : "eraser"),
    cancel: () => editor.cancel(),
  };
}

/** @param {Point} point @param {Options} options @returns {Point} */
const bent = (point, options) => ({ ...point, pressure: options.pressure ? point.pressure : 1 });

/** @param {Point} from @param {Point} to @returns {Point} along one of eight directions */
function straight(from, to) {
  const angle = (Math.round(Math.atan2(to.y - from.y, to.x - from.x) / (Math.PI / 4)) * Math.PI) / 4;
  const length = (to.x - from.x) * Math.cos(angle) + (to.y - from.y) * Math.sin(angle);
  return { ...to, x: from.x + length * Math.cos(angle), y: from.y + length * Math.sin(angle) };
}

/** @param {Point} from @param {Point} to @param {boolean} equal @returns {{ax: number, ay: number, bx: number, by: number}} */
function corners(from, to, equal) {
  if (!equal) return { ax: from.x, ay: from.y, bx: to.x, by: to.y };
  const edge = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y));
  return { ax: from.x, ay: from.y, bx: from.x + Math.sign(to.x - from.x || 1) * edge, by: from.y + Math.sign(to.y - from.y || 1) * edge };
}

/** @param {{ax: number, ay: number, bx: number, by: number}} ends @returns {Rect} not in whole pixels */
const box = ({ ax, ay, bx, by }) => ({ x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(bx - ax), height: Math.abs(by - ay) });

/** Whole pixels around it, and one more. @param {Rect} of @param {number} [by] @returns {Rect} */
function grown(of, by = 1) {
  const x = Math.floor(of.x - by), y = Math.floor(of.y - by);
  return { x, y, width: Math.ceil(of.x + of.width + by) - x, height: Math.ceil(of.y + of.height + by) - y };
}

/** @param {Drag} drag @returns {import("./masks.js").How} */
const how = ({ options, shift, alt }) => (shift && alt ? "both" : shift ? "add" : alt ? "take" : options.how);

/** A selection that a drag draws. @param {Drag} drag @param {(to: Point, mask: Raster) => void} drawn
 * @param {(context: CanvasRenderingContext2D) => void} over @param {string} label @returns {Act} */
function selecting(drag, drawn, over, label) {
  const { editor, view } = drag;
  let far = false;
  return {
    move(to) {
      far ||= Math.hypot(to.x - drag.from.x, to.y - drag.from.y) * view.zoom > 3;
      drawn(to, blank({ x: 0, y: 0, width: 0, height: 0 }, 1));
      view.draw();
    },
    end(to) {
      if (!far) return void editor.select("select nothing", null);
      const mask = blank(editor.document.frame, 1);
      drawn(to, mask);
      editor.select(label, masks.combine(editor.selection, mask, how(drag)));
    },
    over,
  };
}

/** A dashed path over the picture. @param {CanvasRenderingContext2D} context @param {() => void} path */
function dashed(context, path) {
  for (const [colour, offset] of /** @type {const} */ ([["#fff", 0], ["#000", 4]])) {
    context.setLineDash([4, 4]);
    context.lineDashOffset = offset;
    context.strokeStyle = colour;
    context.beginPath();
    path();
    context.stroke();
  }
  context.setLineDash([]);
}

/** @param {Drag} drag */
function selectBox(drag) {
  const { view, from } = drag;
  let ends = corners(from, from, false);
  return selecting(drag, (to, mask) => {
    ends = corners(from, to, false);
    const { ax, ay, bx, by } = ends;
    const sharp = { x: Math.round(Math.min(ax, bx)), y: Math.round(Math.min(ay, by)), width: 0, height: 0 };
    sharp.width = Math.round(Math.max(ax, bx)) - sharp.x;
    sharp.height = Math.round(Math.max(ay, by)) - sharp.y;
    cover(mask, sharp, () => true);
  }, (context) => {
    const a = view.on(ends.ax, ends.ay), b = view.on(ends.bx, ends.by);
    dashed(context, () => context.rect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(b.x - a.x), Math.abs(b.y - a.y)));
  }, "select");
}

/** @param {Drag} drag */
function lasso(drag) {
  const path = [drag.from], { view } = drag;
  return selecting(drag, (to, mask) => {
    const last = path[path.length - 1];
    if (Math.hypot(to.x - last.x, to.y - last.y) * view.zoom > 1.5) path.push(to);
    const where = path.reduce((all, p) => join(all, { x: Math.floor(p.x), y: Math.floor(p.y), width: 1, height: 1 }), rect(mask));
    if (mask.width) cover(mask, where, (x, y) => within(path, x, y));
  }, (context) => dashed(context, () => path.forEach((p, i) => {
    const at = view.on(p.x, p.y);
    if (i) context.lineTo(at.x, at.y);
    else context.moveTo(at.x, at.y);
  })), "lasso");
}

/** The mask, painted: with Alt, or when selections are taken away, it is wiped off. @param {Drag} drag @returns {Act} */
function paintMask(drag) {
  const { editor, view, options, from } = drag, { frame } = editor.document;
  const take = how(drag) === "take", tip = { size: options.size, hardness: 1 };
  const coverage = blank(frame, 1), before = editor.selection;
  let last = bent(from, options), carried = 0;
  const show = () => {
    editor.selection = masks.combine(before, coverage, take ? "take" : "add");
    view.draw();
  };
  dab(coverage, last.x, last.y, { ...tip, size: Math.max(tip.size * last.pressure, 1) });
  show();
  return {
    move(to) {
      const next = bent(to, options);
      carried = stretch(coverage, last, next, tip, carried).carried;
      last = next;
      show();
    },
    end: () => void editor.select(take ? "wipe the mask" : "paint the mask", editor.selection),
    cancel() {
      editor.selection = before;
      view.draw();
    },
  };
}

/** @param {Drag} drag @returns {Act | null} */
function fill({ editor, options, from }) {
  const work = editor.begin("paint");
  if (!work) return null;
  const { picture } = editor;
  work.coverage = flood(picture, from.x, from.y, options.tolerance);
  lay(work.raster, work.before, work.coverage, numbers(options.colour), options.opacity, picture, work.allowed);
  editor.touched(masks.bounds(work.coverage));
  return { end: () => editor.end("fill"), cancel: () => editor.cancel() };
}

/** @param {Drag} drag @returns {Act | null} */
function drawShape({ editor, options, from, shift }) {
  const work = editor.begin("paint");
  if (!work) return null;
  let before = { x: 0, y: 0, width: 0, height: 0 };
  return {
    move(to) {
      const line = options.shape === "line";
      const ends = corners(from, shift && line ? straight(from, to) : to, shift && !line);
      const where = grown(box(ends), line ? options.size : 1);
      work.coverage.data.fill(0);
      cover(work.coverage, where, shape(options.shape, box(ends), ends, line ? options.size : options.line));
      const both = join(before, where);
      lay(work.raster, work.before, work.coverage, numbers(options.colour), options.opacity, both, work.allowed);
      editor.touched(both);
      before = where;
    },
    end: () => editor.end(options.shape),
    cancel: () => editor.cancel(),
  };
}

/** @param {Drag} drag @returns {Act | null} */
function move(drag) {
  const { editor, view, from, shift } = drag, handle = handleAt(view, from);
  if (handle) return turning(drag, handle);
  const alpha = (/** @type {import("./tiles.js").Tiles} */ tiles, /** @type {number} */ x, /** @type {number} */ y) => {
    const raster = editor.at(tiles);
    const i = ((Math.floor(y) - raster.y) * raster.width + Math.floor(x) - raster.x) * raster.channels;
    return raster.data[i + raster.channels - 1] ?? 0;
  };
  const found = documents.hit(editor.document, from.x, from.y, alpha);
  const id = found?.id ?? editor.document.active;
  if (found && found.id !== editor.document.active) editor.choose(found.id);
  const before = editor.document;
  let dx = 0, dy = 0;
  const restore = () => {
    editor.document = before;
  };
  return {
    move(to) {
      const goal = shift ? straight(from, to) : to;
      [dx, dy] = [Math.round(goal.x - from.x), Math.round(goal.y - from.y)];
      editor.document = id ? documents.moved(before, id, dx, dy) : before;
      editor.redraw();
    },
    end() {
      restore();
      if (id && (dx || dy)) editor.apply("move", (document) => documents.moved(document, id, dx, dy));
    },
    cancel() {
      restore();
      editor.redraw();
    },
  };
}

/** Which edges of a frame a point is at: -1, 0 or 1 across and down; null: none.
 * @param {Rect} frame @param {{x: number, y: number}} at @param {number} near */
export function grip(frame, at, near) {
  const close = (/** @type {number} */ value, /** @type {number} */ start, /** @type {number} */ size) =>
    Math.abs(value - start) <= near ? -1 : Math.abs(value - start - size) <= near ? 1 : 0;
  const across = close(at.x, frame.x, frame.width), down = close(at.y, frame.y, frame.height);
  const outside = !inside({ x: frame.x - near, y: frame.y - near, width: frame.width + 2 * near, height: frame.height + 2 * near }, at.x, at.y);
  return outside || (!across && !down) ? null : { across, down };
}

/** A frame with an edge elsewhere, by whole steps. @param {Rect} frame @param {{across: number, down: number}} grip
 * @param {number} dx @param {number} dy @param {number} step @returns {Rect} */
export function dragged(frame, { across, down }, dx, dy, step) {
  const one = (/** @type {number} */ start, /** @type {number} */ size, /** @type {number} */ side, /** @type {number} */ by) => {
    if (!side) return [start, size];
    const wanted = Math.round((size + by * side) / step) * step;
    const now = Math.min(Math.max(wanted, step), 8192);
    return [side < 0 ? start + size - now : start, now];
  };
  const [x, width] = one(frame.x, frame.width, across, dx), [y, height] = one(frame.y, frame.height, down, dy);
  return { x, y, width, height };
}

/** @param {Drag} drag @returns {Act | null} */
function expand({ editor, view, from, alt }) {
  const { frame } = editor.document, held = grip(frame, from, 14 / view.zoom);
  if (!held) return null;
  let now = frame;
  return {
    move(to) {
      now = dragged(frame, held, to.x - from.x, to.y - from.y, alt ? 1 : 8);
      view.draw();
    },
    end() {
      if (now.width !== frame.width || now.height !== frame.height) editor.apply("frame", (document) => documents.framed(document, now));
    },
    over(context) {
      const a = view.on(now.x, now.y);
      dashed(context, () => context.rect(a.x, a.y, now.width * view.zoom, now.height * view.zoom));
      context.font = "600 13px system-ui, sans-serif";
      const said = `${now.width} × ${now.height}`, wide = context.measureText(said).width;
      context.fillStyle = "#000c";
      context.fillRect(a.x, a.y - 26, wide + 14, 21);
      context.fillStyle = "#fff";
      context.fillText(said, a.x + 7, a.y - 11);
    },
  };
}

/** Text as a layer of its own. @param {Editor} editor @param {Options} options @param {Point} from where its line begins
 * @returns {null} */
export function write(editor, options, from) {
  if (!options.text) return null;
  const lines = options.text.split("\n"), size = options.letters;
  const font = `600 ${size}px system-ui, sans-serif`;
  const measure = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(1, 1).getContext("2d"));
  measure.font = font;
  const width = Math.ceil(Math.max(...lines.map((line) => measure.measureText(line).width))) + 4;
  const height = Math.ceil(lines.length * size * 1.25) + 4;
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.font = font;
  context.fillStyle = options.colour;
  lines.forEach((line, i) => context.fillText(line, 2, 2 + size * (1 + i * 1.25)));
  const data = context.getImageData(0, 0, width, height).data, colour = numbers(options.colour);
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) data[i + c] = data[i + 3] ? colour[c] : 0;
  const where = { x: Math.round(from.x), y: Math.round(from.y - size), width, height };
  editor.place(options.text.slice(0, 24), { ...where, channels: 4, data });
  return null;
}

/** @param {Drag} drag @returns {Act} */
function pick({ editor, choose, from }) {
  const take = (/** @type {Point} */ at) => {
    const { picture } = editor;
    if (!inside(picture, at.x, at.y)) return;
    const i = ((Math.floor(at.y) - picture.y) * picture.width + Math.floor(at.x) - picture.x) * 4;
    if (picture.data[i + 3]) choose({ colour: hex([...picture.data.slice(i, i + 3)]) });
  };
  take(from);
  return { move: take };
}

/** @param {Drag} drag @returns {Act} */
function pan({ view, from }) {
  return { move: (to) => view.pan((to.x - from.x) * view.zoom, (to.y - from.y) * view.zoom) };
}

/** @type {Tool[]} */
export const TOOLS = [
  { name: "brush", title: "Brush", key: "b", icon: "brush", cursor: "none", begin: (drag) => (drag.alt ? pick(drag) : stroke(drag, "paint")) },
  { name: "eraser", title: "Eraser", key: "e", icon: "eraser", cursor: "none", begin: (drag) => stroke(drag, "erase") },
  { name: "fill", title: "Fill", key: "f", icon: "bucket", cursor: "crosshair", begin: fill },
  { name: "shape", title: "Shapes", key: "u", icon: "shapes", cursor: "crosshair", begin: drawShape },
  { name: "text", title: "Text", key: "t", icon: "text", cursor: "text", begin: ({ editor, options, from }) => write(editor, options, from) },
  { name: "pick", title: "Pick a colour", key: "i", icon: "dropper", cursor: "crosshair", begin: pick },
  { name: "mask", title: "Paint the mask", key: "q", icon: "mask", cursor: "none", begin: paintMask },
  { name: "select", title: "Select a rectangle", key: "m", icon: "marquee", cursor: "crosshair", begin: selectBox },
  { name: "lasso", title: "Lasso", key: "l", icon: "lasso", cursor: "crosshair", begin: lasso },
  { name: "move", title: "Move and turn a layer", key: "v", icon: "move", cursor: "move", begin: move },
  { name: "frame", title: "Expand the frame", key: "c", icon: "expand", cursor: "default", begin: expand },
  { name: "pan", title: "Pan the view", key: "h", icon: "palm", cursor: "grab", begin: pan },
];

/** @param {string} name @returns {Tool} */
export const toolOf = (name) => TOOLS.find((tool) => tool.name === name) ?? TOOLS[0];
