// The family tree of a picture: from the first that it came from to all that came from it.
import { api } from "../api.js";
import { Dialog, Picture } from "../parts.js";
import { attempt, view } from "../store.js";
import { html, useEffect, useState } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {import("../api.js").Family} Family */
/** @typedef {{output: Output, how: string, others: Output[], below: Node[]}} Node others: further pictures that it was made from */

const MOST = 120; // pictures
const HOW = /** @type {Record<string, string>} */ ({
  cutout: "cut out", layer: "put together",
  vary: "varied", image: "drawn after", mask: "masked by", reference: "led by", control: "followed", "image-prompt": "blended",
});

/** @param {string} how of `api.family` */
export const said = (how) => HOW[how] ?? how;

/** Climb to the first, then down to all. @param {Output} from @returns {Promise<Node>} */
async function grown(from) {
  /** @type {Map<string, Promise<Family>>} */
  const read = new Map();
  const family = (/** @type {string} */ id) => {
    const there = read.get(id) ?? api.family(id);
    read.set(id, there);
    return there;
  };
  const seen = new Set([from.id]);
  let top = from;
  for (let above = (await family(top.id)).parents[0]; above && !seen.has(above.id); above = (await family(top.id)).parents[0]) {
    seen.add(above.id);
    top = above;
  }
  /** @type {Node} */
  const root = { output: top, how: "", others: [], below: [] };
  const placed = new Set([top.id]), open = [root];
  for (let node = open.shift(); node; node = open.shift()) {
    for (const child of (await family(node.output.id)).children) {
      if (placed.has(child.id) || placed.size >= MOST) continue;
      placed.add(child.id);
      const { id } = node.output, others = (await family(child.id)).parents.filter((each) => each.id !== id);
      const below = { output: child, how: child.how, others, below: [] };
      node.below.push(below);
      open.push(below);
    }
  }
  return root;
}

/** @param {{node: Node, here: string, onOpen: (id: string) => void}} props */
function Branch({ node, here, onOpen }) {
  const { output, how, others, below } = node;
  return html`<li><button type="button" class="branch" aria-current=${output.id === here ? "true" : undefined} onClick=${() => onOpen(output.id)}>
      <${Picture} src=${output.url} alt="" lazy=${true} />
      <span><span class="branch-words">${output.prompt || "without words"}</span>
        <small class="soft">${[how && said(how), output.seed && `seed ${output.seed}`, `${output.width}×${output.height}`].filter(Boolean).join(" · ")}${others.length > 0 && ` · and from ${others.length} more`}</small></span></button>
    ${below.length > 0 && html`<ul>${below.map((each) => html`<${Branch} key=${each.output.id} node=${each} here=${here} onOpen=${onOpen} />`)}</ul>`}</li>`;
}

/** @param {{output: Output, onClose: () => void}} props */
export function Tree({ output, onClose }) {
  const [root, setRoot] = useState(/** @type {Node | null} */ (null));
  useEffect(() => {
    let gone = false;
    attempt(grown(output)).then((found) => { if (found && !gone) setRoot(found); });
    return () => { gone = true; };
  }, [output.id]);
  const open = (/** @type {string} */ id) => { onClose(); view(id); };
  return html`<${Dialog} title="Family tree" wide onClose=${onClose}>
    ${root ? html`<ul class="tree"><${Branch} node=${root} here=${output.id} onOpen=${open} /></ul>` : html`<p class="soft" role="status">Looking …</p>`}
  <//>`;
}
