// Pictures that look like another one: of the gallery, or of a file.
import { api } from "../api.js";
import { addressOf } from "../create/inputs.js";
import { Icon } from "../icons.js";
import { Picture } from "../parts.js";
import { attempt, go, say } from "../store.js";
import { html, signal } from "../ui.js";

/** What is sought for: the id of an output or an upload, and what it is called.
 * @type {import("../ui.js").Signal<{id: string, name: string} | null>} */
export const like = signal(/** @type {{id: string, name: string} | null} */ (null));

/** @param {import("../api.js").Output} output */
export function moreLike(output) {
  like.value = { id: output.id, name: output.prompt };
  go("gallery");
  scrollTo({ top: 0 });
}

/** @param {File | undefined} file */
export async function likeFile(file) {
  if (!file) return;
  say(`Looking at ${file.name || "the picture"} …`);
  const given = await attempt(api.upload(file, file.name));
  if (given) like.value = { id: given.id, name: file.name || "a picture" };
}

/** A button that asks for a file. */
export function LikeFile() {
  const take = (/** @type {Event} */ event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    likeFile(field.files?.[0]);
    field.value = "";
  };
  return html`<label class="button small" title="Or drop a picture here"><${Icon} name="image" /><span>Like a picture</span>
    <input type="file" class="hidden" accept="image/*" onChange=${take} /></label>`;
}

/** What is sought for now. */
export function Liked() {
  const sought = like.value;
  if (!sought) return null;
  return html`<div class="inputs"><figure class="input">
    <${Picture} src=${addressOf(sought.id)} alt="" />
    <figcaption>Those like ${sought.name}, the most alike first</figcaption>
    <button type="button" class="bare" aria-label="Not by looks" onClick=${() => { like.value = null; }}><${Icon} name="close" /></button>
  </figure></div>`;
}
