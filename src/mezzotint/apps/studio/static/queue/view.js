// The queue: what runs, what waits in which order, and how the last ones ended.
import { api } from "../api.js";
import { Icon } from "../icons.js";
import { cancel, enter, isOpen, jobs } from "../live.js";
import { duration, Picture, since } from "../parts.js";
import { attempt, go, say } from "../store.js";
import { html } from "../ui.js";
import { begin } from "../create/form.js";

/** @typedef {import("../live.js").Live} Live */
/** @typedef {import("../api.js").Job} Job */

/** @param {Job} job @param {number} by */
async function hasten(job, by) {
  const done = await attempt(api.hasten(job.id, Math.max(-100, Math.min(100, job.priority + by))));
  if (!done) return;
  enter(done);
  say(by > 0 ? "It goes earlier." : "It goes later.");
}

/** @param {{live: Live}} props */
function Row({ live }) {
  const job = live.job.value;
  const running = job.state === "running";
  const share = job.steps ? job.step / job.steps : 0;
  const preview = live.previews.value[live.place.value] ?? job.outputs.at(-1)?.url;
  const took = job.started && job.finished ? duration((Date.parse(job.finished) - Date.parse(job.started)) / 1000) : "";
  return html`<li class="queue-row">
    <div class="queue-picture">${preview && html`<${Picture} src=${preview} alt="" />`}</div>
    <div class="queue-words"><p class="queue-prompt">${String(job.asked?.prompt ?? "")}</p>
      <p class="soft small-text">${[`${job.count} ${job.count === 1 ? "picture" : "pictures"}`, job.asked?.model ?? "icons", since(job.created), took, job.priority ? `priority ${job.priority}` : ""].filter(Boolean).join(" · ")}</p>
      ${job.error && html`<p class="bad small-text">${job.error.message}</p>`}
      ${running && html`<progress max="1" value=${share} aria-label="How far it is"></progress>`}</div>
    <span class=${job.state === "failed" ? "state bad" : "state"}>${running ? `${Math.floor(100 * share)} %` : { submitted: "waits", done: "done", failed: "failed", cancelled: "cancelled", running: "" }[job.state]}</span>
    <div class="row">
      ${job.state === "submitted" && html`<button type="button" class="bare" aria-label="Earlier" title="Earlier" onClick=${() => hasten(job, 1)}><${Icon} name="up" /></button>
        <button type="button" class="bare" aria-label="Later" title="Later" onClick=${() => hasten(job, -1)}><${Icon} name="down" /></button>`}
      ${isOpen(job)
        ? html`<button type="button" class="button small" onClick=${() => attempt(cancel(job.id))}><${Icon} name="stop" /><span>Cancel</span></button>`
        : html`<button type="button" class="button small" onClick=${() => begin(job.asked ?? {}, { count: job.count })}><${Icon} name="repeat" /><span>Edit and repeat</span></button>`}
    </div>
  </li>`;
}

export function Queue() {
  const all = jobs.value;
  const running = all.filter((live) => live.job.value.state === "running");
  const waiting = all.filter((live) => live.job.value.state === "submitted")
    .sort((a, b) => b.job.value.priority - a.job.value.priority || a.job.value.number - b.job.value.number);
  const ended = all.filter((live) => !isOpen(live.job.value)).slice(0, 50);
  const cancelAll = async () => {
    if (!confirm(`Cancel all ${waiting.length} that wait?`)) return;
    for (const live of waiting) await attempt(cancel(live.id));
  };
  const part = (/** @type {string} */ title, /** @type {Live[]} */ list, /** @type {unknown} */ more = null) => list.length > 0 && html`<section class="queue-part">
    <div class="head"><h2>${title}</h2>${more}</div><ul class="queue">${list.map((live) => html`<${Row} key=${live.id} live=${live} />`)}</ul></section>`;
  return html`<div class="head"><h1>Queue</h1></div>
    ${!running.length && !waiting.length && html`<p class="soft queue-part">Nothing runs, and nothing waits. <button type="button" class="button small" onClick=${() => go("create")}>Create something</button></p>`}
    ${part("Running", running)}
    ${part("Waiting", waiting, waiting.length > 1 && html`<button type="button" class="button small end" onClick=${cancelAll}>Cancel all that wait</button>`)}
    ${part("Ended", ended)}`;
}
