// One picture, with everything about it and everything that can be done with it.
import { api, ApiError } from "../api.js";
import { Icon } from "../icons.js";
import { energy, Picture, size, since } from "../parts.js";
import { place, say, sequence, view } from "../store.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { addressOf } from "../create/inputs.js";
import { BoardsOf } from "../gallery/boards.js";
import { Copies } from "./copies.js";
import { Proofs } from "./proofs.js";
import { download, favour, forget, isFavourite, repeat, steps, whole } from "./steer.js";
import { keyed } from "./tile.js";
import { said, Tree } from "./tree.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {{name: string, option: string, licence: string, likely?: string, commercial?: string, clause?: string, attribution?: string[]}} Licence */

const FORMATS = ["png", "webp", "jpeg", "svg"];

/** @param {unknown} value @returns {string} */
function shown(value) {
  if (value === true) return "yes";
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (value && typeof value === "object") {
    return Object.entries(value).map(([name, each]) => `${name} ${shown(each)}`).join(", ");
  }
  return String(value);
}

/** What the recipe says in words, but for what stands elsewhere. */
const ELSEWHERE = new Set(["format", "prompt", "options", "files", "licences", "versions", "machine", "pixels", "energy", "marks", "lost"]);

/** @param {{output: Output}} props */
function About({ output }) {
  const recipe = output.recipe;
  if (!recipe) return null;
  /** @type {[string, string][]} */
  const rows = Object.entries(recipe).filter(([name]) => !ELSEWHERE.has(name))
    .map(([name, value]) => [name.replaceAll("_", " "), shown(value)]);
  rows.push(["file", `${output.type.replace("image/", "").toUpperCase()}, ${output.width} × ${output.height}, ${size(output.bytes)}`]);
  rows.push(["made", new Date(output.created).toLocaleString()]);
  if (recipe.machine) rows.push(["machine", shown(recipe.machine)]);
  if (recipe.versions) rows.push(["versions", shown(recipe.versions)]);
  const licences = /** @type {Licence[]} */ (recipe.licences ?? []);
  return html`<section><h3>What made it</h3>
    <dl class="about">
      ${licences.map((each) => html`<div key=${each.option + each.name}><dt>licence of ${each.name}</dt><dd>${each.licence}${each.likely ? `, likely ${each.likely}` : ""}
        ${each.commercial && html`<br /><span class="soft">commercial use: ${each.commercial}${each.clause ? `, ${each.clause}` : ""}</span>`}
        ${each.attribution && html`<details class="said"><summary>Who is to be named</summary>${each.attribution.map((line, n) => html`<p key=${n} class="soft">${line}</p>`)}</details>`}</dd></div>`)}
      ${output.energy && html`<div><dt>energy</dt><dd>${energy([output])}</dd></div>`}
      <div><dt>marks</dt><dd>${recipe.marks ? (output.derived ? "a watermark in its pixels" : "a watermark in the noise that it is made of") : "none"}</dd></div>
      ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl></section>`;
}

/** What it came from and what came from it. @param {{output: Output}} props */
function Family({ output }) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [isTree, setTree] = useState(false);
  useEffect(() => {
    let gone = false;
    setFound(null);
    api.family(output.id).then((family) => { if (!gone) setFound(family); }).catch(() => {});
    return () => { gone = true; };
  }, [output.id]);
  const kin = /** @type {(Output & {how: string})[]} */ ([...(found?.parents ?? []), ...(found?.children ?? [])]);
  if (!found || (!kin.length && !found.uploads.length)) return null;
  const one = (/** @type {Output & {how: string}} */ each) => html`<li key=${each.id}>
    <button type="button" class="kin" onClick=${() => view(each.id)} aria-label=${`Open: ${each.prompt}, seed ${each.seed}, ${said(each.how)}`}>
      <${Picture} src=${each.url} alt="" /></button><small class="soft">${said(each.how)}</small></li>`;
  return html`<section><div class="row"><h3>Family</h3>
      ${kin.length > 0 && html`<button type="button" class="button small end" onClick=${() => setTree(true)}><${Icon} name="tree" /><span>Family tree</span></button>`}</div>
    ${isTree && html`<${Tree} output=${output} onClose=${() => setTree(false)} />`}
    <div class="family">
      ${(found.parents.length > 0 || found.uploads.length > 0) && html`<p class="soft small-text">It came from</p><ul class="kins">
        ${found.parents.map(one)}
        ${found.uploads.map((/** @type {{file: string, name: string}} */ each) => html`<li key=${each.file}><span class="kin"><${Picture} src=${addressOf(each.file)} alt=${each.name || "given picture"} /></span><small class="soft">given</small></li>`)}</ul>`}
      ${found.children.length > 0 && html`<p class="soft small-text">From it came</p><ul class="kins">${found.children.map(one)}</ul>`}
    </div></section>`;
}

/** @param {{output: Output}} props */
function Steer({ output }) {
  const all = steps(output);
  const group = (/** @type {string} */ name) => all.filter((each) => each.group === name);
  return html`<section><h3>Go on from it</h3>
    <div class="steer">${["vary", "frame", "use"].map((name) => html`<div key=${name} class="steer-group">
      ${group(name).map((each) => html`<button key=${each.name} type="button" class="button small" title=${each.key ? `${each.label} (${each.key === "V" ? "Shift V" : each.key.toUpperCase()})` : undefined} onClick=${each.run}>
        <${Icon} name=${each.icon} /><span>${each.label}</span></button>`)}</div>`)}
    </div></section>`;
}

/** @param {{output: Output, late: boolean}} props late: another one is asked for, and is not here yet */
function Panel({ output, late }) {
  const loved = isFavourite(output);
  return html`<div class="panel" inert=${late}>
    <p class="panel-prompt">${output.prompt}</p>
    <p class="soft small-text">${[output.model, output.seed && `seed ${output.seed}`].filter(Boolean).map((each) => `${each} · `)}${output.width}×${output.height} · ${since(output.created)}</p>
    <div class="row">
      <button type="button" class="button small" aria-pressed=${loved} onClick=${() => favour(output)}><${Icon} name="heart" /><span>Favourite</span></button>
      <${BoardsOf} output=${output} />
      ${!output.derived && html`<button type="button" class="button small" onClick=${() => repeat(output)} title="The very same once more"><${Icon} name="repeat" /><span>Repeat</span></button>`}
      <button type="button" class="button small danger" onClick=${() => forget(output)}><${Icon} name="trash" /><span>Throw away</span></button>
    </div>
    <${Steer} output=${output} />
    <section><h3>Take it with you</h3><div class="row">
      ${FORMATS.map((format) => html`<button key=${format} type="button" class="button small" onClick=${() => download(output, format)}>
        <${Icon} name="download" /><span>${format.toUpperCase()}</span></button>`)}</div>
      <p class="soft small-text">Each carries the recipe and credentials; SVG is traced from it.</p></section>
    <${Proofs} output=${output} key=${output.id} />
    <${Family} output=${output} />
    <${About} output=${output} />
    ${!output.derived && html`<${Copies} output=${output} key=${output.id} />`}
  </div>`;
}

export function Viewer() {
  const id = place.value.shown;
  const [output, setOutput] = useState(/** @type {Output | null} */ (null));
  const at = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const before = useRef(/** @type {Element | null} */ (null));
  const isOpen = id !== null;
  useEffect(() => {
    if (!id) {
      setOutput(null);
      return undefined;
    }
    let gone = false;
    whole(id).then((found) => { if (!gone) setOutput(found); }).catch((error) => {
      if (!(error instanceof ApiError)) throw error;
      say(error.message, true);
      view(null);
    });
    return () => { gone = true; };
  }, [id]);
  useEffect(() => {
    const box = at.current;
    if (!isOpen || !box) return undefined;
    before.current = document.activeElement;
    box.showModal();
    return () => {
      box.close();
      /** @type {HTMLElement | null} */ (before.current)?.focus?.();
    };
  }, [isOpen]);
  const list = sequence.value;
  const now = list.findIndex((each) => each.id === id);
  const move = (/** @type {number} */ step) => {
    const next = now >= 0 ? list[now + step] : undefined;
    if (next) view(next.id);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const typing = /** @type {HTMLElement} */ (event.target).matches("input, textarea, select, [role=menuitem]");
    const above = /** @type {HTMLElement} */ (event.target).closest("dialog") !== at.current;
    if (typing || above || event.ctrlKey || event.metaKey || event.altKey || !output) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (!keyed(event, output)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<dialog ref=${at} class="viewer" aria-label=${output ? output.prompt || "A picture" : "A picture"} onKeyDown=${onKey}
    onCancel=${(/** @type {Event} */ event) => { event.preventDefault(); view(null); }}>
    ${isOpen && html`<div class="stage">
      ${output && html`<${Picture} src=${output.url} alt=${output.prompt} width=${output.width} height=${output.height} />`}
      <button type="button" class="bare stage-close" aria-label="Close" title="Close (Esc)" onClick=${() => view(null)}><${Icon} name="close" /></button>
      ${now > 0 && html`<button type="button" class="bare stage-left" aria-label="The picture before" onClick=${() => move(-1)}><${Icon} name="left" /></button>`}
      ${now >= 0 && now < list.length - 1 && html`<button type="button" class="bare stage-right" aria-label="The next picture" onClick=${() => move(1)}><${Icon} name="right" /></button>`}
    </div>
    ${output && html`<${Panel} output=${output} late=${output.id !== id} />`}`}
  </dialog>`;
}
