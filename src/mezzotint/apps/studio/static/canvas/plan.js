// @ts-check
/** What a canvas asks for: which kind of work it is, and as what the server is asked. */

import { sides } from "./document.js";

/** @typedef {import("./document.js").Document} Document @typedef {import("../api.js").Wish} Wish */
/**
 * @typedef {object} Wanted what the user has set
 * @property {string} prompt @property {string} negative @property {string} model
 * @property {number} count
 * @property {string} steps @property {string} seed "" leaves it to the model, or to chance
 * @property {number} strength of a fill, 0 to 1: at 1 nothing of what was there is kept
 * @property {number} change of a picture that is drawn anew, 0 to 1
 * @property {boolean} closely whether to work on the mask and what is around it alone
 * @property {number} around so many pixels
 * @property {number} feather pixels
 */
/** @typedef {"fill" | "expand" | "change" | "new"} Kind */

/** What is to be done. @param {Document} of @param {boolean} painted whether there is anything in it
 * @returns {Kind} */
export const kindOf = (of, painted) => (of.selection && painted ? "fill" : of.known ? "expand" : painted ? "change" : "new");

/** @type {Record<Kind, {title: string, hint: string}>} */
export const KINDS = {
  fill: { title: "Fill the selection", hint: "Only what is selected is drawn anew; all else stays, pixel by pixel." },
  expand: { title: "Fill the new frame", hint: "What is around the old picture is drawn." },
  change: { title: "Redraw all", hint: "The whole picture is drawn anew, more or less like it. Select a part to change only that." },
  new: { title: "Draw", hint: "The canvas is empty: a picture is drawn from the words alone." },
};

/** @param {Kind} kind @param {Document} of @param {Wanted} wanted
 * @param {{image?: string, mask?: string}} given ids of uploads @returns {Wish} */
export function wish(kind, of, wanted, given) {
  const { width, height } = of.frame;
  /** @type {Wish} */
  const made = { prompt: wanted.prompt, model: wanted.model, count: wanted.count };
  if (wanted.negative.trim()) made.negative = wanted.negative;
  if (wanted.steps) made.steps = Number(wanted.steps);
  if (wanted.seed) made.seed = Number(wanted.seed);
  if (kind === "new") return { ...made, size: `${width}x${height}` };
  made.image = given.image;
  if (kind === "expand") {
    const by = /** @type {NonNullable<ReturnType<typeof sides>>} */ (sides(of));
    return { ...made, expand: `left=${by.left},top=${by.top},right=${by.right},bottom=${by.bottom}` };
  }
  if (kind === "change") return { ...made, size: `${width}x${height}`, strength: wanted.change };
  made.mask = given.mask;
  if (wanted.strength < 1) made.strength = wanted.strength;
  return wanted.closely ? { ...made, only_masked: wanted.around } : made;
}

/** The usual size of a model's pictures, as the server tells it; 512 by 512 where it does not.
 * @param {import("../api.js").Model | undefined} model @returns {[number, number]} width and height */
export function usual(model) {
  const found = /(\d+)\D+(\d+)/.exec(model?.details?.["config.defaults.size"] ?? "");
  return found ? [Number(found[2]), Number(found[1])] : [512, 512];
}
