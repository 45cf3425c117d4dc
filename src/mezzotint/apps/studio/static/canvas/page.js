// @ts-check
/** The canvas as a view of the studio. */

import { Icon } from "../icons.js";
import { MenuButton } from "../parts.js";
import { handed } from "../store.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { Canvases, NewCanvas, Place, Save } from "./dialogs.js";
import { attach } from "./hand.js";
import { listen, step } from "./keys.js";
import { ToolOptions } from "./options.js";
import { Candidates, DrawPanel, LayersPanel } from "./panels.js";
import { begin, copy, from, place, session } from "./session.js";
import { choose, options, panning, pointed, revision, sheet, tool, WANTED } from "./setting.js";
import { TOOLS, toolOf } from "./tools.js";
import { View } from "./view.js";

/** @typedef {import("./session.js").Session} Session */

/** @type {View | null} */
let view = null;

function Tools() {
  return html`<div class="cv-tools" role="toolbar" aria-label="Tools" aria-orientation="vertical">${TOOLS.map((each) => html`<button key=${each.name} type="button"
    class="bare" aria-label=${each.title} aria-pressed=${tool.value === each.name} aria-keyshortcuts=${each.key.toUpperCase()} title=${`${each.title} (${each.key.toUpperCase()})`}
    onClick=${() => { tool.value = each.name; }}><${Icon} name=${each.icon} /></button>`)}</div>`;
}

/** @param {{session: Session}} props */
function Stage({ session: { editor, making } }) {
  revision.value;
  const at = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    if (!at.current) return undefined;
    const before = () => { if (making.chosen.peek() >= 0) making.look(-1); }; // one paints on the canvas itself
    const made = new View(at.current, editor);
    view = made;
    const free = attach(made, () => ({ tool: tool.peek(), options: options.peek(), panning: panning.peek(), choose, before }));
    return () => {
      free();
      made.close();
      view = null;
    };
  }, [editor]);
  useEffect(() => view?.draw(), [tool.value]);
  const { frame, layers } = editor.document;
  const said = `Canvas, ${frame.width} by ${frame.height} pixels, ${layers.length} ${layers.length === 1 ? "layer" : "layers"}${editor.selection ? ", a part is selected" : ""}`;
  return html`<canvas ref=${at} class="cv-stage" tabindex="0" role="application" aria-label=${said} style=${{ cursor: panning.value ? "grab" : toolOf(tool.value).cursor }}></canvas>`;
}

const SAVED = { saved: "Saved", waiting: "Saving …", saving: "Saving …", here: "In this browser only: the server does not take it" };

/** @param {{session: Session, onDialog: (name: string) => void}} props */
function Top({ session: held, onDialog }) {
  revision.value;
  const { editor, sync } = held;
  const rename = (/** @type {Event} */ event) => {
    const name = /** @type {HTMLInputElement} */ (event.target).value.trim().slice(0, 100);
    if (!name || name === editor.kept.name) return;
    editor.keep({ name, saved: false, changed: Date.now() });
    sync.soon();
  };
  const items = [
    { label: "New canvas …", icon: "plus", run: () => onDialog("new") },
    { label: "Open …", icon: "folder", run: () => onDialog("open") },
    { label: "Make a copy", icon: "copy", run: () => copy(`${editor.kept.name} (copy)`) },
    { label: "Place a picture …", icon: "image", run: () => onDialog("place") },
    { label: "Download …", icon: "download", run: () => onDialog("save") },
  ];
  return html`<header class="cv-top">
    <h1 class="hidden">Canvas</h1>
    <${MenuButton} label="Canvas" icon="sheets" items=${items} />
    <input class="cv-name" type="text" aria-label="Name of the canvas" value=${editor.kept.name} onChange=${rename} />
    <span class="soft cv-saved" role="status">${SAVED[sync.state.value]}</span>
    <div class="row end">
      <button type="button" class="bare" aria-label="Undo" title="Undo (Ctrl Z)" disabled=${!editor.history.canUndo} onClick=${() => step(-1)}><${Icon} name="undo" /></button>
      <button type="button" class="bare" aria-label="Redo" title="Redo (Ctrl Shift Z)" disabled=${!editor.history.canRedo} onClick=${() => step(1)}><${Icon} name="redo" /></button>
      <button type="button" class="bare" aria-label="Zoom out" title="Zoom out (−)" onClick=${() => view?.closer(0.8)}><${Icon} name="minus" /></button>
      <button type="button" class="bare" aria-label="Fit to the window" title="Fit to the window (0)" onClick=${() => view?.fit()}><${Icon} name="fit" /></button>
      <button type="button" class="bare" aria-label="Zoom in" title="Zoom in (+)" onClick=${() => view?.closer(1.25)}><${Icon} name="plus" /></button>
    </div>
  </header>`;
}

/** @param {{session: Session}} props */
function Open({ session: held }) {
  const { editor, making } = held;
  const [dialog, setDialog] = useState("");
  useEffect(() => editor.listen((what) => { if (what === "all") revision.value++; }), [editor]);
  useEffect(() => listen(() => view), []);
  useEffect(() => {
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (!file || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      event.stopPropagation();
      place(file, file.name);
    };
    addEventListener("paste", paste, true);
    return () => removeEventListener("paste", paste, true);
  }, []);
  const drop = async (/** @type {DragEvent} */ event) => {
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    event.stopPropagation();
    for (const file of files) await place(file, file.name);
  };
  const over = (/** @type {DragEvent} */ event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const panel = (/** @type {"draw" | "layers"} */ name) => { sheet.value = sheet.value === name ? "" : name; };
  const close = () => setDialog("");
  return html`<div class="canvas" onDragOver=${over} onDrop=${drop}>
    <${Top} session=${held} onDialog=${setDialog} />
    <${Tools} />
    <div class="cv-middle">
      <${ToolOptions} editor=${editor} />
      <${Stage} session=${held} /><p class="hidden" role="status">${pointed.value}</p>
      <${Candidates} session=${held} onAgain=${() => making.begin({ ...WANTED, ...editor.kept.settings.wanted })} />
    </div>
    <div class="cv-tabs" role="group" aria-label="Panels">
      <button type="button" class="button small" aria-expanded=${sheet.value === "draw"} onClick=${() => panel("draw")}><${Icon} name="spark" /> Draw</button>
      <button type="button" class="button small" aria-expanded=${sheet.value === "layers"} onClick=${() => panel("layers")}><${Icon} name="sheets" /> Layers</button>
    </div>
    <aside class=${`cv-side ${sheet.value}`}><${DrawPanel} session=${held} /><${LayersPanel} editor=${editor} /></aside>
    ${dialog === "open" && html`<${Canvases} onClose=${close} />`}
    ${dialog === "new" && html`<${NewCanvas} onClose=${close} />`}
    ${dialog === "save" && html`<${Save} session=${held} onClose=${close} />`}
    ${dialog === "place" && html`<${Place} onClose=${close} />`}
  </div>`;
}

/** @type {Promise<void>} */
let turn = Promise.resolve();

export function Canvas() {
  const given = handed.value;
  useEffect(() => {
    const output = handed.peek();
    handed.value = null;
    if (output) tool.value = "mask"; // that is what one comes for
    turn = turn.then(() => (output ? from(output) : begin())).catch((error) => console.error(error));
  }, [given]);
  const held = session.value;
  return held ? html`<${Open} key=${held.editor.kept.id} session=${held} />` : html`<p class="soft cv-wait">Opening the canvas …</p>`;
}
