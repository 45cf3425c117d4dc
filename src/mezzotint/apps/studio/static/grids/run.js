// @ts-check
/** A grid while it is made: its jobs are asked for a few at a time, and found again after a reload. */

import { api, ApiError, request } from "../api.js";
import { enter, isOpen } from "../live.js";
import { kept, pause, say } from "../store.js";
import { batch, signal } from "../ui.js";
import { byModel, cells } from "./axes.js";
import { sheet } from "./sheet.js";

/** @typedef {import("./axes.js").Axis} Axis @typedef {import("./axes.js").Cell} Cell @typedef {import("../live.js").Live} Live */
/** @typedef {{id: string, prompt: string, axes: Axis[], all: string[][], cells: Cell[], jobs: (string | null)[], errors: Record<number, string>, going: boolean}} Grid */

/** @type {import("../ui.js").Signal<Grid | null>} */
export const grid = kept("grid", /** @type {Grid | null} */ (null));
/** The jobs of the cells, as far as they are known. @type {import("../ui.js").Signal<Record<number, Live>>} */
export const lives = signal({});

/** Begin one. @param {import("../api.js").Wish} base @param {Axis[]} axes @throws {import("./axes.js").AxisError} */
export function begin(base, axes) {
  const made = cells(base, axes);
  const id = crypto.getRandomValues(new Uint32Array(3)).join("-");
  batch(() => {
    lives.value = {};
    grid.value = { id, prompt: String(base.prompt), axes, ...made, jobs: made.cells.map(() => null), errors: {}, going: true };
  });
  submit(id);
}

/** Ask for what has not been asked for: the key makes asking twice the same. @param {string} id */
async function submit(id) {
  const now = () => (grid.peek()?.id === id && grid.peek()?.going ? /** @type {Grid} */ (grid.peek()) : null);
  for (const i of byModel(now()?.cells ?? [])) {
    for (let again = true; again && now(); ) {
      const held = /** @type {Grid} */ (now());
      again = false;
      if (held.jobs[i] || held.errors[i]) break;
      try {
        const { id: job } = await api.submit(held.cells[i].wish, `grid-${id}-${i}`);
        const live = enter(await api.job(job));
        const latest = grid.peek();
        if (latest?.id !== id) return;
        batch(() => {
          lives.value = { ...lives.peek(), [i]: live };
          grid.value = { ...latest, jobs: latest.jobs.map((job, j) => (j === i ? live.id : job)) };
        });
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        again = error.status === 429 || error.status === 0 || error.status >= 500;
        if (again) await pause(3000); // the queue is full, or nobody answers
        else {
          const latest = grid.peek();
          if (latest?.id === id) grid.value = { ...latest, errors: { ...latest.errors, [i]: error.message } };
        }
      }
    }
  }
  const ended = now();
  if (ended) grid.value = { ...ended, going: false };
}

let resumed = false;

/** Find the jobs of the last grid again. */
export async function resume() {
  if (resumed) return;
  resumed = true;
  const held = grid.peek();
  if (!held) return;
  for (const [i, job] of held.jobs.entries()) {
    if (!job || lives.peek()[i]) continue;
    const found = await api.job(job).catch(() => null);
    if (grid.peek()?.id !== held.id) return;
    if (found) lives.value = { ...lives.peek(), [i]: enter(found) };
  }
  if (held.going) submit(held.id);
}

/** Stop what runs and waits. */
export async function stop() {
  const held = grid.peek();
  if (!held) return;
  grid.value = { ...held, going: false };
  for (const live of Object.values(lives.peek())) {
    if (isOpen(live.job.peek())) await api.cancel(live.id).then(enter, () => {});
  }
}

export function clear() {
  grid.value = null;
  lives.value = {};
}

/** What stands above columns, beside rows, over tables. @param {Grid} of @param {0 | 1 | 2} axis @param {number} i */
export function label(of, axis, i) {
  const value = of.all[axis][i];
  return value === undefined ? "" : `${of.axes[axis].field.replace("prompt: search and replace", "prompt")} ${value}`.replaceAll("_", " ");
}

/** The grid as one picture. @param {Grid} of */
export async function exported(of) {
  const [columns, rows, tables] = of.all.map((each) => Math.max(each.length, 1));
  const parts = [];
  for (let z = 0; z < tables; z++) {
    const pictures = [];
    for (let i = z * rows * columns; i < (z + 1) * rows * columns; i++) {
      const output = lives.peek()[i]?.job.peek().outputs[0];
      const answer = output && (await request("GET", output.url).catch(() => null));
      pictures.push(answer ? await createImageBitmap(await answer.blob()) : null);
    }
    parts.push({
      title: label(of, 2, z), pictures,
      columns: of.all[0].map((_, i) => label(of, 0, i)), rows: of.all[1].map((_, i) => label(of, 1, i)),
    });
  }
  const blob = await sheet(of.prompt, parts, "A view of pictures made with Mezzotint. Their credentials, watermarks and recipes are in the single pictures.");
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: `grid ${of.prompt.replace(/[^\p{L}\p{N} _-]/gu, "").slice(0, 60)}.png` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  say("The sheet is a view: the marks are in the single pictures");
}
