import { html } from "../ui.js";

export function Queue() {
  return html`<h1>Queue</h1>`;
}
