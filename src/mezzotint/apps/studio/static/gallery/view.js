// The gallery: everything that was made, found again by what is known of it.
import { api, ApiError } from "../api.js";
import { Icon } from "../icons.js";
import { jobs } from "../live.js";
import { End } from "../create/view.js";
import { MenuButton } from "../parts.js";
import { attempt, modelNames } from "../store.js";
import { html, signal, useCallback, useEffect, useMemo, useRef, useState } from "../ui.js";
import { MOST_REFERENCES } from "../create/form.js";
import { added, asReference, blend, gone, promptedBy } from "../viewer/steer.js";
import { onTileKey, Tile } from "../viewer/tile.js";
import { addBoard, BoardButton, boards, readBoards } from "./boards.js";
import { Compare } from "./compare.js";
import { Space } from "./space.js";
import { like, Liked, LikeFile, likeFile } from "./like.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {import("../api.js").Board} Board */

const EVERY = 60;
const FIRST = { q: "", model: "", seed: "", licence: "", since: "", until: "" };
/** What is sought; it stays while one looks elsewhere. */
const sought = signal(FIRST);
/** Counts up when what was found is not so any more. */
const again = signal(0);
/** The board that is open, "favourites", or all. */
const board = signal("");

/** @returns {import("../api.js").Asked} */
function asked() {
  const { since, until, ...words } = sought.value;
  const day = until ? new Date(`${until}T00:00`) : null;
  day?.setDate(day.getDate() + 1);
  return {
    ...words, since: since ? new Date(`${since}T00:00`).toISOString() : "", until: day?.toISOString() ?? "",
    like: like.value?.id, board: board.value === "favourites" ? "" : board.value, favourite: board.value === "favourites" ? "true" : undefined,
  };
}

/** @param {Event} event */
const valueOf = (event) => /** @type {HTMLInputElement} */ (event.target).value;

function Search() {
  const [isWide, setWide] = useState(false);
  const set = (/** @type {string} */ name) => (/** @type {Event} */ event) => { sought.value = { ...sought.value, [name]: valueOf(event).trim() }; };
  const now = sought.value;
  const busy = Object.values(now).some(Boolean) || like.value;
  const drop = (/** @type {DragEvent} */ event) => {
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault(); // and so it is not what Create starts from
    event.stopPropagation();
    dispatchEvent(new DragEvent("dragleave"));
    likeFile(file);
  };
  return html`<form class="search" role="search" onDrop=${drop} onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    <div class="search-main"><${Icon} name="search" />
      <input data-first type="search" aria-label="Words of the prompt" placeholder="Search the prompts" value=${now.q} onInput=${set("q")} />
      <button type="button" class="button small" aria-expanded=${isWide} onClick=${() => setWide(!isWide)}><${Icon} name="sliders" /><span>${isWide ? "Less" : "More"}</span></button>
      <${LikeFile} />
      ${busy && html`<button type="button" class="button small" onClick=${() => { sought.value = FIRST; like.value = null; }}>All again</button>`}
    </div>
    <${Liked} />
    ${isWide && html`<div class="options">
      <label class="field"><span>Model</span><select value=${now.model} onChange=${set("model")}><option value="">any</option>
        ${modelNames.value.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <label class="field"><span>Seed</span><input inputmode="numeric" value=${now.seed} onInput=${set("seed")} /></label>
      <label class="field"><span>Licence</span><input placeholder="MIT" value=${now.licence} onInput=${set("licence")} /></label>
      <label class="field"><span>From</span><input type="date" value=${now.since} onInput=${set("since")} /></label>
      <label class="field"><span>Until</span><input type="date" value=${now.until} onInput=${set("until")} /></label>
    </div>`}
  </form>`;
}

function Boards() {
  useEffect(() => { readBoards(); }, []);
  const open = boards.value.find((each) => each.id === board.value);
  const add = async () => {
    const name = prompt("What shall the board be called?")?.trim();
    const made = name && await addBoard(name);
    if (made) board.value = made.id;
  };
  const rename = async () => {
    const name = open && prompt("What shall the board be called?", open.name)?.trim();
    if (open && name && await attempt(api.renameBoard(open.id, name))) readBoards();
  };
  const dropIt = async () => {
    if (!open || !confirm(`Drop the board ${open.name}? Its pictures stay in the gallery.`)) return;
    await attempt(api.dropBoard(open.id));
    board.value = "";
    readBoards();
  };
  const one = (/** @type {string} */ id, /** @type {string} */ name, /** @type {number | null} */ count, /** @type {string} */ icon) => html`
    <button key=${id} type="button" class="button small" aria-pressed=${board.value === id} onClick=${() => { board.value = id; }}>
      ${icon && html`<${Icon} name=${icon} />`}<span>${name}</span>${count !== null && html`<span class="soft">${count}</span>`}</button>`;
  return html`<div class="row boards" role="group" aria-label="Boards">
    ${one("", "All", null, "pictures")}${one("favourites", "Favourites", null, "heart")}
    ${boards.value.map((each) => one(each.id, each.name, each.count, "folder"))}
    <button type="button" class="bare" aria-label="A new board" title="A new board" onClick=${add}><${Icon} name="plus" /></button>
    ${open && html`<${MenuButton} label=${`Board ${open.name}`} items=${[
      { label: "Another name", icon: "brush", run: rename }, { label: "Drop the board", icon: "trash", bad: true, run: dropIt }]} />`}
  </div>`;
}

/** @param {{outputs: Output[], chosen: Output[], setChosen: (next: Output[] | null) => void}} props */
function Chosen({ outputs, chosen, setChosen }) {
  const [comparing, setComparing] = useState(false);
  const [a, b] = chosen;
  const open = boards.value.find((each) => each.id === board.value);
  const takeOff = async () => {
    if (!open || (await attempt(api.pin(open.id, chosen.map((each) => each.id), false))) === undefined) return;
    setChosen(null);
    readBoards();
    again.value++;
  };
  const away = async () => {
    if (!confirm(`Throw ${chosen.length} away for good?`)) return;
    for (const each of chosen) {
      if (await attempt(api.forget(each.id)) !== undefined) gone.value = new Set([...gone.value, each.id]);
    }
    setChosen(null);
  };
  return html`<div class="chosen" role="group" aria-label="What to do with those that are chosen"><span>${chosen.length} chosen</span>
    <button type="button" class="button small" disabled=${chosen.length !== 2} onClick=${() => setComparing(true)} title="Choose two"><${Icon} name="compare" /><span>Compare</span></button>
    ${a && promptedBy(a) && html`<button type="button" class="button small" disabled=${chosen.length < 2 || chosen.length > MOST_REFERENCES} onClick=${() => blend(chosen)} title="Choose two to five"><${Icon} name="blend" /><span>Blend</span></button>
      <button type="button" class="button small" disabled=${chosen.length > MOST_REFERENCES} onClick=${() => asReference(chosen)}><${Icon} name="spark" /><span>Use as reference</span></button>`}
    <${BoardButton} label="On a board" outputs=${chosen} onDone=${() => setChosen(null)} />
    ${open && html`<button type="button" class="button small" disabled=${!chosen.length} onClick=${takeOff}>Off ${open.name}</button>`}
    <button type="button" class="button small" onClick=${() => setChosen(outputs)}>All</button>
    <button type="button" class="button small danger" disabled=${!chosen.length} onClick=${away}><${Icon} name="trash" /><span>Throw away</span></button>
    <button type="button" class="bare" aria-label="Choose none" onClick=${() => setChosen(null)}><${Icon} name="close" /></button>
    ${comparing && a && b && html`<${Compare} two=${[a, b]} onClose=${() => setComparing(false)} />`}
  </div>`;
}

/** Newer pictures, and those of the older ones that come after them. @param {Output[]} newer @param {Output[]} older */
function before(newer, older) {
  const last = newer.at(-1)?.number ?? 0;
  return [...newer, ...older.filter((each) => each.number < last)];
}

export function Gallery() {
  const [outputs, setOutputs] = useState(/** @type {Output[]} */ ([]));
  const [state, setState] = useState(/** @type {"reading" | "here" | string} */ ("reading"));
  const [round, setRound] = useState(0);
  const [chosen, setChosen] = useState(/** @type {Output[] | null} */ (null));
  const [space, setSpace] = useState(false);
  const key = JSON.stringify([sought.value, board.value, like.value, again.value]);
  const read = useRef("");
  const newest = jobs.value.reduce((most, live) => Math.max(most, ...live.job.value.outputs.map((each) => each.number)), 0);
  useEffect(() => {
    let over = false;
    const wait = setTimeout(async () => {
      try {
        const found = await api.outputs({ ...asked(), limit: EVERY });
        if (over) return;
        const same = read.current === key; // what is new comes before what one has scrolled to
        read.current = key;
        setOutputs((now) => (same && !like.value ? before(found, now) : found));
        setState("here");
        if (!same) setRound((n) => n + 1);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (!over) setState(error.message);
      }
    }, 150);
    return () => { over = true; clearTimeout(wait); };
  }, [key, newest, added.value]);
  const more = useCallback(async () => {
    const last = outputs.at(-1);
    if (!last || outputs.length < EVERY) return false;
    const found = await api.outputs({ ...asked(), limit: EVERY, before: last.number, beyond: last.likeness });
    setOutputs((now) => (like.value ? [...now, ...found] : before(now, found)));
    return found.length > 0;
  }, [outputs, key]);
  const shown = useMemo(() => outputs.filter((each) => !gone.value.has(each.id)), [outputs, gone.value]);
  const choose = (/** @type {Output} */ output) => setChosen((now) => {
    const there = now ?? [];
    return there.some((each) => each.id === output.id) ? there.filter((each) => each.id !== output.id) : [...there, output];
  });
  const tiles = useMemo(() => { // the same ones are not drawn again
    const ids = new Set(chosen?.map((each) => each.id));
    return shown.map((output) => html`<${Tile} key=${output.id} output=${output} among=${shown}
      chosen=${ids.has(output.id)} onChoose=${chosen ? choose : undefined} />`);
  }, [shown, chosen]);
  return html`<div class="head"><h1>Gallery</h1>
      <button type="button" class="button small end" onClick=${() => setSpace(true)}><${Icon} name="folder" /><span>Space</span></button>
      <button type="button" class="button small" aria-pressed=${chosen !== null} onClick=${() => setChosen(chosen ? null : [])}><${Icon} name="check" /><span>Choose</span></button></div>
    ${space && html`<${Space} onClose=${() => setSpace(false)} />`}
    <${Search} /><${Boards} />
    ${chosen && html`<${Chosen} outputs=${shown} chosen=${chosen} setChosen=${setChosen} />`}
    ${state !== "reading" && state !== "here" && html`<p class="bad" role="alert">${state}</p>`}
    <p class="hidden" role="status">${state === "here" ? `${shown.length} pictures` : ""}</p>
    ${state === "here" && !shown.length && html`<section class="empty"><h2>Nothing here</h2><p class="soft">${JSON.stringify([sought.value, board.value, like.value]) === JSON.stringify([FIRST, "", null]) ? "What you create is kept here." : "Nothing fits what is sought."}</p></section>`}
    <div class="wall" onKeyDown=${onTileKey}>${tiles}</div>
    ${outputs.length >= EVERY && html`<${End} key=${round} onNear=${more} />`}`;
}
