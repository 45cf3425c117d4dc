// @ts-check
/** The active layer, scaled, turned and mirrored: by handles, by keys, and by numbers. */

import { say } from "../store.js";
import * as documents from "./document.js";
import { content, crop, rect } from "./raster.js";
import { boxOf, pointOf, shifted, stretched, transformed, turned, wrapped } from "./transform.js";

/** @typedef {import("./editor.js").Editor} Editor @typedef {import("./view.js").View} View */
/** @typedef {import("./document.js").Layer} Layer @typedef {import("./raster.js").Raster} Raster */
/** @typedef {import("./transform.js").Box} Box @typedef {import("./transform.js").Point} Point */
/** How pixels were before they were turned, and the box that made them what they are, at a place.
 * @typedef {{pixels: Raster, mask: Raster | null, box: Box, at: Point}} Origin */
/** @typedef {{across: number, down: number} | "turn"} Handle */

const MOST_PIXELS = 64 << 20;
const ARM = 26; // pixels of the screen from the top edge to the handle that turns

/** By the tiles of a layer: turned twice, pixels are computed once; it is as good as it lasts.
 * @type {WeakMap<string[], Origin>} */
const origins = new WeakMap();

/** @param {Editor} editor @param {Layer} layer @returns {Origin | null} null where nothing is painted */
function originOf(editor, layer) {
  const { x, y, tiles } = layer.pixels, held = origins.get(tiles);
  if (held) return { ...held, box: shifted(held.box, x - held.at.x, y - held.at.y) };
  const raster = editor.at(layer.pixels), part = layer.mask ? rect(layer.pixels) : content(raster);
  if (!part.width) return null;
  const mask = layer.mask && crop(editor.at(layer.mask), part);
  const found = { pixels: crop(raster, part), mask, box: boxOf(part), at: { x, y } };
  origins.set(tiles, found);
  return found;
}

/** @param {Editor} editor @returns {{layer: Layer, origin: Origin} | null} */
function held(editor) {
  const layer = documents.layerOf(editor.document);
  const origin = layer?.visible ? originOf(editor, layer) : null;
  return layer && origin ? { layer, origin } : null;
}

/** Where the active layer lies. @param {Editor} editor @returns {Box | null} */
export const boxNow = (editor) => held(editor)?.origin.box ?? null;

/** @param {Origin} origin @param {Box} box */
const moved = ({ pixels, mask }, box) => ({ pixels: transformed(pixels, box), mask: mask && transformed(mask, box) });

/** Another box for the active layer. @param {Editor} editor @param {string} label @param {(box: Box) => Box} by */
export function turn(editor, label, by) {
  const found = held(editor);
  if (!found) return void say("There is nothing on this layer", true);
  const { layer, origin } = found, box = by(origin.box);
  if (Math.abs(box.width * box.height) > MOST_PIXELS) return void say("It would be too large", true);
  const made = moved(origin, box), pixels = editor.tiled(made.pixels);
  origins.set(pixels.tiles, { ...origin, box, at: { x: pixels.x, y: pixels.y } });
  const mask = made.mask && editor.tiled(made.mask);
  editor.apply(label, (document) => documents.changed(document, layer.id, { pixels, mask }));
}

/** @param {Editor} editor @param {number} by */
export const scale = (editor, by) => turn(editor, "scale", (box) => {
  const grown = (/** @type {number} */ size) => Math.sign(size) * Math.max(Math.round(Math.abs(size) * by), Math.abs(size) + (by > 1 ? 1 : -1), 1);
  const smaller = (/** @type {number} */ size) => Math.sign(size) * Math.max(Math.min(Math.round(Math.abs(size) * by), Math.abs(size) - 1), 1);
  const next = by > 1 ? grown : smaller;
  return { ...box, width: next(box.width), height: next(box.height) };
});

/** @param {Editor} editor @param {number} degrees clockwise */
export const rotate = (editor, degrees) => turn(editor, "turn", (box) => ({ ...box, angle: wrapped(box.angle + degrees) }));

/** @param {Editor} editor @param {"across" | "down"} how */
export const mirror = (editor, how) => turn(editor, "mirror", (box) => {
  // what is seen is mirrored, so a turn goes the other way round
  const angle = wrapped(-box.angle);
  return how === "across" ? { ...box, width: -box.width, angle } : { ...box, height: -box.height, angle };
});

// --- handles ------------------------------------------------------------------------------------

/** @param {View} view @param {Box} box @returns {{handle: Handle, at: Point}[]} on the screen */
function handles(view, box) {
  const on = (/** @type {Point} */ point) => view.on(point.x, point.y);
  const wide = Math.abs(box.width) * view.zoom > 44, high = Math.abs(box.height) * view.zoom > 44;
  /** @type {{handle: Handle, at: Point}[]} */
  const found = [];
  for (const down of [-1, 0, 1]) for (const across of [-1, 0, 1]) {
    if ((!across && !down) || (!across && !wide) || (!down && !high)) continue;
    found.push({ handle: { across, down }, at: on(pointOf(box, across, down)) });
  }
  const middle = on(box), top = on(pointOf(box, 0, -1)), far = Math.hypot(top.x - middle.x, top.y - middle.y) || 1;
  const by = (far + ARM) / far;
  found.push({ handle: "turn", at: { x: middle.x + (top.x - middle.x) * by, y: middle.y + (top.y - middle.y) * by } });
  return found;
}

/** The handle at a point of the picture. @param {View} view @param {Point} point @param {number} [near] pixels of the screen
 * @returns {Handle | null} */
export function handleAt(view, point, near = 12) {
  const box = boxNow(view.editor), at = view.on(point.x, point.y);
  return (box && handles(view, box).find((each) => Math.hypot(each.at.x - at.x, each.at.y - at.y) <= near)?.handle) ?? null;
}

/** @param {Handle | null} handle @param {number} angle of the box */
export function cursorOf(handle, angle) {
  if (!handle) return "move";
  if (handle === "turn") return "grab";
  const way = Math.round((Math.atan2(handle.down, handle.across) * 180 / Math.PI + angle) / 45 + 8) % 4;
  return ["ew-resize", "nwse-resize", "ns-resize", "nesw-resize"][way] ?? "move";
}

/** @param {CanvasRenderingContext2D} context @param {View} view @param {Box | null} [box] */
export function drawHandles(context, view, box = boxNow(view.editor)) {
  if (!box) return;
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([across, down]) => {
    const at = pointOf(box, across, down);
    return view.on(at.x, at.y);
  });
  const all = handles(view, box), arm = all[all.length - 1].at, top = pointOf(box, 0, -1), from = view.on(top.x, top.y);
  for (const [colour, width] of /** @type {const} */ ([["#fffc", 3], ["#000b", 1]])) {
    context.beginPath();
    corners.forEach((at, i) => (i ? context.lineTo(at.x, at.y) : context.moveTo(at.x, at.y)));
    context.closePath();
    context.moveTo(from.x, from.y);
    context.lineTo(arm.x, arm.y);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
  context.fillStyle = "#fff";
  context.strokeStyle = "#000a";
  context.lineWidth = 1.5;
  for (const { handle, at } of all) {
    context.beginPath();
    if (handle === "turn") context.arc(at.x, at.y, 6, 0, 7);
    else context.roundRect(at.x - 5, at.y - 5, 10, 10, 2);
    context.fill();
    context.stroke();
  }
}

/** A drag of a handle. Shift: out of proportion, or in steps of 15°.
 * @param {import("./tools.js").Drag} drag @param {Handle} handle @returns {import("./tools.js").Act | null} */
export function drag({ editor, view, shift }, handle) {
  const found = held(editor);
  if (!found) return null;
  const { layer, origin } = found;
  let box = origin.box, asked = 0;
  const show = () => {
    asked = 0;
    editor.trial = { layer: layer.id, ...moved(origin, box) };
    editor.redraw();
  };
  const over = () => {
    cancelAnimationFrame(asked);
    asked = 0;
    editor.trial = null;
  };
  return {
    move(to) {
      const next = handle === "turn" ? turned(origin.box, to, shift ? 15 : 1) : stretched(origin.box, handle, to, !shift);
      if (Math.abs(next.width * next.height) > MOST_PIXELS) return;
      box = next;
      asked ||= requestAnimationFrame(show);
      view.draw();
    },
    end() {
      over();
      if (box !== origin.box) turn(editor, handle === "turn" ? "turn" : "scale", () => box);
      else editor.redraw();
    },
    cancel() {
      over();
      editor.redraw();
    },
    over(context) {
      drawHandles(context, view, box);
      const said = handle === "turn" ? `${box.angle}°` : `${Math.abs(box.width)} × ${Math.abs(box.height)}`, at = view.on(box.x, box.y);
      context.font = "600 13px system-ui, sans-serif";
      const wide = context.measureText(said).width;
      context.fillStyle = "#000c";
      context.fillRect(at.x - wide / 2 - 7, at.y - 12, wide + 14, 22);
      context.fillStyle = "#fff";
      context.fillText(said, at.x - wide / 2, at.y + 4);
    },
  };
}
