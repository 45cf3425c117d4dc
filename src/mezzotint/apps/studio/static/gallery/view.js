import { html } from "../ui.js";

export function Gallery() {
  return html`<h1>Gallery</h1>`;
}
