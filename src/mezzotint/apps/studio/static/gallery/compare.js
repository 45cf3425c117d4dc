// Two pictures, one over the other, with an edge between them that is moved.
import { Dialog, Picture } from "../parts.js";
import { html, useState } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */

/** @param {{two: [Output, Output], onClose: () => void}} props */
export function Compare({ two, onClose }) {
  const [at, setAt] = useState(50);
  const [left, right] = two;
  return html`<${Dialog} title="Compare" wide onClose=${onClose}>
    <div class="compare" style=${{ aspectRatio: `${left.width} / ${left.height}` }}>
      <${Picture} src=${right.url} alt=${`Right: ${right.prompt}, seed ${right.seed}`} />
      <div class="compare-over" style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }}><${Picture} src=${left.url} alt=${`Left: ${left.prompt}, seed ${left.seed}`} /></div>
      <span class="compare-edge" style=${{ left: `${at}%` }}></span>
      <input type="range" min="0" max="100" value=${at} aria-label="How much of the left picture is seen"
        onInput=${(/** @type {Event} */ event) => setAt(Number(/** @type {HTMLInputElement} */ (event.target).value))} />
    </div>
    <div class="compare-words">${two.map((each) => html`<p key=${each.id} class="small-text">${each.prompt}<br /><span class="soft">seed ${each.seed} · ${each.width}×${each.height}</span></p>`)}</div>
  <//>`;
}
