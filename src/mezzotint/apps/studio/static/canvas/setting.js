// @ts-check
/** What the user has set: the tool, how it paints, and what is asked for. It outlives the page. */

import { kept } from "../store.js";
import { signal } from "../ui.js";

/** @typedef {import("./tools.js").Options} Options @typedef {import("./plan.js").Wanted} Wanted */

export const tool = kept("canvas.tool", "brush");
/** Counts up when the open canvas has changed: what shows it reads this. */
export const revision = signal(0);
/** Space is held. */
export const panning = signal(false);
/** Where the keys point, in words. */
export const pointed = signal("");
/** On a phone: which panel is open. @type {import("../ui.js").Signal<"" | "draw" | "layers">} */
export const sheet = signal("");

/** @type {import("../ui.js").Signal<Options>} */
export const options = kept("canvas.options", {
  colour: "#9a4a22", size: 12, hardness: 0.8, opacity: 1, pressure: true, tolerance: 24, shape: "rectangle", line: 0,
  how: "new", text: "", letters: 24,
});

/** @param {Partial<Options>} by */
export const choose = (by) => { options.value = { ...options.value, ...by }; };

/** @type {Wanted} */
export const WANTED = {
  prompt: "", negative: "", model: "icons", count: 4, steps: "", seed: "", strength: 1, change: 0.6, closely: false, around: 32, feather: 4,
};
