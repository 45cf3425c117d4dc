// Jobs as they are now: read once, then kept up to date by events; what is lost is read again.
import { api, ApiError, follow } from "./api.js";
import { batch, computed, signal } from "./ui.js";

/** @typedef {import("./api.js").Job} Job */
/** @typedef {import("./api.js").Told} Told */
/** @template T @typedef {import("./ui.js").Signal<T>} Signal */

/**
 * A job with what it looks like while it forms.
 * @typedef {object} Live
 * @property {string} id
 * @property {Signal<Job>} job
 * @property {Signal<Record<number, string>>} previews by place, an address of data
 * @property {Signal<number>} place that is worked at
 */

/** Newest first. @type {Signal<Live[]>} */
export const jobs = signal([]);
/** @type {Signal<"connecting" | "here" | "lost">} */
export const connection = signal("connecting");
export const open = computed(() => jobs.value.filter((each) => isOpen(each.job.value)));

/** @param {Job} job */
export const isOpen = (job) => job.state === "submitted" || job.state === "running";

const PAUSE = 1500;
const EVERY = 2500; // of those who may not hear of all jobs
/** @type {Map<string, Live>} */
const known = new Map();
/** @type {Map<string, AbortController>} */
const followed = new Map();

/** Take a job in, or what is new of it. @param {Job} job @returns {Live} */
export function enter(job) {
  const there = known.get(job.id);
  if (there) {
    there.job.value = job;
    return there;
  }
  const live = {
    id: job.id, job: signal(job), previews: signal({}), place: signal(job.outputs.length),
  };
  known.set(job.id, live);
  if (job.kind === "generate") {
    jobs.value = [...jobs.value, live].sort((a, b) => b.job.value.number - a.job.value.number);
  }
  return live;
}

/** Ask for pictures. @param {import("./api.js").Wish} wish @returns {Promise<Live>} */
export async function submit(wish) {
  const live = enter(await api.submit(wish));
  look(live);
  return live;
}

/** @param {string} id */
export async function cancel(id) {
  enter(await api.cancel(id));
}

/** Read a job anew. @param {string} id */
async function refresh(id) {
  try {
    const live = enter(await api.job(id));
    look(live);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
}

/** @param {Told} told */
function hear(told) {
  const live = told.job ? known.get(told.job) : undefined;
  if (!told.job) return;
  if (!live || told.state || told.output) {
    refresh(told.job);
    return;
  }
  batch(() => {
    const job = live.job.peek();
    if (told.step !== undefined && isOpen(job)) {
      live.job.value = { ...job, state: "running", step: told.step, steps: told.steps ?? job.steps };
    }
    if (told.place !== undefined) live.place.value = told.place;
    if (told.preview && told.place !== undefined) {
      const shown = `data:image/webp;base64,${told.preview}`;
      live.previews.value = { ...live.previews.peek(), [told.place]: shown };
    }
  });
}

let hearsAll = false;

/** Follow a job by itself while it runs: whoever hears of all misses its previews if it had begun
 * before. @param {Live} live */
function look(live) {
  const job = live.job.peek();
  if (!isOpen(job)) {
    followed.get(job.id)?.abort();
    followed.delete(job.id);
    if (Object.keys(live.previews.peek()).length) live.previews.value = {};
    return;
  }
  const wanted = job.state === "running" || (!hearsAll && followed.size < 2);
  if (!wanted || followed.has(job.id) || followed.size >= 3) return;
  const control = new AbortController();
  followed.set(job.id, control);
  follow(`/v1/jobs/${job.id}/events`, hear, control.signal)
    .catch(() => {})
    .finally(() => followed.delete(job.id));
}

/** @param {number} ms */
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function readAll() {
  const found = await api.jobs({ limit: 60 });
  batch(() => found.forEach((job) => enter(job)));
  for (const live of known.values()) {
    if (isOpen(live.job.peek()) && !found.some((job) => job.id === live.id)) refresh(live.id);
    else look(live);
  }
  connection.value = "here";
}

/** Stay in touch for ever. */
export async function stay() {
  for (;;) {
    try {
      await readAll();
      hearsAll = true;
      await follow("/v1/events", hear, new AbortController().signal);
    } catch (error) {
      hearsAll = false;
      if (error instanceof ApiError && error.status === 403) {
        await pause(EVERY);
        continue;
      }
    }
    connection.value = "lost";
    await pause(PAUSE);
  }
}

/** Older jobs than those that are shown. @returns {Promise<boolean>} whether there were any */
export async function older() {
  const last = jobs.peek().at(-1);
  const found = last ? await api.jobs({ limit: 40, before: last.job.peek().number }) : [];
  batch(() => found.forEach((job) => enter(job)));
  return found.length > 0;
}
