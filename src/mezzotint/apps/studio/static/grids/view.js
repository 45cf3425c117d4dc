// @ts-check
/** Grids: pictures of which one to three things change, in a table. */

import { Icon } from "../icons.js";
import { isOpen } from "../live.js";
import { Picture } from "../parts.js";
import { attempt, fields, kept, modelNames, samplers, view } from "../store.js";
import { html, useEffect } from "../ui.js";
import { AxisError, cells, REPLACE } from "./axes.js";
import { begin, clear, exported, grid, label, lives, resume, stop } from "./run.js";

/** @typedef {import("./axes.js").Axis} Axis @typedef {import("./run.js").Grid} Grid */
/** @typedef {{prompt: string, model: string, steps: string, seed: string, size: string, axes: Axis[]}} Asked */

/** @type {import("../ui.js").Signal<Asked>} */
const asked = kept("grid.asked", {
  prompt: "", model: "icons", steps: "", seed: "", size: "",
  axes: [{ field: "guidance", values: "1-3 [3]" }, { field: "seed", values: "1-3" }, { field: "", values: "" }],
});

/** @param {Partial<Asked>} by */
const change = (by) => { asked.value = { ...asked.value, ...by }; };
/** @param {Event} event */
const at = (event) => /** @type {HTMLInputElement} */ (event.target);

/** Fields that say which pictures, not how. */
const HIDDEN = new Set(["count", "image", "mask", "reference", "control", "region", "image-prompt"]);

/** @param {Asked} from @returns {import("../api.js").Wish} with a seed: cells differ in their axes alone */
function base({ prompt, model, steps, seed, size }) {
  /** @type {import("../api.js").Wish} */
  const made = { prompt, model, seed: seed ? Number(seed) : Math.floor(Math.random() * 2 ** 32) };
  if (steps) made.steps = Number(steps);
  if (size) made.size = size;
  return made;
}

/** @param {string} field */
function hint(field) {
  if (field === REPLACE) return "fox, owl, bear: the first is what stands in the prompt";
  if (field === "model") return modelNames.value.join(", ");
  if (field === "sampler") return samplers.value.samplers.slice(0, 3).join(", ");
  if (field === "spacing") return samplers.value.spacings.slice(0, 3).join(", ");
  return field ? "1, 2, 5 or 1-10 (+3) or 0-1 [5]" : "";
}

/** @param {{n: 0 | 1 | 2}} props */
function AxisRow({ n }) {
  const { axes } = asked.value, axis = axes[n], name = "XYZ"[n];
  const set = (/** @type {Partial<Axis>} */ by) => change({ axes: axes.map((each, i) => (i === n ? { ...each, ...by } : each)) });
  const all = [REPLACE, ...Object.keys(fields.value).filter((field) => !HIDDEN.has(field))];
  if (axis.field && !all.includes(axis.field)) all.push(axis.field);
  return html`<fieldset class="gr-axis"><legend>${name}<span class="soft"> ${["across", "down", "tables"][n]}</span></legend>
    <select aria-label=${`${name}: what changes`} value=${axis.field} onChange=${(/** @type {Event} */ event) => set({ field: at(event).value })}>
      <option value="">nothing</option>${all.map((field) => html`<option key=${field} value=${field} title=${fields.value[field]}>${field}</option>`)}</select>
    <input type="text" aria-label=${`${name}: values`} disabled=${!axis.field} placeholder=${hint(axis.field)} value=${axis.values} onInput=${(/** @type {Event} */ event) => set({ values: at(event).value })} />
  </fieldset>`;
}

function Form() {
  const now = asked.value;
  let count = 0, wrong = "";
  try {
    count = cells({ prompt: now.prompt, model: now.model }, now.axes).cells.length;
  } catch (error) {
    if (!(error instanceof AxisError)) throw error;
    wrong = error.message;
  }
  const busy = grid.value?.going || Object.values(lives.value).some((live) => isOpen(live.job.value));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (count && now.prompt.trim()) begin(base(now), now.axes);
  };
  const text = (/** @type {"prompt" | "model" | "steps" | "seed" | "size"} */ name) => (/** @type {Event} */ event) => change({ [name]: at(event).value });
  return html`<form class="gr-form" onSubmit=${submit}>
    <label class="field gr-prompt"><span>Prompt</span><input type="text" data-first required placeholder="What all of them show" value=${now.prompt} onInput=${text("prompt")} /></label>
    <div class="gr-base">
      <label class="field"><span>Model</span><select value=${now.model} onChange=${text("model")}>${[...new Set([now.model, ...modelNames.value])].map((name) => html`<option key=${name}>${name}</option>`)}</select></label>
      <label class="field"><span>Size</span><input type="text" placeholder="usual" value=${now.size} onInput=${text("size")} /></label>
      <label class="field"><span>Steps</span><input type="number" min="1" placeholder="usual" value=${now.steps} onInput=${text("steps")} /></label>
      <label class="field"><span>Seed</span><input type="number" min="0" placeholder="by chance" value=${now.seed} onInput=${text("seed")} /></label>
    </div>
    <div class="gr-axes"><${AxisRow} n=${0} /><${AxisRow} n=${1} /><${AxisRow} n=${2} /></div>
    <div class="row">
      <button class="button primary" type="submit" disabled=${!count || !now.prompt.trim()}><${Icon} name="matrix" /> ${count === 1 ? "Make 1 picture" : `Make ${count || "the"} pictures`}</button>
      ${busy && html`<button class="button" type="button" onClick=${stop}><${Icon} name="stop" /> Stop</button>`}
      <p class=${wrong ? "bad" : "soft"} role="status">${wrong}</p>
    </div>
  </form>`;
}

/** @param {{of: Grid, i: number}} props */
function Cell({ of, i }) {
  const live = lives.value[i], error = of.errors[i], job = live?.job.value;
  const { x, y, z } = of.cells[i], name = [label(of, 0, x), label(of, 1, y), label(of, 2, z)].filter(Boolean).join(", ");
  const output = job?.outputs[0];
  if (output) return html`<td><button type="button" class="gr-cell" aria-label=${name || "Open the picture"} title=${name} onClick=${() => view(output.id)}><${Picture} src=${output.url} alt="" lazy=${true} /></button></td>`;
  const wrong = error ?? job?.error?.message ?? (job?.state === "cancelled" ? "Stopped" : "");
  if (wrong) return html`<td><p class="gr-cell gr-wrong" title=${wrong}>${wrong}</p></td>`;
  const seen = live?.previews.value[0];
  return html`<td><span class=${job?.state === "running" ? "gr-cell gr-runs" : "gr-cell"} role="img" aria-label=${`${name} ${job?.state === "running" ? "is being made" : "waits"}`}>${seen && html`<img src=${seen} alt="" />`}</span></td>`;
}

/** @param {{of: Grid}} props */
function Tables({ of }) {
  const [columns, rows, tables] = of.all.map((each) => Math.max(each.length, 1));
  return html`${[...Array(tables).keys()].map((z) => html`<div key=${z} class="gr-scroll"><table class="gr-table">
    ${label(of, 2, z) && html`<caption>${label(of, 2, z)}</caption>`}
    ${of.all[0].length > 0 && html`<thead><tr>${of.all[1].length > 0 && html`<td></td>`}${of.all[0].map((_, x) => html`<th key=${x} scope="col">${label(of, 0, x)}</th>`)}</tr></thead>`}
    <tbody>${[...Array(rows).keys()].map((y) => html`<tr key=${y}>${of.all[1].length > 0 && html`<th scope="row">${label(of, 1, y)}</th>`}
      ${[...Array(columns).keys()].map((x) => html`<${Cell} key=${x} of=${of} i=${(z * rows + y) * columns + x} />`)}</tr>`)}</tbody>
  </table></div>`)}`;
}

export function Grids() {
  useEffect(() => { resume(); }, []);
  const of = grid.value;
  const done = of ? of.cells.filter((_, i) => lives.value[i]?.job.value.outputs.length).length : 0;
  return html`<h1 class="hidden">Grids</h1><${Form} />
    ${of && html`<section class="gr-result" aria-label="The grid">
      <div class="row"><h2>${of.prompt}</h2><span class="soft" role="status">${done} of ${of.cells.length}</span>
        <div class="row end"><button type="button" class="button" disabled=${!done} onClick=${() => attempt(exported(of))}><${Icon} name="download" /> Labelled sheet</button>
          <button type="button" class="bare" aria-label="Put the grid away" title="Put it away: the pictures stay in the gallery" onClick=${() => { stop(); clear(); }}><${Icon} name="close" /></button></div></div>
      <${Tables} of=${of} />
      <p class="soft">A sheet is a view. Credentials, watermarks and recipes are in the single pictures.</p>
    </section>`}`;
}
