// What all views share: where we are, what there is, what is said to the user.
import { api, ApiError } from "./api.js";
import { computed, effect, signal } from "./ui.js";

/** @typedef {import("./api.js").Model} Model */
/** @template T @typedef {import("./ui.js").Signal<T>} Signal */

/** A signal that outlives the page. @template T @param {string} name @param {T} first
 * @returns {Signal<T>} */
export function kept(name, first) {
  const key = `mezzotint.${name}`;
  let held = first;
  try {
    const text = localStorage.getItem(key);
    if (text !== null) held = JSON.parse(text);
  } catch { /* damaged, or storage is forbidden: it begins anew */ }
  const found = signal(held);
  effect(() => {
    const value = found.value;
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch { /* full, or forbidden: it lasts as long as the page */ }
  });
  return found;
}

// --- where we are: #/gallery/<id of an output that is looked at> --------------------------------

const read = () => {
  const [view = "", shown = ""] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: view || "create", shown: /^[0-9a-f]{32}$/.test(shown) ? shown : null };
};

export const place = signal(read());
addEventListener("hashchange", () => { place.value = read(); });

/** @param {string} view @param {string | null} [shown] an output over it */
export function go(view, shown = null) {
  location.hash = shown ? `/${view}/${shown}` : `/${view}`;
}

/** Look at an output, over the view that is open. @param {string | null} id */
export const view = (id) => go(place.value.view, id);

// --- what there is ------------------------------------------------------------------------------

/** @type {Signal<Model[]>} */
export const models = signal([]);
/** What lies beside the models. @type {Signal<Omit<import("./api.js").Kinds, "models">>} */
export const beside = signal({ loras: [], embeddings: [], controls: [], wildcards: [] });
/** @type {Signal<{samplers: string[], spacings: string[]}>} */
export const samplers = signal({ samplers: [], spacings: [] });
/** What a job may ask for, and what it means. @type {Signal<Record<string, string>>} */
export const fields = signal({});

export const modelNames = computed(() =>
  models.value.filter((each) => !each.error).map((each) => each.name));

/** @param {string} name @returns {Model | undefined} */
export const modelOf = (name) => models.value.find((each) => each.name === name);

let tell = () => {};
/** When it is known what a job may ask for. @type {Promise<void>} */
export const learnt = new Promise((done) => { tell = done; });

/** @param {number} ms */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Ask what there is, until the worker has said it. */
export async function learn() {
  for (;;) {
    try {
      fields.value = await api.fields();
      tell();
      const [kinds, found] = await Promise.all([api.models(), api.samplers()]);
      [models.value, samplers.value, beside.value] = [kinds.models, found, kinds];
      if (models.value.length) return;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    await pause(1000);
  }
}

// --- what is said -------------------------------------------------------------------------------

/** @typedef {{key: number, text: string, bad: boolean}} Note */
/** @type {Signal<Note[]>} */
export const notes = signal([]);
let count = 0;

/** Say something for a while. @param {string} text @param {boolean} [bad] */
export function say(text, bad = false) {
  const note = { key: ++count, text, bad };
  notes.value = [...notes.value.slice(-3), note];
  setTimeout(() => drop(note.key), bad ? 9000 : 4000);
}

/** @param {number} key */
export const drop = (key) => { notes.value = notes.value.filter((note) => note.key !== key); };

/** Do something, and say what went wrong. @template T @param {Promise<T>} work
 * @returns {Promise<T | undefined>} */
export async function attempt(work) {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(error.message, true);
    return undefined;
  }
}

// --- light and dark -----------------------------------------------------------------------------

/** @type {Signal<"auto" | "light" | "dark">} */
export const theme = kept("theme", /** @type {"auto" | "light" | "dark"} */ ("auto"));
effect(() => { document.documentElement.dataset.theme = theme.value; });

/** A picture that another view hands over, and the view that opens takes: it sets this to null.
 * @type {Signal<import("./api.js").Output | null>} */
export const handed = signal(/** @type {import("./api.js").Output | null} */ (null));

/** What one goes through in the viewer. @type {Signal<import("./api.js").Output[]>} */
export const sequence = signal(/** @type {import("./api.js").Output[]} */ ([]));
