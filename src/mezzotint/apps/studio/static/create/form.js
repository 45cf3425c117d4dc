// What is asked for in Create, which outlives the page.
import { ApiError } from "../api.js";
import { submit } from "../live.js";
import { go, kept, models, say, fields } from "../store.js";
import { signal } from "../ui.js";
import { STYLES, unstyled } from "./styles.js";

/** @typedef {import("../api.js").Options} Options */
/** @typedef {import("../api.js").Wish} Wish */

/**
 * @typedef {object} Form
 * @property {string} prompt
 * @property {string} model
 * @property {string} style words at the end of the prompt
 * @property {string} size
 * @property {number} count
 * @property {string} seed
 * @property {boolean} locked whether the seed stays
 * @property {Record<string, string | string[] | boolean>} more all other options, as they are typed
 */

/** @type {Form} */
const FIRST = {
  prompt: "", model: "icons", style: "emoji, noto style", size: "", count: 4, seed: "", locked: false, more: {},
};

export const form = kept("create", FIRST);
/** @type {import("../ui.js").Signal<string[]>} */
export const history = kept("history", /** @type {string[]} */ ([]));
/** What is wrong, by field. @type {import("../ui.js").Signal<Record<string, string>>} */
export const wrong = signal({});
/** Whether all options are shown. */
export const wide = kept("more", false);
const PAST = 200;

/** @param {Partial<Form>} changed */
export function change(changed) {
  form.value = { ...form.value, ...changed };
  const gone = Object.keys(changed);
  if (gone.some((name) => name in wrong.value)) {
    wrong.value = Object.fromEntries(Object.entries(wrong.value).filter(([name]) => !gone.includes(name)));
  }
}

/** Another value of an option; "" and false are the model's own.
 * @param {string} name @param {string | string[] | boolean} value */
export function changeMore(name, value) {
  const { [name]: _, ...rest } = form.value.more;
  const empty = value === "" || value === false || (Array.isArray(value) && !value.length);
  form.value = { ...form.value, more: empty ? rest : { ...rest, [name]: value } };
  if (name in wrong.value) wrong.value = {};
}

/** What the server is asked for. @param {Form} asked @returns {Wish} */
export function wishOf(asked) {
  const styled = asked.style && STYLES[asked.model] && asked.prompt.trim();
  /** @type {Wish} */
  const wish = {
    ...asked.more,
    prompt: styled ? `${asked.prompt.trim()}, ${asked.style}` : asked.prompt.trim(),
    model: asked.model,
    count: asked.count,
  };
  if (asked.size) wish.size = asked.size;
  if (asked.locked && asked.seed) wish.seed = Number(asked.seed) > Number.MAX_SAFE_INTEGER ? 0 : Number(asked.seed);
  return wish;
}

// --- pictures as prompts ------------------------------------------------------------------------

export const MOST_REFERENCES = 5;
/** @typedef {{id: string, weight: number}} Reference id of an upload or an output; weight 0 to 1 */

/** @returns {Reference[]} */
export function references() {
  const held = form.value.more["image-prompt"];
  return (Array.isArray(held) ? held : []).map((text) => {
    const [id = "", weight = "1"] = text.split(":");
    return { id, weight: Number(weight) };
  });
}

/** @param {Reference[]} all */
export function refer(all) {
  if (all.length > MOST_REFERENCES) say(`At most ${MOST_REFERENCES} pictures go together.`, true);
  changeMore("image-prompt", all.slice(0, MOST_REFERENCES).map(({ id, weight }) => `${id}:${Math.round(weight * 100) / 100}`));
}

const NEVER = ["prompt", "model", "size", "seed", "count", "format"];

/** Options of a recipe that a job may be asked for. @param {Options} options @returns {Options} */
export function askable(options) {
  return Object.fromEntries(Object.entries(options)
    .filter(([name, value]) => value !== false && name in fields.value));
}

/**
 * Fill Create in with the options of a recipe.
 * @param {Options} options @param {{locked?: boolean, count?: number, more?: Options}} [how]
 */
export function fill(options, how = {}) {
  const given = askable(options);
  const model = String(given.model ?? form.value.model);
  const [prompt, style] = unstyled(model, String(given.prompt ?? ""));
  const more = Object.fromEntries(Object.entries({ ...given, ...how.more })
    .filter(([name]) => !NEVER.includes(name)));
  form.value = {
    prompt, style, model, more,
    size: typeof given.size === "string" ? given.size : "",
    count: how.count ?? form.value.count,
    seed: String(given.seed ?? ""),
    locked: how.locked ?? true,
  };
  wrong.value = {};
  if (Object.keys(more).length) wide.value = true;
}

/** Begin Create with a recipe, at the prompt. @param {Options} options
 * @param {{locked?: boolean, count?: number, more?: Options}} [how] */
export function begin(options, how) {
  fill(options, how);
  atPrompt();
}

/** Go to Create, at the prompt. */
export function atPrompt() {
  go("create");
  setTimeout(() => {
    scrollTo({ top: 0 });
    /** @type {HTMLElement | null} */ (document.querySelector("[data-first]"))?.focus();
  }, 80);
}

/** Ask for what the form says. */
export async function create() {
  const asked = form.value;
  if (!asked.prompt.trim() && !references().length) {
    wrong.value = { prompt: "Say what to draw." };
    return;
  }
  if (models.value.length && !models.value.some((model) => model.name === asked.model)) {
    wrong.value = { model: `There is no model ${asked.model} here.` };
    return;
  }
  if (asked.prompt.trim()) history.value = [asked.prompt.trim(), ...history.value.filter((past) => past !== asked.prompt.trim())].slice(0, PAST);
  try {
    const live = await submit(wishOf(asked));
    wrong.value = {};
    const seed = live.job.value.asked?.seed;
    if (!asked.locked && seed !== undefined) form.value = { ...form.value, seed: String(seed) };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.field) {
      wrong.value = { [error.field]: error.message };
      if (!(error.field in form.value)) wide.value = true;
    } else say(error.message, true);
  }
}
