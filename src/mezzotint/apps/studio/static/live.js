// Jobs as they are now: read once, then kept up to date by events; what is lost is read again.
import { api, ApiError, follow } from "./api.js";
import { pause } from "./store.js";
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
/** @type {Map<string, Live>} */
const known = new Map();

/** Take a job in, or what is new of it. @param {Job} job @returns {Live} */
export function enter(job) {
  const there = known.get(job.id);
  if (there) {
    const { outputs } = there.job.peek(); // what is made stays; an answer may leave it out
    there.job.value = outputs.length > job.outputs.length ? { ...job, outputs } : job;
    if (!isOpen(job)) there.previews.value = {};
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
  return enter(await api.submit(wish));
}

/** @param {string} id */
export async function cancel(id) {
  enter(await api.cancel(id));
}

/** Those that are read now, and whether once more. @type {Map<string, boolean>} */
const reading = new Map();

/** Read a job anew: answers come in their order. @param {string} id */
async function refresh(id) {
  if (reading.has(id)) {
    reading.set(id, true);
    return;
  }
  do {
    reading.set(id, false);
    try {
      enter(await api.job(id));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  } while (reading.get(id));
  reading.delete(id);
}

/** @param {Told} told */
function hear(told) {
  if (!told.job) return;
  const live = known.get(told.job), job = live?.job.peek();
  if (!live || !job || told.output || (told.state && told.state !== job.state)) {
    refresh(told.job);
    return;
  }
  if (!isOpen(job)) return;
  batch(() => {
    if (told.step !== undefined) {
      const state = told.state ? job.state : "running";
      live.job.value = { ...job, state, step: told.step, steps: told.steps ?? job.steps };
    }
    if (told.place !== undefined) live.place.value = told.place;
    if (told.preview && told.place !== undefined) {
      const shown = `data:image/webp;base64,${told.preview}`;
      live.previews.value = { ...live.previews.peek(), [told.place]: shown };
    }
  });
}

async function readAll() {
  const found = await api.jobs({ limit: 60 });
  batch(() => found.forEach((job) => enter(job)));
  for (const live of known.values()) {
    if (isOpen(live.job.peek()) && !found.some((job) => job.id === live.id)) refresh(live.id);
  }
  connection.value = "here";
}

/** Stay in touch for ever: one stream tells of all jobs, also of those that run already. */
export async function stay() {
  for (;;) {
    try {
      await readAll();
      await follow("/v1/events", hear, new AbortController().signal);
      connection.value = "lost";
    } catch (error) {
      const refused = error instanceof ApiError && error.status >= 400 && error.status < 500;
      connection.value = refused ? "connecting" : "lost";
    }
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
