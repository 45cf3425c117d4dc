// What can be done from a picture: each is a job made from its recipe.
import { api, request } from "../api.js";
import { askable, atPrompt, begin, changeMore, form, refer, references } from "../create/form.js";
import { moreLike } from "../gallery/like.js";
import { submit } from "../live.js";
import { routes } from "../routes.js";
import { attempt, beside, fields, go, handed, learnt, modelNames, modelOf, say, view } from "../store.js";
import { signal } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {import("../api.js").Options} Options */
/** @typedef {import("../api.js").Wish} Wish */

/** @type {Map<string, Promise<Output>>} */
const read = new Map();

/** An output with its recipe; it never changes, but for what the user adds. @param {string} id */
export function whole(id) {
  const there = read.get(id) ?? api.output(id);
  read.set(id, there);
  there.catch(() => read.delete(id));
  return there;
}

/** @param {Output} output @returns {Promise<Options>} */
export async function optionsOf(output) {
  if (output.derived) return { prompt: output.prompt, ...(modelNames.value.includes(output.model) && { model: output.model }) };
  await learnt;
  return askable((await whole(output.id)).recipe?.options ?? {});
}

/** What is of the picture and not of how it is drawn. */
const OWN = ["seed", "size", "vary", "enlarge", "enlarge-strength", "enlarge-latent", "image", "mask", "strength", "expand",
  "only-masked", "reference", "region", "control", "tile", "image-prompt"];

/** @param {Options} options @param {string[]} names @returns {Options} */
const without = (options, names) =>
  Object.fromEntries(Object.entries(options).filter(([name]) => !names.includes(name)));

/** How much is added at a side: a half of it, in steps that every model takes.
 * @param {number} edge @param {number} share */
const share = (edge, share) => Math.max(64, Math.round((edge * share) / 64) * 64);

/** @param {Promise<Wish>} wished @param {string} text */
async function ask(wished, text) {
  const live = await attempt(wished.then(submit));
  if (!live) return;
  go("create");
  say(text);
  scrollTo({ top: 0 });
}

/** @param {Output} output @param {"subtle" | "strong"} how */
export const vary = (output, how) => ask(optionsOf(output).then((options) => {
  const before = options.vary ? `${options.vary},` : "";
  return { ...without(options, ["seed"]), vary: `${before}${options.seed}:${how}`, count: 4 };
}), how === "subtle" ? "Four that differ a little." : "Four that differ a lot.");

/** @param {Output} output */
export const enlarge = (output) => ask(optionsOf(output).then((options) => (
  { ...options, enlarge: Number(options.enlarge ?? 1) * 2, count: 1 }
)), "The same, at twice the size.");

/** @param {Output} output */
export const tiled = (output) => ask(optionsOf(output).then((options) => (
  { ...options, tile: "both", count: 1 }
)), "The same, with ends that fit together.");

/** @param {Output} output @param {string} expand @param {string} text */
const around = (output, expand, text) => ask(optionsOf(output).then((options) => (
  { ...without(options, OWN), image: output.file, expand, count: 4 }
)), text);

/** @param {Output} output */
export const zoomOut = (output) =>
  around(output, String(share(Math.max(output.width, output.height), 0.25)), "Four with more around.");

/** @param {Output} output @param {"left" | "right" | "top" | "bottom"} side */
export const pan = (output, side) => around(
  output, `${side}=${share(side === "left" || side === "right" ? output.width : output.height, 0.5)}`, `Four with more at the ${side}.`,
);

/** @param {Output} output */
export async function remix(output) {
  const options = await attempt(optionsOf(output));
  if (!options) return;
  begin(options, { locked: true });
  say("Its recipe is here: change the words, and create.");
}

/** @param {Output} output */
export async function asStart(output) {
  const options = await attempt(optionsOf(output));
  if (!options) return;
  begin(without(options, OWN), { locked: false, more: { image: output.file, strength: "0.6" } });
  say("It begins with this picture: say what to draw after it.");
}

/** @param {Output} output @param {string} control the network that follows it */
async function asStructure(output, control) {
  const options = await attempt(optionsOf(output));
  if (!options) return;
  begin(without(options, OWN), { locked: false, more: { control: [`${control}=${output.file}`] } });
  say(`${control} follows this picture: say what to draw.`);
}

/** The model that takes pictures as prompts: that of Create, or that of a picture; "" for none.
 * @param {Output} output */
export const promptedBy = (output) =>
  [form.value.model, output.model].find((name) => modelOf(name)?.image_prompts) ?? "";

/** What several pictures have in common, evenly: how much of each is said in Create.
 * @param {Output[]} outputs two to five, the first one's model */
export function blend(outputs) {
  const [first] = outputs;
  if (!first) return;
  begin({ model: promptedBy(first), prompt: "" }, { locked: false });
  refer(outputs.map(({ file }) => ({ id: file, weight: Math.round(20 / outputs.length) / 20 })));
  say(outputs.length > 1 ? "Say how much of each, and create; words may help." : "Add up to four others to it.");
}

/** What it shows and how it looks, mixed into what is asked for in Create: neither comes alone. @param {Output[]} outputs */
export function asReference(outputs) {
  const [first] = outputs;
  if (!first) return;
  form.value = { ...form.value, model: promptedBy(first) || form.value.model };
  refer([...references(), ...outputs.map(({ file }) => ({ id: file, weight: 0.5 }))]);
  atPrompt();
  say("It is a part of the prompt now: add words, and create.");
}

/** Mask it and paint on it. @param {Output} output */
export function onCanvas(output) {
  handed.value = output;
  go("canvas");
}

/** White in it is what is drawn anew. @param {Output} output */
function asMask(output) {
  changeMore("mask", output.file);
  atPrompt();
  say("What is white in it is drawn anew.");
}

/** @param {Output} output */
async function asEdited(output) {
  begin({ model: output.model, prompt: "" }, { locked: false, more: { reference: output.file } });
  say("Say what shall be changed in it.");
}

/** The very same once more: equal pixels on the same machine. @param {Output} output */
export const repeat = (output) =>
  ask(optionsOf(output).then((options) => ({ ...options, count: 1 })), "The same once more.");

/** @param {Output} output */
async function cutOut(output) {
  say("Removing the background …");
  const made = await attempt(api.cutout(output.id));
  if (!made) return;
  added.value++;
  view(made.id);
}

/** @param {Output} output @param {string} format */
export async function download(output, format) {
  const own = output.type.endsWith(`/${format}`);
  const path = own ? output.url : `/v1/outputs/${output.id}/export?format=${format}`;
  const answer = await attempt(request(own ? "GET" : "POST", path));
  if (!answer) return;
  const link = document.createElement("a");
  const name = output.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 50).replace(/^-+|-+$/g, "");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `${name || "picture"}_${output.seed}.${format === "jpeg" ? "jpg" : format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- favourites ---------------------------------------------------------------------------------

/** Those that were changed here, by id. @type {import("../ui.js").Signal<Record<string, boolean>>} */
export const hearts = signal({});

/** @param {Output} output */
export const isFavourite = (output) => hearts.value[output.id] ?? output.favourite ?? false;

/** @param {Output} output */
export async function favour(output) {
  const now = !isFavourite(output);
  hearts.value = { ...hearts.value, [output.id]: now };
  if ((await attempt(api.favour(output.id, now))) === undefined) hearts.value = { ...hearts.value, [output.id]: !now };
}

/** Those that were thrown away here. @type {import("../ui.js").Signal<Set<string>>} */
export const gone = signal(new Set());

/** Counts up when there is a new one that no job in Create has made. @type {import("../ui.js").Signal<number>} */
export const added = signal(0);

/** @param {Output} output */
export async function forget(output) {
  if (!confirm("Throw this picture away for good?")) return;
  if ((await attempt(api.forget(output.id))) === undefined) return;
  gone.value = new Set([...gone.value, output.id]);
  view(null);
  say("It is gone.");
}

/**
 * All that can be done, in the order of menus.
 * @param {Output} output
 * @returns {{name: string, label: string, icon: string, key?: string, run: () => void, group: string}[]}
 */
export function steps(output) {
  const drawn = !output.derived; // what was put together has no recipe to go on with
  const canvas = routes.some((route) => route.name === "canvas");
  /** @type {ReturnType<typeof steps>} */
  const of = [
    { name: "subtle", label: "Vary subtly", icon: "vary", key: "v", group: "vary", run: () => vary(output, "subtle") },
    { name: "strong", label: "Vary strongly", icon: "varies", key: "V", group: "vary", run: () => vary(output, "strong") },
    { name: "enlarge", label: "Enlarge twofold", icon: "enlarge", key: "e", group: "vary", run: () => enlarge(output) },
    { name: "remix", label: "Remix", icon: "remix", key: "r", group: "vary", run: () => remix(output) },
  ];
  /** @type {ReturnType<typeof steps>} */
  const all = [
    ...(drawn ? of : []),
    { name: "zoom", label: "Zoom out", icon: "expand", key: "z", group: "frame", run: () => zoomOut(output) },
    { name: "left", label: "Pan left", icon: "west", group: "frame", run: () => pan(output, "left") },
    { name: "right", label: "Pan right", icon: "east", group: "frame", run: () => pan(output, "right") },
    { name: "top", label: "Pan up", icon: "up", group: "frame", run: () => pan(output, "top") },
    { name: "bottom", label: "Pan down", icon: "down", group: "frame", run: () => pan(output, "bottom") },
    { name: "start", label: "Use as start", icon: "image", group: "use", run: () => asStart(output) },
  ];
  const use = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ icon, /** @type {() => void} */ run, /** @type {string} */ key = "") =>
    all.push({ name, label, icon, key, group: "use", run });
  use("like", "More like this", "search", () => moreLike(output), "l");
  if (promptedBy(output)) {
    use("reference", "Use as reference", "spark", () => asReference([output]));
    use("blend", "Blend with others", "blend", () => blend([output]));
  }
  if (typeof form.value.more.image === "string") use("mask", "Use as mask", "mask", () => asMask(output));
  if (modelOf(output.model)?.usual?.edits && "reference" in fields.value) use("edit", "Edit it in words", "text", () => asEdited(output));
  if (drawn) use("tile", "Make it tile", "tile", () => tiled(output));
  if (!output.transparent) use("cutout", "Remove the background", "half", () => cutOut(output));
  for (const name of beside.value.controls) {
    all.push({
      name: `control ${name}`, label: `Follow it with ${name}`, icon: "tree", group: "use", run: () => asStructure(output, name),
    });
  }
  if (canvas) {
    use("canvas", "Mask and paint", "brush", () => onCanvas(output));
  }
  return all;
}
