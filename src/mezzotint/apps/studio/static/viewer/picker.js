// Pictures to choose from: of the gallery, or a file.
import { api } from "../api.js";
import { Icon } from "../icons.js";
import { Dialog, Picture } from "../parts.js";
import { attempt } from "../store.js";
import { html, useEffect, useState } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */

/**
 * @param {{title: string, note?: string, several?: boolean, onOutput: (output: Output) => void, onFile: (file: File) => void,
 *   onClose: () => void, children?: import("../ui.js").Child}} props
 */
export function Picker({ title, note, several = false, onOutput, onFile, onClose, children }) {
  const [outputs, setOutputs] = useState(/** @type {Output[]} */ ([]));
  const [words, setWords] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => attempt(api.outputs({ limit: 48, q: words }).then(setOutputs)), words ? 250 : 0);
    return () => clearTimeout(timer);
  }, [words]);
  const files = (/** @type {Event} */ event) => {
    for (const each of /** @type {HTMLInputElement} */ (event.target).files ?? []) onFile(each);
  };
  return html`<${Dialog} title=${title} wide=${true} onClose=${onClose}>
    <div class="stack">
      ${children}
      <div class="row"><label class="button file"><${Icon} name="folder" /> From a file<input type="file" class="hidden" accept="image/*" multiple=${several} onChange=${files} /></label>
        ${note && html`<span class="soft">${note}</span>`}</div>
      <input type="search" placeholder="Search the gallery" aria-label="Search the gallery" value=${words}
        onInput=${(/** @type {Event} */ event) => setWords(/** @type {HTMLInputElement} */ (event.target).value)} />
      ${!outputs.length && html`<p class="soft">${words ? "Nothing fits what is sought." : "There is nothing in the gallery yet."}</p>`}
      <div class="picks">${outputs.map((each) => html`<button key=${each.id} type="button" aria-label=${each.prompt} title=${each.prompt} onClick=${() => onOutput(each)}>
        <${Picture} src=${each.url} alt="" lazy=${true} /></button>`)}</div>
    </div>
  <//>`;
}
