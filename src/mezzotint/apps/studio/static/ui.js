// What views are made of: Preact, its hooks and signals, and html`…` templates.
import { h, Fragment, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { h, Fragment, render };
export {
  useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState,
} from "./vendor/hooks.js";
export {
  batch, computed, effect, signal, untracked, useComputed, useSignal,
} from "./vendor/signals.js";

/** @typedef {import("./vendor/preact.js").Child} Child */
/** @template T @typedef {import("./vendor/signals.js").Signal<T>} Signal */

/** A template as elements; text in it stays text.
 * @type {(strings: TemplateStringsArray, ...values: unknown[]) => import("./vendor/preact.js").VNode} */
export const html = htm.bind(h);
