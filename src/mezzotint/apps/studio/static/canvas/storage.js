// @ts-check
/** What is kept in the browser: canvases, their history, and their tiles (packed). Nothing waits for
 * it while one paints; `settled` tells when all is written. */

import { named } from "./document.js";
import { piped } from "./png.js";

/** @typedef {import("./document.js").Document} Document */
/** @typedef {import("./history.js").Entry<Document>} Entry */
/**
 * @typedef {object} Kept
 * @property {string} id
 * @property {string} name
 * @property {number} at @property {number} count of its history
 * @property {number} version of the server's that it is based on; 0: of none
 * @property {boolean} saved whether the server has it as it is
 * @property {number} changed milliseconds since 1970
 * @property {Record<string, any>} settings what is not undone: the prompt, and a job that runs
 */

const NAME = "mezzotint-canvas";

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const asked = (request) => new Promise((done, failed) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => failed(request.error);
});

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
const ended = (transaction) => new Promise((done, failed) => {
  transaction.oncomplete = () => done();
  transaction.onerror = transaction.onabort = () => failed(transaction.error);
});

/** @type {Promise<IDBDatabase> | null} */
let opened = null;

function open() {
  opened ??= new Promise((done, failed) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      for (const store of ["canvases", "entries", "tiles"]) request.result.createObjectStore(store);
    };
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
  return opened;
}

/** @param {string} id */
const range = (id, from = 0) => IDBKeyRange.bound([id, from], [id, []]);

/** @returns {Promise<Kept[]>} the last changed first */
export async function list() {
  const all = await asked((await open()).transaction("canvases").objectStore("canvases").getAll());
  return all.sort((a, b) => b.changed - a.changed);
}

/** @param {string} id */
export async function forget(id) {
  const transaction = (await open()).transaction(["canvases", "entries", "tiles"], "readwrite");
  transaction.objectStore("canvases").delete(id);
  transaction.objectStore("entries").delete(range(id));
  transaction.objectStore("tiles").delete(IDBKeyRange.bound([id, ""], [id, []]));
  await ended(transaction);
}

/** The storage of one canvas: what lies behind its tiles and its history. */
export class Storage {
  /** @param {string} id @param {(error: unknown) => void} failed */
  constructor(id, failed) {
    this.id = id;
    this.failed = failed;
    /** @type {Promise<void>} */
    this.last = Promise.resolve();
    /** @type {Map<string, Uint8ClampedArray>} not written yet */
    this.waiting = new Map();
    this.queued = false; // a batch of them
  }

  /** Everything in its order. @param {(db: IDBDatabase) => Promise<void>} work */
  #then(work) {
    this.last = this.last.then(async () => work(await open())).catch((error) => this.failed(error));
  }

  get settled() {
    return this.last;
  }

  /** @returns {import("./tiles.js").Backing} */
  get tiles() {
    return {
      read: async (name) => {
        const held = this.waiting.get(name);
        if (held) return held;
        const packed = await asked((await open()).transaction("tiles").objectStore("tiles").get([this.id, name]));
        if (!packed) throw new Error("a tile of this canvas is gone");
        return new Uint8ClampedArray((await piped(packed, new DecompressionStream("deflate-raw"))).buffer);
      },
      write: (name, data) => {
        this.waiting.set(name, data);
        if (this.queued) return;
        this.queued = true;
        this.#then(async (db) => {
          this.queued = false;
          const batch = await Promise.all([...this.waiting].map(async ([each, bytes]) => {
            const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
            return /** @type {const} */ ([each, await piped(plain, new CompressionStream("deflate-raw"))]);
          }));
          const transaction = db.transaction("tiles", "readwrite");
          for (const [each, packed] of batch) transaction.objectStore("tiles").put(packed, [this.id, each]);
          await ended(transaction);
          for (const [each] of batch) this.waiting.delete(each);
        });
      },
    };
  }

  /** @param {() => Kept} kept @returns {import("./history.js").Backing<Document>} */
  history(kept) {
    return {
      read: async (n) => {
        await this.last;
        return asked((await open()).transaction("entries").objectStore("entries").get([this.id, n]));
      },
      write: (n, entry) => this.#put("entries", [this.id, n], entry),
      cut: (from) => this.#then(async (db) => {
        const transaction = db.transaction("entries", "readwrite");
        transaction.objectStore("entries").delete(range(this.id, from));
        await ended(transaction);
      }),
      at: () => this.keep(kept()),
    };
  }

  /** @param {Kept} kept */
  keep(kept) {
    this.#put("canvases", this.id, kept);
  }

  /** @param {"entries" | "canvases"} store @param {IDBValidKey} key @param {unknown} value */
  #put(store, key, value) {
    const copy = structuredClone(value);
    this.#then(async (db) => {
      const transaction = db.transaction(store, "readwrite");
      transaction.objectStore(store).put(copy, key);
      await ended(transaction);
    });
  }

  /** @returns {Promise<{kept: Kept, entry: Entry} | null>} */
  async load() {
    const db = await open();
    const kept = await asked(db.transaction("canvases").objectStore("canvases").get(this.id));
    if (!kept) return null;
    const entry = await asked(db.transaction("entries").objectStore("entries").get([this.id, kept.at]));
    return entry ? { kept, entry } : null;
  }

  /** Drop tiles that no state of the history names. @param {string[]} more that are needed too */
  sweep(more) {
    this.#then(async (db) => {
      const used = new Set(more);
      const entries = await asked(db.transaction("entries").objectStore("entries").getAll(range(this.id)));
      for (const entry of entries) for (const name of named(entry.document)) used.add(name);
      const transaction = db.transaction("tiles", "readwrite"), store = transaction.objectStore("tiles");
      for (const key of await asked(store.getAllKeys(IDBKeyRange.bound([this.id, ""], [this.id, []])))) {
        const name = /** @type {string[]} */ (key)[1];
        if (!used.has(name)) store.delete(key);
      }
      await ended(transaction);
    });
  }
}
