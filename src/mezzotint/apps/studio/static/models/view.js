import { html } from "../ui.js";

export function Models() {
  return html`<h1>Models</h1>`;
}
