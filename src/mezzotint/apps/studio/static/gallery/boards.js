// Boards: where pictures are laid together.
import { api, ApiError } from "../api.js";
import { Icon } from "../icons.js";
import { usePopup } from "../parts.js";
import { attempt, say } from "../store.js";
import { html, signal, useEffect, useState } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {import("../api.js").Board} Board */

/** @type {import("../ui.js").Signal<Board[]>} */
export const boards = signal([]);

export async function readBoards() {
  try {
    boards.value = await api.boards();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
  }
}

/** @param {string} name @returns {Promise<Board | undefined>} */
export async function addBoard(name) {
  const made = await attempt(api.addBoard(name));
  await readBoards();
  return made;
}

/**
 * A list of boards to lay pictures on.
 * @param {{outputs: Output[], on?: string[], onDone?: (board: Board, on: boolean) => void}} props
 */
export function BoardList({ outputs, on = [], onDone }) {
  const [name, setName] = useState("");
  useEffect(() => { readBoards(); }, []);
  const pin = async (/** @type {Board} */ board) => {
    const is = !on.includes(board.id);
    const done = await attempt(api.pin(board.id, outputs.map((each) => each.id), is));
    if (done === undefined) return;
    readBoards();
    say(is ? `On ${board.name}.` : `No longer on ${board.name}.`);
    onDone?.(board, is);
  };
  const add = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const made = name.trim() && await addBoard(name.trim());
    if (!made) return;
    setName("");
    pin(made);
  };
  return html`${boards.value.map((board) => html`<button key=${board.id} type="button" aria-pressed=${on.includes(board.id)} onClick=${() => pin(board)}>
      <${Icon} name=${on.includes(board.id) ? "check" : "folder"} /><span>${board.name}</span></button>`)}
    <form class="with-button" onSubmit=${add}><input aria-label="A new board" placeholder="A new board" maxlength="100" value=${name}
      onInput=${(/** @type {Event} */ event) => setName(/** @type {HTMLInputElement} */ (event.target).value)} />
      <button type="submit" class="bare" aria-label="Make the board"><${Icon} name="plus" /></button></form>`;
}

/** @param {{label: string, outputs: Output[], on?: string[], onDone?: (board: Board, on: boolean) => void}} props */
export function BoardButton({ label, outputs, on, onDone }) {
  const { isOpen, setOpen, at } = usePopup();
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !isOpen) return;
    event.preventDefault();
    event.stopPropagation();
    setOpen(false);
  };
  return html`<div class="popup" ref=${at} onKeyDown=${onKey}>
    <button type="button" class="button small" aria-expanded=${isOpen} disabled=${!outputs.length} onClick=${() => setOpen(!isOpen)}><${Icon} name="folder" /><span>${label}</span></button>
    ${isOpen && html`<div class="popup-list left"><${BoardList} outputs=${outputs} on=${on} onDone=${onDone} /></div>`}
  </div>`;
}

/** The boards of one picture. @param {{output: Output}} props */
export function BoardsOf({ output }) {
  const [on, setOn] = useState(/** @type {string[]} */ ([]));
  useEffect(() => {
    let gone = false;
    setOn([]);
    api.family(output.id).then((found) => { if (!gone) setOn(found.boards); }).catch(() => {});
    return () => { gone = true; };
  }, [output.id]);
  return html`<${BoardButton} label="Boards" outputs=${[output]} on=${on}
    onDone=${(/** @type {Board} */ board, /** @type {boolean} */ is) => setOn((now) => (is ? [...now, board.id] : now.filter((each) => each !== board.id)))} />`;
}
