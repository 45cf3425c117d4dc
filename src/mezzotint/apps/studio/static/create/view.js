import { html } from "../ui.js";

export function Create() {
  return html`<h1>Create</h1>`;
}
