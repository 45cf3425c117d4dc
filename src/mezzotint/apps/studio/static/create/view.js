// Create: the prompt above, and below it what was asked for, the newest first.
import { duration, energy, since } from "../parts.js";
import { Icon } from "../icons.js";
import { cancel, connection, isOpen, jobs, older } from "../live.js";
import { attempt } from "../store.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { onTileKey, Tile, Waiting } from "../viewer/tile.js";
import { Composer } from "./composer.js";
import { begin, change, create } from "./form.js";

/** @typedef {import("../live.js").Live} Live */
/** @typedef {import("../api.js").Job} Job */

/** @param {Job} job */
function time(job) {
  if (!job.started || !job.finished) return "";
  return duration((Date.parse(job.finished) - Date.parse(job.started)) / 1000);
}

/** @param {Job} job */
function said(job) {
  if (job.state === "submitted") return "Waits";
  if (job.state === "running") return job.steps ? `${Math.floor((100 * job.step) / job.steps)} %` : "Begins";
  if (job.state === "cancelled") return "Cancelled";
  if (job.state === "failed") return "Failed";
  return time(job);
}

const HIDDEN = new Set(["prompt", "model", "size", "seed"]);

/** What was asked for beside the prompt, in few words. @param {Job} job */
function details(job) {
  const asked = job.asked ?? {};
  const first = job.outputs[0];
  const words = [asked.model ?? "icons", asked.size ?? (first && `${first.width}×${first.height}`), `seed ${asked.seed}`];
  for (const [name, value] of Object.entries(asked)) {
    if (HIDDEN.has(name)) continue;
    const text = Array.isArray(value) ? value.join(", ") : String(value);
    words.push(value === true ? name : /^[0-9a-f]{32,}$/.test(text) ? `with ${name}` : `${name} ${text}`);
  }
  return words.filter(Boolean).join(" · ");
}

/** @param {{live: Live}} props */
function Card({ live }) {
  const job = live.job.value;
  const asked = job.asked ?? {};
  const running = isOpen(job);
  const made = new Map(job.outputs.map((output) => [output.place, output]));
  const places = [...Array(job.count).keys()].filter((n) => running || made.has(n));
  const first = job.outputs[0];
  const aspect = first ? first.width / first.height : shape(asked.size);
  return html`<article class="card" aria-label=${String(asked.prompt ?? "")} aria-busy=${running}>
    <div class="card-words">
      <p class="card-prompt">${String(asked.prompt ?? "")}</p>
      <p class="soft small-text">${details(job)}</p>
      ${first && html`<p class="soft small-text licence" title="The licence of the model's weights">${first.licence}</p>`}
      ${energy(job.outputs) && html`<p class="soft small-text" title="What making them took">${energy(job.outputs)}</p>`}
      ${job.error && html`<p class="bad" role="alert">${job.error.message}</p>`}
      <div class="row card-row">
        <span class=${job.state === "failed" ? "state bad" : "state"}>${running && html`<i class="dot"></i>`}${said(job)}</span>
        <time class="soft small-text" dateTime=${job.created}>${since(job.created)}</time>
        ${running
          ? html`<button type="button" class="button small" onClick=${() => attempt(cancel(job.id))}><${Icon} name="stop" /><span>Cancel</span></button>`
          : html`<button type="button" class="button small" onClick=${() => begin(asked, { count: job.count })}><${Icon} name="repeat" /><span>Edit and repeat</span></button>`}
      </div>
      ${running && html`<progress max=${job.steps || 1} value=${job.step} aria-label="How far it is"></progress>`}
    </div>
    <div class=${`tiles n${Math.min(places.length, 4)}`} onKeyDown=${onTileKey}>
      ${places.map((n) => {
        const output = made.get(n);
        return output
          ? html`<${Tile} key=${n} output=${output} among=${job.outputs} />`
          : html`<${Waiting} key=${n} place=${n} live=${live} aspect=${aspect} />`;
      })}
    </div>
  </article>`;
}

/** @param {unknown} size @returns {number} */
function shape(size) {
  const named = { tall: 9 / 16, wide: 16 / 9, portrait: 2 / 3, landscape: 1.5 }[String(size)];
  const match = /^(\d+)[x×:](\d+)$/.exec(String(size ?? ""));
  return named ?? (match ? Number(match[1]) / Number(match[2]) : 1);
}

/** Calls when one comes near to the end. @param {{onNear: () => Promise<boolean>}} props */
export function End({ onNear }) {
  const at = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [over, setOver] = useState(false);
  useEffect(() => {
    if (!at.current || over) return undefined;
    let busy = false;
    const seen = new IntersectionObserver(async (entries) => {
      if (busy || !entries.some((entry) => entry.isIntersecting)) return;
      busy = true;
      if (!(await onNear().catch(() => false))) setOver(true);
      busy = false;
    }, { rootMargin: "600px" });
    seen.observe(at.current);
    return () => seen.disconnect();
  }, [over, onNear]);
  return html`<div ref=${at} class="the-end" aria-hidden="true"></div>`;
}

const IDEAS = ["a red fox", "a lighthouse at night", "a cup of {tea|coffee|cocoa}", "a golden key", "a green umbrella", "an owl with a book"];

function Empty() {
  return html`<section class="empty">
    <h2>What shall it be?</h2>
    <p class="soft">Say it in a few words. Four pictures come up as they form; of each you can go on.</p>
    <div class="row">${IDEAS.map((idea) => html`<button key=${idea} type="button" class="button"
      onClick=${() => { change({ prompt: idea }); create(); }}>${idea}</button>`)}</div>
  </section>`;
}

export function Create() {
  return html`<h1 class="hidden">Create</h1><${Composer} />
    <section class="feed" aria-label="What was made">
      ${jobs.value.length === 0 && connection.value === "here" && html`<${Empty} />`}
      ${jobs.value.map((live) => html`<${Card} key=${live.id} live=${live} />`)}
      ${jobs.value.length >= 20 && html`<${End} onNear=${older} />`}
    </section>`;
}
