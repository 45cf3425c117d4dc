// Small parts that several views use.
import { request, token } from "./api.js";
import { Icon } from "./icons.js";
import { html, useEffect, useId, useRef, useState } from "./ui.js";

/** @typedef {import("./ui.js").Child} Child */

/**
 * A dialog over everything: the browser keeps the focus in it, and Esc closes it.
 * @param {{title: string, onClose: () => void, wide?: boolean, children?: Child}} props
 */
export function Dialog({ title, onClose, wide = false, children }) {
  const at = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const name = useId();
  useEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    at.current?.showModal();
    return () => before?.focus();
  }, []);
  const outside = (/** @type {MouseEvent} */ event) => { if (event.target === at.current) onClose(); };
  return html`<dialog ref=${at} class=${wide ? "dialog wide" : "dialog"} aria-labelledby=${name}
    onCancel=${(/** @type {Event} */ event) => { event.preventDefault(); onClose(); }} onMouseDown=${outside}>
    <header><h2 id=${name}>${title}</h2>
      <button class="bare" type="button" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button></header>
    ${children}
  </dialog>`;
}

/**
 * A picture of the server: where a token is needed it is fetched with it, for an <img> sends none.
 * @param {{src: string, alt: string, class?: string, width?: number, height?: number, lazy?: boolean}} props
 */
export function Picture({ src, alt, lazy = false, width, height, ...more }) {
  const [shown, setShown] = useState(/** @type {string | null} */ (token() ? null : src));
  useEffect(() => {
    if (!token() || !src.startsWith("/")) {
      setShown(src);
      return undefined;
    }
    let made = "";
    let gone = false;
    request("GET", src).then((answer) => answer.blob()).then((blob) => {
      if (gone) return;
      made = URL.createObjectURL(blob);
      setShown(made);
    }).catch(() => {});
    return () => { gone = true; URL.revokeObjectURL(made); };
  }, [src]);
  return html`<img src=${shown ?? undefined} alt=${alt} class=${more.class} width=${width} height=${height}
    loading=${lazy ? "lazy" : undefined} decoding="async" draggable=${false} />`;
}

/** What opens over the page, in the element of `at`, and closes when one points or goes elsewhere. */
export function usePopup() {
  const [isOpen, setOpen] = useState(false);
  const at = useRef(/** @type {HTMLDivElement | null} */ (null));
  useEffect(() => {
    if (!isOpen) return undefined;
    const away = (/** @type {Event} */ event) => {
      if (!at.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    document.addEventListener("focusin", away);
    return () => {
      document.removeEventListener("pointerdown", away);
      document.removeEventListener("focusin", away);
    };
  }, [isOpen]);
  return { isOpen, setOpen, at };
}

/**
 * A button that opens a list of things to do.
 * @typedef {{label: string, icon?: string, run: () => void, bad?: boolean}} Item
 * @param {{label: string, icon?: string, items: Item[] | (() => Item[]), up?: boolean}} props items: asked for when it opens
 */
export function MenuButton({ label, icon = "more", items, up = false }) {
  const { isOpen, setOpen, at } = usePopup();
  useEffect(() => {
    if (isOpen) /** @type {HTMLElement | null | undefined} */ (at.current?.querySelector("[role=menuitem]"))?.focus();
  }, [isOpen]);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (!isOpen) return;
    const all = /** @type {HTMLElement[]} */ ([...(at.current?.querySelectorAll("[role=menuitem]") ?? [])]);
    const now = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) all[(now + step + all.length) % all.length]?.focus();
    else if (event.key === "Escape") {
      setOpen(false);
      /** @type {HTMLElement | null | undefined} */ (at.current?.querySelector("button"))?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="popup" ref=${at} onKeyDown=${onKey}>
    <button type="button" class="bare" aria-haspopup="menu" aria-expanded=${isOpen} aria-label=${label} title=${label}
      onClick=${() => setOpen(!isOpen)}><${Icon} name=${icon} /></button>
    ${isOpen && html`<div class=${up ? "popup-list up" : "popup-list"} role="menu" aria-label=${label}>
      ${(typeof items === "function" ? items() : items).map((item) => html`<button key=${item.label} type="button" role="menuitem" tabindex="-1" class=${item.bad ? "bad" : ""}
        onClick=${() => { setOpen(false); item.run(); }}>
        ${item.icon && html`<${Icon} name=${item.icon} />`}<span>${item.label}</span></button>`)}
    </div>`}
  </div>`;
}

/** @param {string | null} when */
export function since(when) {
  if (!when) return "";
  const date = new Date(when);
  const today = new Date().toDateString() === date.toDateString();
  return today ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
}

/** @param {number} seconds */
export const duration = (seconds) =>
  (seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

/** @param {number} bytes */
export const size = (bytes) =>
  (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

/** What making some pictures took, in words; "" where it is not known.
 * @param {import("./api.js").Output[]} outputs */
export function energy(outputs) {
  const known = outputs.flatMap((output) => (output.energy ? [output.energy] : []));
  if (!known.length) return "";
  const wh = known.reduce((sum, each) => sum + each.wh, 0);
  const grams = known.reduce((sum, each) => sum + each.gco2e, 0);
  const how = new Set(known.map((each) => each.how));
  return `${Number(wh.toPrecision(2))} Wh, ${Number(grams.toPrecision(2))} g CO₂e, ${[...how].join(", ")}`;
}
