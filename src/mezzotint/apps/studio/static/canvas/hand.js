// @ts-check
/** Pointers on the canvas: one draws with the tool, two pan and pinch, the wheel zooms. */

import { grip, toolOf } from "./tools.js";
import { boxNow, cursorOf, drawHandles, handleAt } from "./turning.js";

/** @typedef {import("./tools.js").Act} Act @typedef {import("./tools.js").Point} Point */
/** @typedef {{tool: string, options: import("./tools.js").Options, panning: boolean, before: () => void, choose: (by: Partial<import("./tools.js").Options>) => void}} Setting */

const KEYS = -2; // no pointer has this id
/** Tools that are done where they are put down. */
const AT_ONCE = new Set(["fill", "text", "pick"]);

/** @param {import("./view.js").View} view @param {() => Setting} setting @returns {() => void} to let go */
export function attach(view, setting) {
  const { canvas, editor } = view;
  /** @type {Map<number, {x: number, y: number}>} */
  const down = new Map();
  /** @type {Act | null} */
  let act = null;
  let mine = -1, late = false;
  /** @type {Point | null} */
  let hover = null;
  /** Where the keys point: for those who do not drag. @type {Point | null} */
  let pointed = null;

  const point = (/** @type {PointerEvent} */ event) => ({ ...view.spot(event), pressure: event.pointerType === "pen" ? event.pressure : 1 });

  view.over = (context) => {
    act?.over?.(context);
    const { tool, options } = setting();
    if (tool === "frame" && !act) grips(context);
    if (tool === "move" && !act) drawHandles(context, view);
    crosshair(context);
    if (!hover || !["brush", "eraser", "mask"].includes(tool) || setting().panning) return;
    const at = view.on(hover.x, hover.y), radius = Math.max((options.size * view.zoom) / 2, 1.5);
    for (const [colour, width] of /** @type {const} */ ([["#fffc", 2.5], ["#000c", 1]])) {
      context.beginPath();
      context.arc(at.x, at.y, radius, 0, 7);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  };

  const grips = (/** @type {CanvasRenderingContext2D} */ context) => {
    const { frame } = editor.document;
    for (const i of [0, 0.5, 1]) for (const j of [0, 0.5, 1]) {
      if (i === 0.5 && j === 0.5) continue;
      const at = view.on(frame.x + frame.width * i, frame.y + frame.height * j);
      context.fillStyle = "#fff";
      context.strokeStyle = "#000a";
      context.lineWidth = 1.5;
      context.beginPath();
      context.roundRect(at.x - 6, at.y - 6, 12, 12, 3);
      context.fill();
      context.stroke();
    }
  };

  /** Where the keys point. */
  const crosshair = (/** @type {CanvasRenderingContext2D} */ context) => {
    if (!pointed || document.activeElement !== canvas) return;
    const at = view.on(pointed.x, pointed.y);
    for (const [colour, width] of /** @type {const} */ ([["#fffd", 3.5], [mine === KEYS ? "#c03" : "#000d", 1.5]])) {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(at.x + 3 * dx, at.y + 3 * dy);
        context.lineTo(at.x + 13 * dx, at.y + 13 * dy);
      }
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  };

  const end = (/** @type {"end" | "cancel"} */ how, /** @type {Point} */ at) => {
    const ended = act;
    act = null;
    mine = -1;
    ended?.[how]?.(at);
    view.draw();
  };

  const begin = (/** @type {string} */ name, /** @type {Point} */ from, /** @type {{shiftKey: boolean, altKey: boolean}} */ { shiftKey, altKey }) => {
    const { options, choose, before } = setting();
    if (name !== "pan") before();
    late = false;
    act = toolOf(name).begin({ editor, view, options, choose, shift: shiftKey, alt: altKey, from });
  };

  const onDown = (/** @type {PointerEvent} */ event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size > 1) {
      if (act && !late) end("cancel", point(event));
      return;
    }
    const { tool, panning } = setting();
    const hand = event.button === 1 || panning;
    if (event.button > 1) return;
    event.preventDefault();
    if (mine === KEYS) end("cancel", point(event));
    pointed = null;
    begin(hand ? "pan" : tool, point(event), event);
    mine = event.pointerId;
    view.draw();
  };

  const onMove = (/** @type {PointerEvent} */ event) => {
    hover = point(event);
    const before = down.get(event.pointerId);
    if (before && down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)?.[1] ?? before;
      const now = { x: event.clientX, y: event.clientY }, box = canvas.getBoundingClientRect();
      const far = (/** @type {{x: number, y: number}} */ at) => Math.hypot(at.x - other.x, at.y - other.y) || 1;
      view.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
      view.closer(far(now) / far(before), { x: (now.x + other.x) / 2 - box.left, y: (now.y + other.y) / 2 - box.top });
      down.set(event.pointerId, now);
      return;
    }
    if (event.pointerId === mine && act) {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const each of all.length ? all : [event]) act?.move?.(point(each));
      late = true;
    }
    const held = setting().tool === "frame" && !setting().panning ? grip(editor.document.frame, hover, 14 / view.zoom) : null;
    if (setting().tool === "move" && !act) canvas.style.cursor = cursorOf(handleAt(view, hover), boxNow(editor)?.angle ?? 0);
    if (setting().tool === "frame") canvas.style.cursor = held ? CURSORS[`${held.across},${held.down}`] : "default";
    view.draw();
  };

  const onUp = (/** @type {PointerEvent} */ event) => {
    down.delete(event.pointerId);
    if (event.pointerId === mine && act) end(event.type === "pointerup" ? "end" : "cancel", point(event));
  };

  const onWheel = (/** @type {WheelEvent} */ event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    if (event.shiftKey) view.pan(-event.deltaY || -event.deltaX, 0);
    else view.closer(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), { x: event.clientX - box.left, y: event.clientY - box.top });
  };

  const onLeave = () => {
    hover = null;
    view.draw();
  };

  /** The keys as a pointer: Enter puts it down and lifts it. */
  view.pointer = {
    nudge(dx, dy) {
      const { frame } = editor.document;
      pointed ??= { x: frame.x + Math.floor(frame.width / 2) + 0.5, y: frame.y + Math.floor(frame.height / 2) + 0.5, pressure: 1 };
      pointed = { ...pointed, x: pointed.x + dx, y: pointed.y + dy };
      view.reach(pointed);
      if (mine === KEYS) act?.move?.(pointed);
      view.draw();
      return pointed;
    },
    press(keys) {
      const at = pointed ?? this.nudge(0, 0);
      if (mine === KEYS) return end("end", at);
      begin(setting().tool, at, keys);
      if (!act || AT_ONCE.has(setting().tool)) return end("end", at);
      mine = KEYS;
      view.draw();
    },
    cancel() {
      if (mine !== KEYS && !pointed) return false;
      if (mine === KEYS) end("cancel", pointed ?? this.nudge(0, 0));
      else pointed = null;
      view.draw();
      return true;
    },
  };

  const heard = /** @type {const} */ ([["pointerdown", onDown], ["pointermove", onMove], ["pointerup", onUp], ["pointercancel", onUp], ["pointerleave", onLeave], ["wheel", onWheel]]);
  for (const [name, hear] of heard) canvas.addEventListener(name, /** @type {EventListener} */ (hear), { passive: false });
  return () => {
    view.over = view.pointer = null;
    for (const [name, hear] of heard) canvas.removeEventListener(name, /** @type {EventListener} */ (hear));
  };
}

/** @type {Record<string, string>} */
const CURSORS = {
  "-1,0": "ew-resize", "1,0": "ew-resize", "0,-1": "ns-resize", "0,1": "ns-resize",
  "-1,-1": "nwse-resize", "1,1": "nwse-resize", "1,-1": "nesw-resize", "-1,1": "nesw-resize",
};
