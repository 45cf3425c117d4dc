// The pictures that Create begins with, and how each acts.
import { api } from "../api.js";
import { Icon } from "../icons.js";
import { Picture } from "../parts.js";
import { attempt, fields, modelOf } from "../store.js";
import { html, useState } from "../ui.js";
import { Picker } from "../viewer/picker.js";
import { changeMore, form, refer, references, wrong } from "./form.js";

/** @typedef {"image" | "mask" | "reference" | "image-prompt"} Role */

/** @type {[Role, string][]} */
const ONE = [["image", "Start"], ["mask", "Mask"], ["reference", "To be edited"]];

/** Where a picture of an id can be seen: of an output, or of what was given. @param {string} id */
export const addressOf = (id) => (id.length === 32 ? `/v1/outputs/${id}/file` : `/v1/files/${id}`);

/** @param {Event} event */
const valueOf = (event) => /** @type {HTMLInputElement} */ (event.target).value;

/** As what the model can take a picture. @returns {[Role, string, string][]} with what it is called, and means */
function roles() {
  const model = modelOf(form.value.model);
  /** @type {[Role, string, string, boolean][]} */
  const all = [
    ["image", "Start", "It is drawn after this picture.", true],
    ["mask", "Mask", "Only what is white in it is drawn anew.", typeof form.value.more.image === "string"],
    ["image-prompt", "Reference", "A picture as a part of the prompt: what it shows and how it looks are mixed in together.", model?.image_prompts === true],
    ["reference", "To be edited", "The words say what changes in it.", model?.usual?.edits === true && "reference" in fields.value],
  ];
  return all.filter(([, , , can]) => can).map(([name, label, means]) => [name, label, means]);
}

/** @param {Role} role @param {string} id */
function put(role, id) {
  if (role === "image-prompt") refer([...references(), { id, weight: 0.5 }]);
  else changeMore(role, id);
  if (role === "image") changeMore("strength", form.value.more.strength ?? "0.6");
}

/** The button that adds a picture, and its dialog. */
export function AddPicture() {
  const [isOpen, setOpen] = useState(false);
  const [role, setRole] = useState(/** @type {Role} */ ("image"));
  const all = roles();
  const now = all.find(([name]) => name === role) ?? all[0];
  const take = (/** @type {string} */ id) => { put(now?.[0] ?? "image", id); setOpen(false); };
  const give = async (/** @type {File} */ file) => {
    const given = await attempt(api.upload(file, file.name));
    if (given) take(given.id);
  };
  return html`<button type="button" class="button small" onClick=${() => { setRole(references().length ? "image-prompt" : "image"); setOpen(true); }}>
      <${Icon} name="image" /><span>Picture</span></button>
    ${isOpen && html`<${Picker} title="Begin with a picture" note="or drop one on the page" onOutput=${(/** @type {import("../api.js").Output} */ output) => take(output.file)}
      onFile=${give} onClose=${() => setOpen(false)}>
      ${all.length > 1 && html`<div class="row" role="group" aria-label="As what">${all.map(([name, label]) => html`<button key=${name} type="button" class="button small"
        aria-pressed=${name === now?.[0]} onClick=${() => setRole(name)}>${label}</button>`)}</div>`}
      <p class="soft">${now?.[2]}</p>
    <//>`}`;
}

/** Pictures as prompts, each with its weight. */
function References() {
  const all = references();
  const weigh = (/** @type {number} */ n, /** @type {number} */ weight) => refer(all.map((each, i) => (i === n ? { ...each, weight } : each)));
  return html`${all.map(({ id, weight }, n) => html`<figure key=${`${n} ${id}`} class="input weighed">
    <${Picture} src=${addressOf(id)} alt="" />
    <figcaption><label><span class="small-text">Reference ${n + 1}: ${Math.round(weight * 100)} %</span>
      <input type="range" min="0.05" max="1" step="0.05" value=${weight} aria-valuetext=${`${Math.round(weight * 100)} %`}
        onInput=${(/** @type {Event} */ event) => weigh(n, Number(valueOf(event)))} /></label></figcaption>
    <button type="button" class="bare" aria-label=${`Take reference ${n + 1} out`} onClick=${() => refer(all.filter((_, i) => i !== n))}><${Icon} name="close" /></button>
  </figure>`)}
  ${wrong.value["image-prompt"] && html`<small class="bad" role="alert">${wrong.value["image-prompt"]}</small>`}`;
}

export function Inputs() {
  const more = form.value.more;
  const given = ONE.filter(([name]) => typeof more[name] === "string");
  if (!given.length && !references().length) return null;
  const strength = Number(more.strength ?? 0.6);
  const takeOut = (/** @type {string} */ name) => {
    const gone = name === "image" ? ["image", "mask", "strength", "expand", "only-masked"] : [name];
    gone.forEach((each) => changeMore(each, ""));
  };
  return html`<div class="inputs">
    ${given.map(([name, label]) => html`<figure key=${name} class="input">
      <${Picture} src=${addressOf(String(more[name]))} alt="" />
      <figcaption>${label}${wrong.value[name] && html`<small class="bad" role="alert">${wrong.value[name]}</small>`}</figcaption>
      <button type="button" class="bare" aria-label=${`Take the ${label.toLowerCase()} out`} onClick=${() => takeOut(name)}><${Icon} name="close" /></button>
    </figure>`)}
    <${References} />
    ${more.image && !more.expand && !more.mask && html`<label class="field grow"><span>How far from it: ${strength.toFixed(2)}</span>
      <input type="range" min="0.05" max="1" step="0.05" value=${strength} onInput=${(/** @type {Event} */ event) => changeMore("strength", valueOf(event))} /></label>`}
    ${more.expand && html`<label class="field grow"><span>Draw around it, in pixels or as W:H</span>
      <input value=${String(more.expand)} onInput=${(/** @type {Event} */ event) => changeMore("expand", valueOf(event))} /></label>`}
  </div>`;
}
