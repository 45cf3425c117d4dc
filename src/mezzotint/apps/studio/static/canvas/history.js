// @ts-check
/**
 * Undo without limit. Every state has a number; those around the present one are in memory, all of
 * them in what lies behind, where they outlive the page.
 */

/** @template T @typedef {{label: string, document: T}} Entry */
/** @template T @typedef {{read: (n: number) => Promise<Entry<T>>, write: (n: number, entry: Entry<T>) => void,
 *   cut: (from: number) => void, at: (n: number, count: number) => void}} Backing */

/** @template T */
export class History {
  /** @param {Backing<T>} backing @param {number} [most] entries in memory */
  constructor(backing, most = 40) {
    this.backing = backing;
    this.most = most;
    this.at = -1;
    this.count = 0;
    /** @type {Map<number, Entry<T>>} */
    this.held = new Map();
  }

  /** Go on from where it was. @param {number} at @param {number} count */
  resume(at, count) {
    this.at = at;
    this.count = count;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.count - 1;
  }

  /** A new present; what was undone is gone. @param {string} label @param {T} document */
  add(label, document) {
    const entry = { label, document };
    if (this.canRedo) {
      this.backing.cut(this.at + 1);
      for (const n of [...this.held.keys()]) if (n > this.at) this.held.delete(n);
    }
    this.at++;
    this.count = this.at + 1;
    this.#hold(this.at, entry);
    this.backing.write(this.at, entry);
    this.backing.at(this.at, this.count);
  }

  /** Another state becomes the present one. @param {-1 | 1} by
   * @returns {Promise<Entry<T> & {undone: string} | null>} with what was undone, or done again */
  async step(by) {
    if (by < 0 ? !this.canUndo : !this.canRedo) return null;
    const { label } = await this.#get(by < 0 ? this.at : this.at + 1);
    const entry = await this.#get(this.at + by);
    this.at += by;
    this.backing.at(this.at, this.count);
    return { ...entry, undone: label };
  }

  /** @param {number} n */
  async #get(n) {
    const entry = this.held.get(n) ?? (await this.backing.read(n));
    this.#hold(n, entry);
    return entry;
  }

  /** @param {number} n @param {Entry<T>} entry */
  #hold(n, entry) {
    this.held.delete(n);
    this.held.set(n, entry);
    for (const oldest of this.held.keys()) {
      if (this.held.size <= this.most) break;
      this.held.delete(oldest);
    }
  }
}
