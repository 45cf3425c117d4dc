// @ts-check
/** The axes of a grid: values as people write them, and the wish of each cell. No DOM. */

/** @typedef {import("../api.js").Wish} Wish */
/** @typedef {{field: string, values: string}} Axis field "": none */
/** @typedef {{x: number, y: number, z: number, wish: Wish}} Cell */

export const REPLACE = "prompt: search and replace";
export const MOST = 1000;

/** What is wrong with an axis, in one line. */
export class AxisError extends Error {}

const NUMBER = String.raw`[+-]?\d+(?:\.\d+)?`;
const STEPPED = new RegExp(`^(${NUMBER})\\s*-\\s*(${NUMBER})(?:\\s*\\(\\s*(${NUMBER})\\s*\\))?$`);
const SPREAD = new RegExp(`^(${NUMBER})\\s*-\\s*(${NUMBER})\\s*\\[\\s*(\\d+)\\s*\\]$`);

/** Parts between commas; "in quotes, with commas" is one. @param {string} text @returns {{text: string, quoted: boolean}[]} */
function parts(text) {
  const found = [];
  for (const match of text.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,\n]*))\s*(?:[,\n]|$)/g)) {
    const quoted = match[1] !== undefined, part = quoted ? match[1].replaceAll('""', '"') : (match[2] ?? "").trim();
    if (quoted || part) found.push({ text: part, quoted });
    if (match.index + match[0].length >= text.length) break;
  }
  return found;
}

/** As few decimals as the numbers that were given. @param {number} value @param {string[]} given */
function plain(value, given) {
  const decimals = Math.max(...given.map((text) => (text.split(".")[1] ?? "").length));
  return String(Number(value.toFixed(Math.max(decimals, 0))));
}

/**
 * The values of an axis: `1, 2, 5`, a range `1-5`, in steps `1-10 (+3)`, so many between `0-1 [5]`.
 * @param {string} text @param {boolean} [ranges] whether 1-5 is a range @returns {string[]}
 * @throws {AxisError}
 */
export function values(text, ranges = true) {
  const found = parts(text).flatMap((part) => {
    if (!ranges || part.quoted) return [part.text];
    const spread = SPREAD.exec(part.text);
    if (spread) {
      const [from, to, count] = [Number(spread[1]), Number(spread[2]), Number(spread[3])];
      if (count < 2 || count > MOST) throw new AxisError(`${part.text}: 2 to ${MOST} values`);
      const whole = Number.isInteger(from) && Number.isInteger(to) && Math.abs(to - from) >= count - 1;
      return Array.from({ length: count }, (_, i) => {
        const value = from + ((to - from) * i) / (count - 1);
        return whole ? String(Math.round(value)) : String(Number(value.toFixed(4)));
      });
    }
    const stepped = STEPPED.exec(part.text);
    if (!stepped) return [part.text];
    const [from, to] = [Number(stepped[1]), Number(stepped[2])];
    const step = stepped[3] === undefined ? Math.sign(to - from) || 1 : Number(stepped[3]);
    if (!step || Math.sign(to - from) * Math.sign(step) < 0) throw new AxisError(`${part.text}: these steps never get there`);
    const count = Math.floor((to - from) / step + 1e-9) + 1;
    if (count > MOST) throw new AxisError(`${part.text}: ${count} values are too many`);
    return Array.from({ length: count }, (_, i) => plain(from + i * step, [stepped[1], stepped[2], stepped[3] ?? ""]));
  });
  if (found.length > MOST) throw new AxisError(`${found.length} values are too many`);
  return found;
}

/** @param {Axis} axis @returns {string[]} none for no axis @throws {AxisError} */
export function labels(axis) {
  if (!axis.field) return [];
  const found = values(axis.values, !["prompt", "negative", "model", REPLACE].includes(axis.field));
  if (!found.length) throw new AxisError(`${axis.field} has no values yet`);
  return found;
}

/** @param {Wish} wish @param {Axis} axis @param {string[]} all @param {number} i @returns {Wish} */
function set(wish, axis, all, i) {
  if (!axis.field) return wish;
  if (axis.field === REPLACE) {
    const prompt = String(wish.prompt);
    if (!prompt.includes(all[0])) throw new AxisError(`"${all[0]}" is not in the prompt: the first value is what is replaced`);
    return { ...wish, prompt: prompt.replaceAll(all[0], all[i]) };
  }
  if (all[i] === "true") return { ...wish, [axis.field]: true };
  return { ...wish, [axis.field]: all[i] };
}

/** The wishes of a grid; whole prompts are set before words in them are replaced.
 * @param {Wish} base @param {Axis[]} axes x, y, z @returns {{cells: Cell[], all: string[][]}} @throws {AxisError} */
export function cells(base, axes) {
  const all = axes.map(labels), counts = all.map((each) => Math.max(each.length, 1));
  const used = axes.map((axis) => axis.field).filter(Boolean);
  if (new Set(used).size < used.length) throw new AxisError("two axes are the same");
  const order = [0, 1, 2].sort((a, b) => Number(axes[a].field === REPLACE) - Number(axes[b].field === REPLACE));
  /** @type {Cell[]} */
  const found = [];
  if (counts[0] * counts[1] * counts[2] > MOST) throw new AxisError(`${counts[0] * counts[1] * counts[2]} pictures: at most ${MOST}`);
  for (let z = 0; z < counts[2]; z++)
    for (let y = 0; y < counts[1]; y++)
      for (let x = 0; x < counts[0]; x++) {
        const at = [x, y, z];
        /** @type {Wish} */
        let wish = { ...base, count: 1 };
        for (const i of order) wish = set(wish, axes[i], all[i], at[i]);
        found.push({ x, y, z, wish });
      }
  return { cells: found, all };
}

/** The order in which they are made: a model is loaded once. @param {Cell[]} of @returns {number[]} */
export const byModel = (of) => [...of.keys()].sort((a, b) => String(of[a].wish.model).localeCompare(String(of[b].wish.model)) || a - b);
