// The pictures that Create begins with, and how far it goes from them.
import { Icon } from "../icons.js";
import { Picture } from "../parts.js";
import { html } from "../ui.js";
import { changeMore, form, wrong } from "./form.js";

/** @type {[string, string][]} */
const KINDS = [["image", "Start"], ["mask", "Mask"], ["reference", "Reference"]];

/** Where a picture of an id can be seen: of an output, or of what was given. @param {string} id */
export const addressOf = (id) => (id.length === 32 ? `/v1/outputs/${id}/file` : `/v1/files/${id}`);

/** @param {Event} event */
const valueOf = (event) => /** @type {HTMLInputElement} */ (event.target).value;

export function Inputs() {
  const more = form.value.more;
  const given = KINDS.filter(([name]) => typeof more[name] === "string");
  if (!given.length) return null;
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
    ${more.image && !more.expand && !more.mask && html`<label class="field grow"><span>How far from it: ${strength.toFixed(2)}</span>
      <input type="range" min="0.05" max="1" step="0.05" value=${strength} onInput=${(/** @type {Event} */ event) => changeMore("strength", valueOf(event))} /></label>`}
    ${more.expand && html`<label class="field grow"><span>Draw around it, in pixels or as W:H</span>
      <input value=${String(more.expand)} onInput=${(/** @type {Event} */ event) => changeMore("expand", valueOf(event))} /></label>`}
  </div>`;
}
