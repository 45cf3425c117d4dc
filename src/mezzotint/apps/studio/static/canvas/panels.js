// @ts-check
/** Beside the picture: what is to be drawn, and the layers. Below it: what came back. */

import { Icon } from "../icons.js";
import { cancel, isOpen } from "../live.js";
import { Picture } from "../parts.js";
import { attempt, modelNames, view } from "../store.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import * as documents from "./document.js";
import { Slider } from "./options.js";
import { KINDS } from "./plan.js";
import { revision, WANTED } from "./setting.js";

/** @typedef {import("./session.js").Session} Session @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("./document.js").Layer} Layer @typedef {import("./plan.js").Wanted} Wanted */

/** @param {Event} event */
const at = (event) => /** @type {HTMLInputElement} */ (event.target);

// --- what is to be drawn ------------------------------------------------------------------------

/** @param {{session: Session}} props */
export function DrawPanel({ session: { editor, making } }) {
  revision.value;
  const wanted = /** @type {Wanted} */ ({ ...WANTED, ...editor.kept.settings.wanted });
  const change = (/** @type {Partial<Wanted>} */ by) => {
    editor.set({ wanted: { ...wanted, ...by } });
    if ("feather" in by && making.chosen.peek() >= 0) making.look(making.chosen.peek(), by.feather);
    revision.value++;
  };
  const kind = making.kind, live = making.live.value;
  const busy = making.sending.value || (live !== null && isOpen(live.job.value));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    making.begin(wanted);
  };
  const keys = (/** @type {KeyboardEvent} */ event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); };
  const text = (/** @type {"prompt" | "negative" | "steps" | "seed"} */ name) => (/** @type {Event} */ event) => change({ [name]: at(event).value });
  return html`<form class="cv-draw" onSubmit=${submit} onKeyDown=${keys} aria-label="Draw">
    <label class="field"><span>${KINDS[kind].title}</span>
      <textarea rows="3" data-first placeholder=${kind === "fill" ? "What shall be there?" : "What shall it show?"} value=${wanted.prompt} onInput=${text("prompt")}></textarea></label>
    <p class="soft cv-hint">${KINDS[kind].hint}</p>
    ${(kind === "fill" || kind === "expand") && html`<${Slider} label="Soft edge" value=${wanted.feather} min=${0} max=${64} unit=" px" onChange=${(/** @type {number} */ feather) => change({ feather })} />`}
    ${(kind === "fill" || kind === "change") && html`<${Slider} label="Strength" value=${Math.round((kind === "fill" ? wanted.strength : wanted.change) * 100)} min=${5} max=${100} step=${5} unit=" %" onChange=${(/** @type {number} */ n) => change({ [kind === "fill" ? "strength" : "change"]: n / 100 })} />`}
    <${Slider} label="Candidates" value=${wanted.count} min=${1} max=${8} onChange=${(/** @type {number} */ count) => change({ count })} />
    <details><summary>More</summary><div class="cv-more">
      <label class="field"><span>Model</span><select value=${wanted.model} onChange=${(/** @type {Event} */ event) => change({ model: at(event).value })}>
        ${[...new Set([wanted.model, ...modelNames.value])].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <label class="field"><span>Negative prompt</span><input type="text" value=${wanted.negative} onInput=${text("negative")} /></label>
      <div class="cv-two">
        <label class="field"><span>Steps</span><input type="number" min="1" max="1000" placeholder="usual" value=${wanted.steps} onInput=${text("steps")} /></label>
        <label class="field"><span>Seed</span><input type="number" min="0" placeholder="by chance" value=${wanted.seed} onInput=${text("seed")} /></label>
      </div>
      ${kind === "fill" && html`<label class="cv-check"><input type="checkbox" checked=${wanted.closely} onChange=${(/** @type {Event} */ event) => change({ closely: at(event).checked })} /> Look at the selection closely</label>
        ${wanted.closely && html`<${Slider} label="and around it" value=${wanted.around} min=${0} max=${256} step=${8} unit=" px" onChange=${(/** @type {number} */ around) => change({ around })} />`}`}
    </div></details>
    ${busy && live
      ? html`<button type="button" class="button" onClick=${() => attempt(cancel(live.id))}><${Icon} name="stop" /> Stop</button>`
      : html`<button type="submit" class="button primary" disabled=${busy}><${Icon} name="spark" /> ${KINDS[kind].title}</button>`}
    ${live && isOpen(live.job.value) && html`<progress max=${live.job.value.steps || 1} value=${live.job.value.step} aria-label="How far it is"></progress>`}
  </form>`;
}

// --- what came back -----------------------------------------------------------------------------

/** @param {{session: Session, onAgain: () => void}} props */
export function Candidates({ session: { making }, onAgain }) {
  const live = making.live.value;
  if (!live) return null;
  const job = live.job.value, here = making.candidates.value, chosen = making.chosen.value;
  const made = new Map(here.map((each, i) => [each.output.place, i]));
  const count = isOpen(job) ? job.count : Math.max(here.length, 1);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") making.discard();
    else if (event.key === "Enter" && chosen >= 0 && !(event.target instanceof HTMLButtonElement && event.target.dataset.act)) making.use();
    else if (by) making.look(Math.min(Math.max(chosen + by, -1), here.length - 1));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<section class="cv-candidates" aria-label="What came back" onKeyDown=${keys}>
    <div class="cv-strip" role="group" aria-label="Candidates">
      <button type="button" class="cv-thumb cv-before" aria-pressed=${chosen < 0} onClick=${() => making.look(-1)}>Before</button>
      ${[...Array(count).keys()].map((n) => {
        const i = made.get(n) ?? -1, each = here[i];
        if (each) return html`<button key=${n} type="button" class="cv-thumb" aria-pressed=${i === chosen} aria-label=${`Candidate ${n + 1}, seed ${each.output.seed}`}
          title=${`seed ${each.output.seed}`} onClick=${() => making.look(i)}><${Picture} src=${each.output.url} alt="" /></button>`;
        const seen = live.previews.value[n];
        return html`<span key=${n} class="cv-thumb waits" aria-label=${`Candidate ${n + 1} is being drawn`}>${seen && html`<img src=${seen} alt="" />`}</span>`;
      })}
    </div>
    <div class="row">
      <button type="button" data-act="use" class="button primary" disabled=${chosen < 0} onClick=${() => making.use()}><${Icon} name="check" /> Use</button>
      <button type="button" data-act="look" class="button" disabled=${chosen < 0} title="Everything about it: verify it, take it with you" onClick=${() => view(here[chosen]?.output.id ?? null)}><${Icon} name="eye" /> Look at it</button>
      <button type="button" data-act="again" class="button" disabled=${isOpen(job)} onClick=${onAgain}><${Icon} name="repeat" /> Again</button>
      <button type="button" data-act="discard" class="button" onClick=${() => making.discard()}><${Icon} name="close" /> Discard</button>
    </div>
  </section>`;
}

// --- layers -------------------------------------------------------------------------------------

/** A small picture of a layer. @param {{editor: Editor, layer: Layer}} props */
function Thumb({ editor, layer }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const context = canvas.current?.getContext("2d"), { frame } = editor.document;
    if (!canvas.current || !context) return;
    const by = Math.min(72 / frame.width, 72 / frame.height);
    canvas.current.width = Math.max(Math.round(frame.width * by), 1);
    canvas.current.height = Math.max(Math.round(frame.height * by), 1);
    const { width, height, x, y, data } = editor.at(layer.pixels), mask = layer.mask && editor.at(layer.mask);
    const shown = new ImageData(new Uint8ClampedArray(data), width, height);
    if (mask && mask.width === width && mask.height === height) for (let i = 0; i < mask.data.length; i++) shown.data[i * 4 + 3] *= mask.data[i] / 255;
    const whole = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (whole.getContext("2d")).putImageData(shown, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(whole, (x - frame.x) * by, (y - frame.y) * by, width * by, height * by);
  }, [layer.pixels, layer.mask, editor.document.frame]);
  return html`<canvas ref=${canvas} aria-hidden="true"></canvas>`;
}

/** @param {{editor: Editor, layer: Layer}} props */
function Row({ editor, layer }) {
  revision.value;
  const { document } = editor, active = layer.id === document.active;
  const [naming, setNaming] = useState(false);
  const rename = (/** @type {Event} */ event) => {
    setNaming(false);
    const name = at(event).value.trim();
    if (name && name !== layer.name) editor.apply("rename", (now) => documents.changed(now, layer.id, { name }));
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "F2") setNaming(true);
    else if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) editor.apply("order", (now) => documents.raised(now, layer.id, event.key === "ArrowUp" ? 1 : -1));
    else return;
    event.preventDefault();
  };
  const hide = () => editor.apply(layer.visible ? "hide" : "show", (now) => documents.changed(now, layer.id, { visible: !layer.visible }));
  const drop = (/** @type {DragEvent} */ event) => {
    const id = event.dataTransfer?.getData("text/x-layer");
    if (!id || id === layer.id) return;
    event.preventDefault();
    event.stopPropagation();
    editor.apply("order", (now) => documents.raised(now, id, now.layers.findIndex((each) => each.id === layer.id) - now.layers.findIndex((each) => each.id === id)));
  };
  return html`<li class=${active ? "cv-layer active" : "cv-layer"} draggable=${!naming} onDragStart=${(/** @type {DragEvent} */ event) => event.dataTransfer?.setData("text/x-layer", layer.id)}
      onDragOver=${(/** @type {DragEvent} */ event) => { if (event.dataTransfer?.types.includes("text/x-layer")) event.preventDefault(); }} onDrop=${drop}>
    <button type="button" class="bare" aria-label=${`${layer.visible ? "Hide" : "Show"} ${layer.name}`} aria-pressed=${layer.visible} onClick=${hide}>
      <${Icon} name=${layer.visible ? "eye" : "hidden"} /></button>
    ${naming
      ? html`<input type="text" class="grow" aria-label="Name of the layer" value=${layer.name} ref=${(/** @type {HTMLInputElement | null} */ input) => input?.focus()} onBlur=${rename}
          onKeyDown=${(/** @type {KeyboardEvent} */ event) => { if (event.key === "Enter") at(event).blur(); if (event.key === "Escape") { setNaming(false); event.stopPropagation(); } }} />`
      : html`<button type="button" class="cv-layer-name" aria-pressed=${active} onClick=${() => editor.choose(layer.id)} onDblClick=${() => setNaming(true)} onKeyDown=${keys}
          title="Double click or F2: another name; Alt and arrows: another place"><${Thumb} editor=${editor} layer=${layer} /><span>${layer.name}</span>
          ${layer.mask && html`<i class="cv-tag" title="It takes the place of what is below it">in place</i>`}</button>`}
  </li>`;
}

/** @param {{editor: Editor}} props */
export function LayersPanel({ editor }) {
  revision.value;
  const { document } = editor, layer = documents.layerOf(document);
  const act = (/** @type {string} */ label, /** @type {(now: documents.Document) => documents.Document} */ by) => () => editor.apply(label, by);
  const id = layer?.id ?? "", first = document.layers[0]?.id === id;
  /** @type {[string, string, boolean, () => void][]} */
  const acts = [
    ["plus", "New layer", true, act("layer", (now) => documents.added(now, documents.made(`Layer ${now.layers.length + 1}`, documents.nothing(now.frame))))],
    ["copy", "Copy the layer", Boolean(layer), act("copy", (now) => documents.doubled(now, id))],
    ["up", "Layer up", Boolean(layer), act("order", (now) => documents.raised(now, id, 1))],
    ["down", "Layer down", Boolean(layer), act("order", (now) => documents.raised(now, id, -1))],
    ["merge", "Merge with the layer below", Boolean(layer) && !first, () => editor.mergeDown()],
    ["trash", "Delete the layer", Boolean(layer), act("delete", (now) => documents.removed(now, id))],
  ];
  return html`<section class="cv-layers" aria-label="Layers">
    <div class="row"><h2>Layers</h2></div>
    <ul>${[...document.layers].reverse().map((each) => html`<${Row} key=${each.id} editor=${editor} layer=${each} />`)}</ul>
    ${layer && html`<label class="cv-slider"><span>Opacity</span>
      <input type="range" min="0" max="100" value=${Math.round(layer.opacity * 100)}
        onInput=${(/** @type {Event} */ event) => editor.preview(id, { opacity: Number(at(event).value) / 100 })}
        onChange=${(/** @type {Event} */ event) => { const opacity = Number(at(event).value) / 100; editor.apply("opacity", (now) => documents.changed(now, id, { opacity })); }} />
      <output>${Math.round(layer.opacity * 100)} %</output></label>`}
    <div class="cv-acts" role="group" aria-label="Of layers">${acts.map(([icon, title, can, run]) => html`<button key=${title} type="button" class="bare"
      aria-label=${title} title=${title} disabled=${!can} onClick=${run}><${Icon} name=${icon} /></button>`)}</div>
  </section>`;
}
