// @ts-check
/** Keys of the canvas. */

import { place, say } from "../store.js";
import * as masks from "./masks.js";
import * as documents from "./document.js";
import { session } from "./session.js";
import { choose, options, panning, pointed, tool } from "./setting.js";
import { TOOLS } from "./tools.js";
import { rotate, scale } from "./turning.js";

/** @param {-1 | 1} by */
export async function step(by) {
  const editor = session.peek()?.editor;
  const said = await editor?.step(by);
  if (said) say(`${by < 0 ? "Undone" : "Done again"}: ${said}`);
}

/** Everything, nothing, or the other part. @param {"all" | "none" | "other"} what */
export function select(what) {
  const editor = session.peek()?.editor;
  if (!editor) return;
  const whole = masks.all(editor.document.frame);
  if (what === "all") editor.select("select all", whole);
  else if (what === "none") editor.select("select nothing", null);
  else editor.select("invert", editor.selection ? masks.inverted(editor.selection) : whole);
}

/** @type {Record<string, () => unknown>} */
const HELD = {
  z: () => step(-1),
  Z: () => step(1),
  y: () => step(1),
  a: () => select("all"),
  d: () => select("none"),
  i: () => select("other"),
};

/** With a layer in hand. @type {Record<string, (editor: import("./editor.js").Editor) => void>} */
const TURNS = {
  "[": (editor) => scale(editor, 0.95),
  "]": (editor) => scale(editor, 1.05),
  ",": (editor) => rotate(editor, -1),
  ".": (editor) => rotate(editor, 1),
  "<": (editor) => rotate(editor, -15),
  ">": (editor) => rotate(editor, 15),
};

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param {KeyboardEvent} event @param {import("./view.js").View | null} view */
function act(event, view) {
  const { key } = event, editor = session.peek()?.editor;
  if (!editor) return false;
  if (event.ctrlKey || event.metaKey) {
    if (!HELD[key] || event.altKey) return false;
    HELD[event.shiftKey ? key.toUpperCase() : key]?.();
    return true;
  }
  const found = TOOLS.find((each) => each.key === key);
  if (found && !event.altKey) tool.value = found.name;
  else if (tool.value === "move" && TURNS[key]) TURNS[key]?.(editor);
  else if (key === "[" || key === "]") choose({ size: Math.min(Math.max(Math.round(options.value.size * (key === "[" ? 0.85 : 1.18) + (key === "[" ? -0.5 : 0.5)), 1), 400) });
  else if (key === "+" || key === "=") view?.closer(1.25);
  else if (key === "-") view?.closer(0.8);
  else if (key === "0") view?.fit();
  else if (key === "Delete" || key === "Backspace") editor.clear();
  else if (key === "Enter" && event.target === view?.canvas) view.pointer?.press(event);
  else if (key === "Escape") {
    if (!view?.pointer?.cancel()) select("none");
  }
  else if (key === " ") panning.value = true;
  else if (ARROWS[key] && event.target === view?.canvas) {
    const by = event.shiftKey ? 10 : 1, [dx, dy] = ARROWS[key], id = editor.document.active;
    if (tool.value === "move" && id) editor.apply("move", (document) => documents.moved(document, id, dx * by, dy * by));
    else if (tool.value === "pan") view.pan(-dx * 24 * by, -dy * 24 * by);
    else {
      const at = view.pointer?.nudge(dx * by, dy * by);
      if (at) pointed.value = `${Math.floor(at.x - editor.document.frame.x)}, ${Math.floor(at.y - editor.document.frame.y)}`;
    }
  } else return false;
  return true;
}

/** Listen while the canvas is shown. @param {() => import("./view.js").View | null} view @returns {() => void} */
export function listen(view) {
  const typing = (/** @type {Event} */ event) => event.target instanceof Element
    && event.target.matches("input:not([type=checkbox], [type=range], [type=radio], [type=color]), textarea, select, [contenteditable]");
  const busy = () => document.querySelector("dialog[open]") !== null || place.value.shown !== null;
  const down = (/** @type {KeyboardEvent} */ event) => {
    if (event.defaultPrevented || typing(event) || busy()) return;
    if (event.key === " " && event.target instanceof Element && event.target.matches("button, a, summary, [type=checkbox]")) return;
    if (event.target instanceof HTMLInputElement && ARROWS[event.key]) return;
    if (act(event, view())) event.preventDefault();
  };
  const up = (/** @type {KeyboardEvent} */ event) => { if (event.key === " ") panning.value = false; };
  addEventListener("keydown", down);
  addEventListener("keyup", up);
  return () => {
    removeEventListener("keydown", down);
    removeEventListener("keyup", up);
    panning.value = false;
  };
}
