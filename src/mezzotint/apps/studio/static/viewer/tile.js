// One picture among others, and one that is not there yet.
import { Icon } from "../icons.js";
import { MenuButton, Picture } from "../parts.js";
import { sequence, view } from "../store.js";
import { html, useEffect, useRef } from "../ui.js";
import { download, enlarge, favour, gone, isFavourite, onCanvas, steps, vary } from "./steer.js";

/** @typedef {import("../api.js").Output} Output */

/** @type {WeakMap<Element, Output>} */
const shown = new WeakMap();

/**
 * @param {{output: Output, among: Output[], chosen?: boolean, onChoose?: (output: Output) => void}} props
 */
export function Tile({ output, among, chosen, onChoose }) {
  const at = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => { if (at.current) shown.set(at.current, output); }, [output]);
  const open = () => {
    if (onChoose) { onChoose(output); return; }
    sequence.value = among;
    view(output.id);
  };
  if (gone.value.has(output.id)) return html`<figure class="tile gone"><p class="soft">Thrown away</p></figure>`;
  const loved = isFavourite(output);
  const items = () => [...steps(output), { label: "Download PNG", icon: "download", run: () => download(output, "png") }];
  return html`<figure ref=${at} class=${`tile${chosen ? " chosen" : ""}`} style=${{ aspectRatio: `${output.width} / ${output.height}` }}>
    <button type="button" class="tile-open" aria-pressed=${onChoose ? !!chosen : undefined} onClick=${open}
      aria-label=${`${onChoose ? "Choose" : "Open"}: ${output.prompt || "a picture"}${output.seed && `, seed ${output.seed}`}`}>
      <${Picture} src=${output.url} alt="" width=${output.width} height=${output.height} lazy /></button>
    ${onChoose ? html`<span class="mark" aria-hidden="true"><${Icon} name="check" /></span>` : html`
    <div class=${`tile-heart${loved ? " on" : ""}`}><button type="button" class="bare" aria-pressed=${loved} aria-label="Favourite" title="Favourite (F)"
      onClick=${() => favour(output)}><${Icon} name="heart" /></button></div>
    <div class="tile-bar">${!output.derived && html`
      <button type="button" class="bare fine" aria-label="Vary subtly" title="Vary subtly (V)" onClick=${() => vary(output, "subtle")}><${Icon} name="vary" /></button>
      <button type="button" class="bare fine" aria-label="Vary strongly" title="Vary strongly (Shift V)" onClick=${() => vary(output, "strong")}><${Icon} name="varies" /></button>
      <button type="button" class="bare fine" aria-label="Enlarge" title="Enlarge (E)" onClick=${() => enlarge(output)}><${Icon} name="enlarge" /></button>`}
      <button type="button" class="bare fine" aria-label="Mask and paint" title="Mask and paint" onClick=${() => onCanvas(output)}><${Icon} name="brush" /></button>
      <${MenuButton} label="More to do with it" items=${items} up />
    </div>`}
  </figure>`;
}

/** A place where a picture forms. @param {{live: import("../live.js").Live, place: number, aspect: number}} props */
export function Waiting({ live, place, aspect }) {
  const preview = live.previews.value[place];
  const job = live.job.value;
  const here = job.state === "running" && live.place.value === place;
  return html`<figure class=${`tile waiting${here ? " here" : ""}`} style=${{ aspectRatio: String(aspect) }}
    aria-label=${here ? "Forming" : "Waiting"}>${preview && html`<img src=${preview} alt="" />`}</figure>`;
}

const MOVES = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
});

/** The tile nearest to another one in a direction. @param {Element} from @param {[number, number]} way */
function next(from, [x, y]) {
  const at = from.getBoundingClientRect();
  let best = null;
  let least = Infinity;
  for (const tile of document.querySelectorAll("main .tile:not(.waiting):not(.gone)")) {
    const there = tile.getBoundingClientRect();
    const [dx, dy] = [there.x + there.width / 2 - at.x - at.width / 2, there.y + there.height / 2 - at.y - at.height / 2];
    const along = dx * x + dy * y;
    const aside = Math.abs(dx * y) + Math.abs(dy * x);
    if (along < 8 || (x && aside > at.height * 0.6)) continue;
    const far = along + 3 * aside;
    if (far < least) [best, least] = [tile, far];
  }
  return best;
}

/** Keys at a tile that has the focus. @param {KeyboardEvent} event */
export function onTileKey(event) {
  const at = /** @type {HTMLElement} */ (event.target);
  const tile = at.closest(".tile");
  const output = tile && shown.get(tile);
  if (!tile || !output || event.ctrlKey || event.metaKey || event.altKey || at.closest("[role=menu]")) return;
  const way = MOVES[event.key];
  if (way) {
    /** @type {HTMLElement | null | undefined} */ (next(tile, way)?.querySelector(".tile-open"))?.focus();
    event.preventDefault();
    return;
  }
  if (!keyed(event, output)) return;
  event.preventDefault();
}

/** Do what a key says with a picture. @param {KeyboardEvent} event @param {Output} output */
export function keyed(event, output) {
  const step = steps(output).find((each) => each.key === event.key);
  if (step) step.run();
  else if (event.key === "f") favour(output);
  else if (event.key === "d") download(output, output.type.split("/")[1] ?? "png");
  else return false;
  return true;
}
