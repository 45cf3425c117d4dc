// Signs of the interface, drawn by us: lines of 1.6 on 24 × 24.
import { html } from "./ui.js";

/** @type {Record<string, string>} */
const PATHS = {
  spark: "M12 3v5M12 16v5M3 12h5M16 12h5M6 6l3 3M15 15l3 3M18 6l-3 3M9 15l-3 3",
  brush: "M20 4 10 14M8 14c-3 0-2 4-5 5 4 2 8 1 8-2 0-2-1-3-3-3Z",
  grid: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z",
  pictures: "M4 7h13v13H4zM7 4h13v13M4 17l4-4 3 3 2-2 4 4",
  queue: "M4 6h16M4 12h10M4 18h6M17 14v6M14 17h6",
  cube: "M12 3 4 7.5v9L12 21l8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  close: "M6 6l12 12M18 6 6 18",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  heart: "M12 20 4.5 12.5a4.6 4.6 0 0 1 7.5-5 4.6 4.6 0 0 1 7.5 5z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  unlock: "M6 11h12v9H6zM8.5 11V7a3.5 3.5 0 0 1 6.8-1",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  west: "M19 12H5M11 6l-6 6 6 6",
  east: "M5 12h14M13 6l6 6-6 6",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  half: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  help: "M9.5 9a2.6 2.6 0 1 1 3.8 2.3c-.9.5-1.3 1-1.3 2.2M12 17h.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  search: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15.5 15.5 20 20",
  plus: "M12 5v14M5 12h14",
  enlarge: "M4 10V4h6M20 14v6h-6M4 4l6 6M20 20l-6-6",
  expand: "M8 8h8v8H8zM4 7V4h3M17 4h3v3M20 17v3h-3M7 20H4v-3",
  vary: "M4 8c4-6 8 6 16 0M4 16c4-6 8 6 16 0",
  varies: "M4 6c4-5 8 5 16 0M4 12c4-5 8 5 16 0M4 18c4-5 8 5 16 0",
  remix: "M4 7h4l8 10h4M4 17h4l3-4M13 10l3-3h4M18 5l2 2-2 2M18 15l2 2-2 2",
  tile: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7zM4 8c3-2 4 2 7 0M13 8c3-2 4 2 7 0",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-2 4 4M15 9h.01",
  check: "M5 13l4 4L19 7",
  repeat: "M5 12a7 7 0 0 1 12-5l2 2M19 4v5h-5M19 12a7 7 0 0 1-12 5l-2-2M5 20v-5h5",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  compare: "M12 3v18M4 6h5v12H4M15 6h5v12h-5",
  tree: "M6 4v16M6 9h8a3 3 0 0 1 3 3v0M6 16h8M17 10.5v3M14 14.5v3",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M13 5v4M7 15v4",
  stop: "M7 7h10v10H7z",
  folder: "M3 6h7l2 2h9v11H3z",
  eye: "M2.5 12C6 6.500 18 6.500 21.500 12 18 17.500 6 17.500 2.500 12zM12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
};

/** @param {{name: string}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name] ?? ""} /></svg>`;
}
