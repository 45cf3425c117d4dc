// @ts-check
/** Pointers on the canvas: one draws with the tool, two pan and pinch, the wheel zooms. */

import { grip, toolOf } from "./tools.js";

/** @typedef {import("./tools.js").Act} Act @typedef {import("./tools.js").Point} Point */
/** @typedef {{tool: string, options: import("./tools.js").Options, panning: boolean, before: () => void, choose: (by: Partial<import("./tools.js").Options>) => void}} Setting */

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

  const point = (/** @type {PointerEvent} */ event) => ({ ...view.spot(event), pressure: event.pointerType === "pen" ? event.pressure : 1 });

  view.over = (context) => {
    act?.over?.(context);
    const { tool, options } = setting();
    if (tool === "frame" && !act) grips(context);
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

  const end = (/** @type {"end" | "cancel"} */ how, /** @type {Point} */ at) => {
    const ended = act;
    act = null;
    mine = -1;
    ended?.[how]?.(at);
    view.draw();
  };

  const onDown = (/** @type {PointerEvent} */ event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size > 1) {
      if (act && !late) end("cancel", point(event));
      return;
    }
    const { tool, options, panning, choose, before } = setting();
    const hand = event.button === 1 || panning;
    if (event.button > 1) return;
    event.preventDefault();
    if (!hand && tool !== "pan") before();
    const drag = { editor, view, options, choose, shift: event.shiftKey, alt: event.altKey, from: point(event) };
    mine = event.pointerId;
    late = false;
    act = toolOf(hand ? "pan" : tool).begin(drag);
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

  const heard = /** @type {const} */ ([["pointerdown", onDown], ["pointermove", onMove], ["pointerup", onUp], ["pointercancel", onUp], ["pointerleave", onLeave], ["wheel", onWheel]]);
  for (const [name, hear] of heard) canvas.addEventListener(name, /** @type {EventListener} */ (hear), { passive: false });
  return () => {
    view.over = null;
    for (const [name, hear] of heard) canvas.removeEventListener(name, /** @type {EventListener} */ (hear));
  };
}

/** @type {Record<string, string>} */
const CURSORS = {
  "-1,0": "ew-resize", "1,0": "ew-resize", "0,-1": "ns-resize", "0,1": "ns-resize",
  "-1,-1": "nwse-resize", "1,1": "nwse-resize", "1,-1": "nesw-resize", "-1,1": "nesw-resize",
};
