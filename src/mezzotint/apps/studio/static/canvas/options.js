// @ts-check
/** What the tool in hand can be told, above the picture. */

import { Icon } from "../icons.js";
import { html, useState } from "../ui.js";
import { framed, sides } from "./document.js";
import { select } from "./keys.js";
import * as masks from "./masks.js";
import { blank } from "./raster.js";
import { choose, options, revision, tool } from "./setting.js";
import { cover } from "./paint.js";
import { toolOf, write } from "./tools.js";
import { wrapped } from "./transform.js";
import { boxNow, mirror, rotate, turn } from "./turning.js";

/** @typedef {import("./editor.js").Editor} Editor */

/** @param {Event} event */
const at = (event) => /** @type {HTMLInputElement} */ (event.target);

/** @param {{label: string, value: number, min: number, max: number, step?: number, unit?: string, onChange: (value: number) => void}} props */
export function Slider({ label, value, min, max, step = 1, unit = "", onChange }) {
  return html`<label class="cv-slider"><span>${label}</span>
    <input type="range" min=${min} max=${max} step=${step} value=${value} onInput=${(/** @type {Event} */ event) => onChange(Number(at(event).value))} />
    <output>${value}${unit}</output></label>`;
}

function Colour() {
  return html`<label class="cv-colour"><span class="hidden">Colour</span>
    <input type="color" value=${options.value.colour} onInput=${(/** @type {Event} */ event) => choose({ colour: at(event).value })} /></label>`;
}

/** Sizes feel even when they grow by a share. */
function Size() {
  const { size } = options.value;
  return html`<label class="cv-slider"><span>Size</span>
    <input type="range" min="0" max="100" value=${Math.round((Math.log(size) / Math.log(400)) * 100)}
      aria-valuetext=${`${size} pixels`} onInput=${(/** @type {Event} */ event) => choose({ size: Math.max(Math.round(400 ** (Number(at(event).value) / 100)), 1) })} />
    <output>${size} px</output></label>`;
}

const percent = (/** @type {number} */ value) => Math.round(value * 100);

function Brush() {
  const { hardness, opacity, pressure } = options.value;
  return html`<${Size} />
    <${Slider} label="Hardness" value=${percent(hardness)} min=${0} max=${100} unit=" %" onChange=${(/** @type {number} */ n) => choose({ hardness: n / 100 })} />
    <${Slider} label="Opacity" value=${percent(opacity)} min=${1} max=${100} unit=" %" onChange=${(/** @type {number} */ n) => choose({ opacity: n / 100 })} />
    <label class="cv-check"><input type="checkbox" checked=${pressure} onChange=${(/** @type {Event} */ event) => choose({ pressure: at(event).checked })} /> Pen pressure</label>`;
}

/** @param {{label: string, value: string, all: [string, string][], onChange: (value: any) => void}} props */
function Choice({ label, value, all, onChange }) {
  return html`<div class="cv-choice" role="group" aria-label=${label}>${all.map(([name, title]) => html`<button key=${name} type="button"
    class="button small" aria-pressed=${value === name} onClick=${() => onChange(name)}>${title}</button>`)}</div>`;
}

function Hows() {
  /** @type {[string, string][]} */
  const all = [["new", "New"], ["add", "Add"], ["take", "Take away"], ["both", "Both"]];
  return html`<${Choice} label="With what is selected" value=${options.value.how} all=${all} onChange=${(/** @type {any} */ how) => choose({ how })} />`;
}

/** @param {{editor: Editor}} props */
function Selecting({ editor }) {
  revision.value;
  return html`<div class="row">
    <button type="button" class="button small" onClick=${() => select("all")}>All</button>
    <button type="button" class="button small" disabled=${!editor.selection} onClick=${() => select("none")}>None</button>
    <button type="button" class="button small" disabled=${!editor.selection} onClick=${() => select("other")}>Invert</button>
  </div>`;
}

/** Numbers for those who do not drag. @param {{names: string[], first: number[], title: string, whole?: boolean, act: (numbers: number[]) => void}} props */
function Exactly({ names, first, title, whole = true, act }) {
  const [given, setGiven] = useState(first);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    act(whole ? given.map(Math.round) : given);
  };
  return html`<details class="cv-exactly"><summary class="button small">Exactly …</summary>
    <form onSubmit=${submit}>${names.map((name, i) => html`<label key=${name} class="field"><span>${name}</span>
      <input type="number" step="any" value=${given[i]} onInput=${(/** @type {Event} */ event) => setGiven(given.map((old, j) => (i === j ? Number(at(event).value) || 0 : old)))} /></label>`)}
      <button class="button small primary" type="submit">${title}</button></form></details>`;
}

/** @param {{editor: Editor}} props */
function Box({ editor }) {
  const { frame } = editor.document;
  const act = (/** @type {number[]} */ [x, y, width, height]) => {
    const mask = blank(frame, 1);
    cover(mask, { x: frame.x + x, y: frame.y + y, width: Math.max(width, 0), height: Math.max(height, 0) }, () => true);
    editor.select("select", masks.combine(editor.selection, mask, options.value.how));
  };
  return html`<${Exactly} names=${["Left", "Top", "Width", "Height"]} first=${[0, 0, frame.width, frame.height]} title="Select" act=${act} />`;
}

/** @param {{editor: Editor}} props */
function Frame({ editor }) {
  revision.value;
  const { frame } = editor.document, new_ = sides(editor.document);
  const act = (/** @type {number[]} */ [left, top, right, bottom]) => {
    const width = Math.max(frame.width + left + right, 8), height = Math.max(frame.height + top + bottom, 8);
    if (width > 8192 || height > 8192) return;
    editor.apply("frame", (document) => framed(document, { x: frame.x - left, y: frame.y - top, width, height }));
  };
  return html`<span class="soft">${frame.width} × ${frame.height}${new_ ? " · what is tinted is new: draw it, or paint it" : " · drag an edge; Alt: by single pixels"}</span>
    ${new_ && html`<button type="button" class="button small" onClick=${() => editor.apply("keep the frame", (document) => ({ ...document, known: null }))}>Leave it empty</button>`}
    <${Exactly} names=${["Left", "Top", "Right", "Bottom"]} first=${[0, 0, 0, 0]} title="Add" act=${act} />`;
}

/** The layer in hand. @param {{editor: Editor}} props */
function Turning({ editor }) {
  revision.value;
  const box = boxNow(editor), { frame } = editor.document;
  if (!box) return html`<span class="soft">Drag a layer, or the arrow keys: there is nothing on this one</span>`;
  const [width, height] = [Math.abs(box.width), Math.abs(box.height)];
  const first = [box.x - width / 2 - frame.x, box.y - height / 2 - frame.y, width, height, box.angle].map((value) => Math.round(value * 10) / 10);
  const act = (/** @type {number[]} */ [left, top, wide, high, angle]) => turn(editor, "move and turn", () => {
    const [w, h] = [wide, high].map((size) => Math.min(Math.max(Math.round(size), 1), 8192));
    return { x: frame.x + left + w / 2, y: frame.y + top + h / 2, width: w * Math.sign(box.width), height: h * Math.sign(box.height), angle: wrapped(angle) };
  });
  return html`<button type="button" class="button small" onClick=${() => mirror(editor, "across")}>Mirror</button>
    <button type="button" class="button small" onClick=${() => mirror(editor, "down")}>Upside down</button>
    <button type="button" class="button small" onClick=${() => rotate(editor, 90)}>Quarter turn</button>
    <${Exactly} key=${first.join(" ")} names=${["Left", "Top", "Width", "Height", "Angle"]} first=${first} whole=${false} title="Apply" act=${act} />
    <span class="soft">${width} × ${height}${box.angle ? `, ${first[4]}°` : ""}</span>`;
}

/** @param {{editor: Editor}} props */
function Text({ editor }) {
  const { frame } = editor.document;
  const put = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter") return;
    const from = { x: frame.x + frame.width * 0.1, y: frame.y + frame.height / 2, pressure: 1 };
    write(editor, options.value, from);
  };
  const { text, letters } = options.value;
  return html`<${Colour} /><label class="cv-text"><span class="hidden">Text</span>
      <input type="text" placeholder="Text: click where it begins, or Enter" value=${text} onKeyDown=${put} onInput=${(/** @type {Event} */ event) => choose({ text: at(event).value })} /></label>
    <${Slider} label="Height" value=${letters} min=${6} max=${300} unit=" px" onChange=${(/** @type {number} */ n) => choose({ letters: n })} />`;
}

function Shapes() {
  const { shape, line } = options.value;
  /** @type {[string, string][]} */
  const all = [["rectangle", "Rectangle"], ["ellipse", "Ellipse"], ["line", "Line"]];
  return html`<${Colour} /><${Choice} label="Shape" value=${shape} all=${all} onChange=${(/** @type {any} */ name) => choose({ shape: name })} />
    ${shape === "line" ? html`<${Size} />` : html`<${Slider} label="Outline" value=${line} min=${0} max=${60} unit=${line ? " px" : ": filled"} onChange=${(/** @type {number} */ n) => choose({ line: n })} />`}`;
}

/** @param {{editor: Editor}} props */
export function ToolOptions({ editor }) {
  revision.value;
  const held = toolOf(tool.value);
  const inner = {
    brush: () => html`<${Colour} /><${Brush} />`,
    eraser: () => html`<${Brush} />`,
    fill: () => html`<${Colour} /><${Slider} label="Tolerance" value=${options.value.tolerance} min=${0} max=${255} onChange=${(/** @type {number} */ n) => choose({ tolerance: n })} />`,
    shape: () => html`<${Shapes} />`,
    text: () => html`<${Text} editor=${editor} />`,
    pick: () => html`<${Colour} /><span class="soft">Click a colour; Alt does so with the brush</span>`,
    mask: () => html`<${Size} /><${Hows} /><${Selecting} editor=${editor} />`,
    select: () => html`<${Hows} /><${Selecting} editor=${editor} /><${Box} editor=${editor} key=${`${editor.document.frame.width} ${editor.document.frame.height}`} />`,
    lasso: () => html`<${Hows} /><${Selecting} editor=${editor} />`,
    move: () => html`<${Turning} editor=${editor} />`,
    frame: () => html`<${Frame} editor=${editor} />`,
    pan: () => html`<span class="soft">Drag; two fingers pinch; the wheel zooms; Space holds this tool</span>`,
  }[held.name];
  return html`<div class="cv-options" role="group" aria-label=${`${held.title}: options`}>
    <strong><${Icon} name=${held.icon} /> <span>${held.title}</span></strong>${inner?.()}</div>`;
}
