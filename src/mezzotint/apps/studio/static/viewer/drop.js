// A file that is dropped or pasted anywhere: its recipe goes into Create, or it is a start.
import { api, ApiError } from "../api.js";
import { begin, form } from "../create/form.js";
import { attempt, say } from "../store.js";
import { html, signal } from "../ui.js";

const over = signal(false);

/** Take a file up. @param {File} file */
export async function take(file) {
  say(`Reading ${file.name || "the picture"} …`);
  const given = await attempt(api.upload(file, file.name));
  if (!given) return;
  try {
    const found = await api.recipe(given.id);
    const first = found.wishes[0] ?? {};
    begin(first, { locked: true, count: found.wishes.length || 1 });
    const left = found.left.length ? ` Not taken over: ${found.left.map(String).join("; ")}` : "";
    say(`The recipe of ${file.name} (${found.program}) is in Create.${left}`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const { model, prompt } = form.value;
    begin({ model, prompt }, { locked: false, more: { image: given.id, strength: "0.6" } });
    say(`It carries no recipe, so it is what Create starts from. (${error.message})`);
  }
}

/** @param {DataTransfer | null} data */
const fileOf = (data) => [...(data?.files ?? [])][0];

/** Listen on the whole page; a view that takes files itself stops the event before. */
export function dropped() {
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    over.value = true;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over.value = false; });
  addEventListener("drop", (event) => {
    over.value = false;
    const file = fileOf(event.dataTransfer);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  addEventListener("paste", (event) => {
    const file = fileOf(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}

export function DropTarget() {
  return over.value ? html`<div class="drop"><p>Let go: its recipe is read, or it is what you start from</p></div>` : null;
}
