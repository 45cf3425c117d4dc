// @ts-check
/** A job of a canvas: asked for, followed (over a reload too), and its pictures to choose among. */

import { api, ApiError, request } from "../api.js";
import { enter, isOpen } from "../live.js";
import { attempt, say } from "../store.js";
import { effect, signal } from "../ui.js";
import * as documents from "./document.js";
import * as masks from "./masks.js";
import { picture } from "./pictures.js";
import { KINDS, kindOf, wish } from "./plan.js";
import { encode } from "./png.js";
import { crop, rect, resized } from "./raster.js";

/** @typedef {import("./editor.js").Editor} Editor @typedef {import("./raster.js").Raster} Raster */
/** @typedef {import("./compose.js").Sheet} Sheet @typedef {import("../live.js").Live} Live */
/** What has to be known when it comes back.
 * @typedef {{key: string, wish: import("../api.js").Wish, kind: import("./plan.js").Kind, name: string, frame: import("./raster.js").Rect,
 *   mask: import("./tiles.js").Tiles | null}} Pending */
/** @typedef {{output: import("../api.js").Output, raster: Raster}} Candidate */

export class Making {
  /** @param {Editor} editor */
  constructor(editor) {
    this.editor = editor;
    /** @type {import("../ui.js").Signal<Live | null>} */
    this.live = signal(null);
    /** @type {import("../ui.js").Signal<Candidate[]>} */
    this.candidates = signal([]);
    this.chosen = signal(-1);
    this.sending = signal(false);
    /** @type {{document: documents.Document, painted: boolean} | null} */
    this.seen = null;
    /** @type {Pending | null} */
    this.pending = editor.kept.settings.pending ?? null;
    /** @type {() => void} */
    this.stop = () => {};
    if (this.pending) this.#resume(this.pending);
  }

  close() {
    this.stop();
    this.editor.shown = null;
  }

  get kind() {
    return kindOf(this.editor.document, this.painted);
  }

  get painted() {
    const { document, shown, picture } = this.editor;
    if (this.seen?.document === document) return this.seen.painted;
    const { data } = shown ? this.editor.flattened() : picture;
    let painted = false;
    for (let i = 3; i < data.length && !painted; i += 4) painted = data[i] > 0;
    this.seen = { document, painted };
    return painted;
  }

  /** @param {import("./plan.js").Wanted} wanted */
  async begin(wanted) {
    if (this.sending.value || (this.live.value && isOpen(this.live.value.job.value))) return;
    this.discard();
    this.sending.value = true;
    await attempt(this.#send(wanted));
    this.sending.value = false;
  }

  /** @param {import("./plan.js").Wanted} wanted */
  async #send(wanted) {
    const { editor, kind } = this, { document } = editor;
    const mask = kind === "new" ? null : kind === "change" ? masks.all(document.frame) : editor.asked();
    const known = kind === "expand" && document.known ? document.known : document.frame;
    const give = async (/** @type {Raster} */ raster, /** @type {string} */ name) => (await api.upload(await encode(raster), name)).id;
    const image = kind === "new" ? undefined : await give(editor.flattened(known), "canvas.png");
    const white = kind === "fill" && mask ? await give(masks.hard(mask), "mask.png") : undefined;
    const asked = wish(kind, document, wanted, { image, mask: white });
    asked.seed ??= crypto.getRandomValues(new Uint32Array(1))[0]; // asked again, it must be the same
    this.pending = {
      key: `canvas-${documents.newId()}`, wish: asked, kind, name: wanted.prompt.slice(0, 40) || KINDS[kind].title, frame: rect(document.frame),
      mask: mask && editor.tiled(mask),
    };
    editor.set({ pending: this.pending });
    await editor.storage.settled;
    await this.#ask(this.pending);
  }

  /** Asked twice with its key, it is the same job. @param {Pending} pending */
  async #ask(pending) {
    try {
      const { id } = await api.submit(pending.wish, pending.key);
      this.#follow(enter(await api.job(id))); // of one that is there already submit tells no pictures
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 0)) this.discard();
      throw error;
    }
  }

  /** @param {Pending} pending */
  #resume(pending) {
    return attempt(this.#ask(pending));
  }

  /** @param {Live} live */
  #follow(live) {
    this.stop();
    this.live.value = live;
    let loading = new Set();
    const stop = effect(() => {
      const job = live.job.value;
      if (job.state === "failed") say(job.error?.message ?? "It failed", true);
      if (job.state === "failed" || (job.state === "cancelled" && !job.outputs.length)) return void setTimeout(() => this.discard());
      for (const output of job.outputs) {
        if (loading.has(output.id)) continue;
        loading.add(output.id);
        this.#load(output, live);
      }
    });
    this.stop = () => stop();
  }

  /** @param {import("../api.js").Output} output @param {Live} live */
  async #load(output, live) {
    const answer = await attempt(request("GET", output.url));
    if (!answer || !this.pending) return;
    const { frame } = this.pending;
    let raster = { ...(await picture(await answer.blob())), x: frame.x, y: frame.y };
    if (raster.width !== frame.width || raster.height !== frame.height) raster = resized(raster, frame);
    if (this.live.value !== live) return;
    this.candidates.value = [...this.candidates.value, { output, raster }].sort((a, b) => a.output.place - b.output.place);
    if (this.chosen.value < 0) await this.look(0);
  }

  /** A candidate as it would lie in the canvas. @param {number} n @param {number} [feather] @returns {Promise<Sheet | null>} */
  async sheet(n, feather = this.editor.kept.settings.wanted?.feather ?? 0) {
    const { raster } = this.candidates.value[n] ?? {}, pending = this.pending;
    if (!raster || !pending) return null;
    if (!pending.mask) return { pixels: raster, mask: null, opacity: 1 };
    const whole = await this.editor.raster(pending.mask);
    const soft = pending.kind === "change" ? whole : masks.feathered(whole, feather);
    const where = masks.bounds(soft);
    return { pixels: crop(raster, where), mask: crop(soft, where), opacity: 1 };
  }

  /** @param {number} n -1: as it was before @param {number} [feather] */
  async look(n, feather) {
    this.chosen.value = n;
    this.editor.look(n < 0 ? null : await this.sheet(n, feather));
  }

  /** The chosen one becomes a layer. */
  async use() {
    const { editor, pending } = this, sheet = await this.sheet(this.chosen.value);
    if (!sheet || !pending) return;
    const file = this.candidates.value[this.chosen.value]?.output.file;
    this.discard();
    const layer = documents.made(pending.name, editor.tiled(sheet.pixels), sheet.mask && editor.tiled(sheet.mask), file ? [file] : []);
    await editor.apply(KINDS[pending.kind].title.toLowerCase(), (document) => {
      const [only] = document.layers;
      const empty = pending.kind === "new" && document.layers.length === 1 && !only.pixels.tiles.some(Boolean);
      const whole = documents.onTop(empty ? { ...document, layers: [] } : document, layer);
      return { ...whole, selection: null, known: pending.kind === "expand" ? null : whole.known };
    });
  }

  /** Away with all of it; the pictures stay in the gallery. */
  discard() {
    this.stop();
    this.stop = () => {};
    const live = this.live.peek();
    if (live && isOpen(live.job.peek())) attempt(api.cancel(live.id).then(enter));
    this.live.value = null;
    this.candidates.value = [];
    this.chosen.value = -1;
    this.pending = null;
    if (this.editor.shown) this.editor.look(null);
    if (this.editor.kept.settings.pending) this.editor.set({ pending: null });
  }
}
