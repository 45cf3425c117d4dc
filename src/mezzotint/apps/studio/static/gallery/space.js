// How much lies on the disk, and what can go.
import { api } from "../api.js";
import { Dialog, size } from "../parts.js";
import { attempt, say } from "../store.js";
import { html, useEffect, useState } from "../ui.js";

/** @param {{onClose: () => void}} props */
export function Space({ onClose }) {
  const [found, setFound] = useState(/** @type {import("../api.js").Space | null} */ (null));
  const read = () => void attempt(api.space()).then((told) => setFound(told ?? null));
  useEffect(read, []);
  const away = async () => {
    const gone = await attempt(api.forgetUnused());
    if (!gone) return;
    say(`${gone.count} gone, ${size(gone.bytes)}.`);
    read();
  };
  const one = (/** @type {string} */ name, /** @type {{count: number, bytes: number}} */ of) => html`<div><dt>${name}</dt><dd>${of.count}, ${size(of.bytes)}</dd></div>`;
  return html`<${Dialog} title="Space" onClose=${onClose}>
    ${found && html`<dl class="about">${one("made", found.outputs)}${one("given", found.uploads)}<div><dt>free on the disk</dt><dd>${size(found.free)}</dd></div></dl>
      <p class="soft small-text">Pictures that were made are thrown away in the gallery: Choose. Of those that were given, and the layers of canvases as they were before,
        ${found.unused.count} are in no picture's recipe, no canvas and no job.</p>
      <button type="button" class="button danger" disabled=${!found.unused.count} onClick=${away}>Throw these away: ${size(found.unused.bytes)}</button>`}
  <//>`;
}
