// The prompt and what stands beside it.
import { Icon } from "../icons.js";
import { usePopup } from "../parts.js";
import { beside, fields, modelNames, modelOf, samplers } from "../store.js";
import { html, useEffect, useId, useRef, useState } from "../ui.js";
import { change, changeMore, create, form, history, references, wide, wrong } from "./form.js";
import { AddPicture, Inputs } from "./inputs.js";
import { STYLES } from "./styles.js";

/** @param {Event} event */
const valueOf = (event) => /** @type {HTMLInputElement} */ (event.target).value;

const SIZES = [
  ["", "Usual size"], ["square", "Square"], ["portrait", "Portrait 2:3"], ["landscape", "Landscape 3:2"],
  ["tall", "Tall 9:16"], ["wide", "Wide 16:9"],
];

/** @param {{name: string, label: string, children: import("../ui.js").Child, hint?: string}} props */
function Field({ name, label, children, hint }) {
  const said = wrong.value[name];
  return html`<label class="field"><span title=${hint}>${label}</span>${children}
    ${said && html`<small class="wrong" role="alert">${said}</small>`}</label>`;
}

/** The prompt: Ctrl-Enter asks for it, the arrows go through those before. */
function Prompt() {
  const at = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [past, setPast] = useState(-1);
  const said = wrong.value.prompt;
  const id = useId();
  useEffect(() => {
    const box = at.current;
    if (!box) return;
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, 260)}px`;
  }, [form.value.prompt]);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const box = /** @type {HTMLTextAreaElement} */ (event.target);
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      setPast(-1);
      create();
    } else if (event.key === "Escape") {
      /** @type {HTMLElement | null} */ (document.querySelector("main .tile-open"))?.focus();
    } else if ((event.ctrlKey || event.metaKey) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      weigh(box, event.key === "ArrowUp" ? 0.1 : -0.1);
    } else if (event.key === "ArrowUp" && box.selectionStart === 0 && past < history.value.length - 1) {
      event.preventDefault();
      setPast(past + 1);
      change({ prompt: history.value[past + 1] ?? "" });
    } else if (event.key === "ArrowDown" && past >= 0 && box.selectionEnd === box.value.length) {
      event.preventDefault();
      setPast(past - 1);
      change({ prompt: past > 0 ? history.value[past - 1] ?? "" : "" });
    }
  };
  return html`<div class="prompt">
    <label class="hidden" for=${id}>What to draw</label>
    <textarea id=${id} ref=${at} data-first rows="1" placeholder=${references().length ? "words, or none" : "a red fox"} spellcheck="true" maxlength="10000"
      aria-invalid=${said ? "true" : undefined} aria-describedby=${said ? `${id}-wrong` : undefined}
      value=${form.value.prompt} onInput=${(/** @type {Event} */ event) => { setPast(-1); change({ prompt: valueOf(event) }); }}
      onKeyDown=${onKey}></textarea>
    ${said && html`<small class="bad" id=${`${id}-wrong`} role="alert">${said}</small>`}
  </div>`;
}

/** More or less weight for the words that are chosen. @param {HTMLTextAreaElement} box @param {number} step */
function weigh(box, step) {
  let { selectionStart: from, selectionEnd: to, value } = box;
  if (from === to) {
    while (from > 0 && /[\w-]/.test(value[from - 1] ?? "")) from -= 1;
    while (to < value.length && /[\w-]/.test(value[to] ?? "")) to += 1;
  }
  if (from === to) return;
  const around = /^\(([^()]*):([\d.]+)\)$/;
  let words = value.slice(from, to);
  let weight = 1;
  const whole = /\([^()]*:[\d.]+\)/g;
  for (const match of value.matchAll(whole)) { // the brackets that are there already
    if (match.index <= from && to <= match.index + match[0].length) {
      [from, to] = [match.index, match.index + match[0].length];
      const parts = around.exec(match[0]);
      words = parts?.[1] ?? words;
      weight = Number(parts?.[2] ?? 1);
    }
  }
  weight = Math.round((weight + step) * 10) / 10;
  const made = weight === 1 ? words : `(${words}:${weight})`;
  box.value = value.slice(0, from) + made + value.slice(to);
  box.setSelectionRange(from, from + made.length);
  change({ prompt: box.value });
}

function History() {
  const { isOpen, setOpen, at } = usePopup();
  if (!history.value.length) return null;
  return html`<div class="popup" ref=${at} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Escape" && setOpen(false)}>
    <button type="button" class="button small" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>History</button>
    ${isOpen && html`<div class="popup-list left past">
      ${history.value.slice(0, 40).map((past) => html`<button key=${past} type="button"
        onClick=${() => { change({ prompt: past }); setOpen(false); }}><span>${past}</span></button>`)}
      <button type="button" class="bad" onClick=${() => { history.value = []; setOpen(false); }}><span>Forget these</span></button>
    </div>`}
  </div>`;
}

function Writing() {
  return html`<details class="writing"><summary>How to write it</summary>
    <dl>
      <div><dt><code>(fox:1.3)</code></dt><dd>more of it, where the model can weigh words: choose words and press Ctrl and the up or down arrow</dd></div>
      <div><dt><code>${"{red|blue|green}"} fox</code></dt><dd>one of these, chosen by the seed: four pictures, perhaps four colours</dd></div>
      <div><dt><code>__animal__</code></dt><dd>a line of the file <code>wildcards/animal.txt</code> below the server's models</dd></div>
      <div><dt><code>${"<lora:name:0.8>"}</code></dt><dd>an adapter of the folder <code>loras</code></dd></div>
    </dl>
    ${LISTS.map(([kind, label, write]) => beside.value[kind].length > 0 && html`<p key=${kind} class="row small-text"><span class="soft">${label}:</span>
      ${beside.value[kind].map((name) => html`<button key=${name} type="button" class="button small" onClick=${() => add(write(name))}>${name}</button>`)}</p>`)}
    </details>`;
}

/** Put words at the end of the prompt. @param {string} words */
const add = (words) => change({ prompt: `${form.value.prompt.trimEnd()} ${words}`.trimStart() });

/** @type {["loras" | "embeddings" | "wildcards", string, (name: string) => string][]} */
const LISTS = [
  ["loras", "Adapters", (name) => `<lora:${name}:0.8>`],
  ["embeddings", "Learnt words", (name) => `embedding:${name}`],
  ["wildcards", "Lists", (name) => `__${name}__`],
];

/** One option of "more". @param {{name: string, label: string, place?: string, list?: string[], mode?: string}} props */
function More({ name, label, place = "the model's", list, mode }) {
  const value = String(form.value.more[name] ?? "");
  const bad = wrong.value[name] ? "true" : undefined;
  return html`<${Field} name=${name} label=${label}>${list
    ? html`<select value=${value} aria-invalid=${bad} onChange=${(/** @type {Event} */ event) => changeMore(name, valueOf(event))}>
        <option value="">${place}</option>${list.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
        ${value && !list.includes(value) && html`<option value=${value}>${value}</option>`}</select>`
    : html`<input inputmode=${mode} placeholder=${place} value=${value} aria-invalid=${bad}
        onInput=${(/** @type {Event} */ event) => changeMore(name, valueOf(event).trim() ? valueOf(event) : "")} />`}<//>`;
}

/** @param {{name: string, label: string}} props */
function Check({ name, label }) {
  return html`<label class="check"><input type="checkbox" checked=${form.value.more[name] === true}
    onChange=${(/** @type {Event} */ event) => changeMore(name, /** @type {HTMLInputElement} */ (event.target).checked)} /><span>${label}</span></label>`;
}

const SHOWN = new Set([
  "negative", "guidance", "steps", "sampler", "spacing", "tile", "interval", "rescale", "apg", "commercial", "image", "strength", "mask",
  "expand", "reference", "image-prompt",
]);

/** What a recipe brought along that has no field here: it can be taken out. */
function Rest() {
  const rest = Object.entries(form.value.more).filter(([name]) => !SHOWN.has(name));
  if (!rest.length) return null;
  return html`<div class="row rest"><span class="soft">Also:</span>${rest.map(([name, value]) => html`
    <span key=${name} class=${wrong.value[name] ? "chip wrong" : "chip"} title=${wrong.value[name]}>${name}${value === true ? "" : ` ${Array.isArray(value) ? value.join(", ") : value}`}
      <button type="button" aria-label=${`Leave ${name} out`} onClick=${() => changeMore(name, "")}><${Icon} name="close" /></button></span>`)}</div>`;
}

/** @param {string} name */
function defaultOf(name) {
  return modelOf(form.value.model)?.details?.[`config.defaults.${name}`];
}

function Options() {
  const usual = (/** @type {string} */ name) => {
    const value = defaultOf(name);
    return value ? `${value} (the model's)` : "the model's";
  };
  return html`<div class="options">
    <${More} name="negative" label="Negative prompt" place="nothing" />
    <${More} name="guidance" label="Guidance" place=${usual("guidance")} mode="decimal" />
    <${More} name="steps" label="Steps" place=${usual("steps")} mode="numeric" />
    <${More} name="sampler" label="Sampler" place=${usual("sampler")} list=${samplers.value.samplers} />
    <${More} name="spacing" label="Spacing" place=${usual("spacing")} list=${samplers.value.spacings} />
    <${More} name="interval" label="Guidance interval" place=${usual("interval")} />
    <${More} name="rescale" label="Guidance rescale" place="0" mode="decimal" />
    <${More} name="tile" label="Seamless" place="no" list=${["both", "x", "y"]} />
    <${Check} name="apg" label="Adaptive projected guidance" />
    ${"commercial" in fields.value && html`<${Check} name="commercial" label="Only if all licences allow commercial use" />`}
    <${Rest} />
  </div>`;
}

function Seed() {
  const { seed, locked } = form.value;
  return html`<${Field} name="seed" label="Seed"><span class="with-button">
    <input inputmode="numeric" aria-label="Seed" placeholder="any" value=${locked ? seed : ""} disabled=${!locked && !!seed && false}
      onInput=${(/** @type {Event} */ event) => change({ seed: valueOf(event).replace(/\D/g, ""), locked: /\d/.test(valueOf(event)) })} />
    <button type="button" class="bare" aria-pressed=${locked} aria-label="Keep the seed" title=${locked ? "The seed is kept" : seed ? `Keep the last seed, ${seed}` : "Any seed"}
      disabled=${!seed} onClick=${() => change({ locked: !locked })}><${Icon} name=${locked ? "lock" : "unlock"} /></button></span><//>`;
}

export function Composer() {
  const { model, style, size, count } = form.value;
  const styles = STYLES[model];
  const custom = size && !SIZES.some(([value]) => value === size);
  return html`<form class="composer" aria-label="Create" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); create(); }}>
    <div class="composer-top"><${Prompt} />
      <button type="submit" class="button primary create" title="Create (Enter)"><${Icon} name="spark" /><span>Create</span></button></div>
    <${Inputs} />
    <div class="choices">
      ${(modelNames.value.length > 1 || !styles) && html`<${Field} name="model" label="Model"><select value=${model} onChange=${(/** @type {Event} */ event) => change({ model: valueOf(event) })}>
        ${modelNames.value.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        ${!modelNames.value.includes(model) && html`<option value=${model}>${model}</option>`}</select><//>`}
      ${styles && html`<${Field} name="style" label="Style"><select value=${style} onChange=${(/** @type {Event} */ event) => change({ style: valueOf(event) })}>
        <option value="">As the prompt says</option>
        ${styles.map(([name, words]) => html`<option key=${words} value=${words}>${name}</option>`)}</select><//>`}
      <${Field} name="size" label="Size"><select value=${size} aria-invalid=${wrong.value.size ? "true" : undefined} onChange=${(/** @type {Event} */ event) => {
        const value = valueOf(event);
        if (value !== "own") change({ size: value });
        else change({ size: prompt("Width and height, as 128x96, or an aspect, as 4:3", "128x96")?.trim() ?? "" });
      }}>
        ${SIZES.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
        ${custom && html`<option value=${size}>${size}</option>`}<option value="own">Another …</option></select><//>
      <${Field} name="count" label="Pictures"><select value=${String(count)} onChange=${(/** @type {Event} */ event) => change({ count: Number(valueOf(event)) })}>
        ${[...new Set([1, 2, 4, 6, 9, 16, count])].sort((a, b) => a - b).map((n) => html`<option key=${n} value=${String(n)}>${n}</option>`)}</select><//>
      <${Seed} />
      <div class="row choices-end">
        <${History} /><${AddPicture} />
        <button type="button" class="button small" aria-expanded=${wide.value} onClick=${() => { wide.value = !wide.value; }}>
          <${Icon} name="sliders" /><span>${wide.value ? "Less" : "More"}</span></button>
      </div>
    </div>
    ${wide.value && html`<${Options} /><${Writing} />`}
  </form>`;
}
