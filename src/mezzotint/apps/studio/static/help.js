// All keys, for the list under "?".
import { routes } from "./routes.js";

/** @type {{title: string, keys: [string, string][]}[]} */
export const KEYS = [
  {
    title: "Everywhere",
    keys: [
      ...routes.map((route) => /** @type {[string, string]} */ ([route.key, route.title])),
      ["/", "To the prompt, or the search"],
      ["Esc", "Close what lies on top; in the prompt: to the pictures"],
      ["?", "These keys"],
    ],
  },
  {
    title: "In the prompt",
    keys: [
      ["Enter", "Create"],
      ["Shift Enter", "A new line"],
      ["↑ ↓", "Earlier prompts"],
      ["Ctrl ↑ ↓", "More or less weight for the chosen words"],
    ],
  },
  {
    title: "At a picture",
    keys: [
      ["Arrow keys", "From picture to picture"],
      ["Enter", "Open it"],
      ["V", "Vary it subtly"],
      ["Shift V", "Vary it strongly"],
      ["E", "Enlarge it"],
      ["Z", "Zoom out of it"],
      ["R", "Remix: its prompt and seed into Create"],
      ["L", "More that look like it"],
      ["F", "Favourite"],
      ["D", "Download it"],
    ],
  },
  {
    title: "Tools of the canvas",
    keys: [
      ["B", "Brush; Alt picks a colour"],
      ["E", "Eraser"],
      ["F", "Fill"],
      ["U", "Shapes"],
      ["T", "Text"],
      ["I", "Pick a colour"],
      ["Q", "Paint the mask"],
      ["M", "Select a rectangle"],
      ["L", "Lasso"],
      ["V", "Move and turn a layer"],
      ["C", "Expand the frame"],
      ["H, Space", "Pan the view"],
    ],
  },
  {
    title: "On the canvas",
    keys: [
      ["Arrow keys", "The pointer, by pixels; Shift by ten"],
      ["Enter", "Put the tool down there, and lift it"],
      ["Esc", "Leave it, or select nothing"],
      ["[ ]", "Size; with a layer in hand, smaller and larger"],
      [", .", "Turn the layer by 1°; < > by 15°"],
      ["+ − 0", "Zoom; all of it"],
      ["Shift, Alt", "Add to the selection, take from it; both: what is in both"],
      ["Ctrl A D I", "Select all, nothing, the other part"],
      ["Delete", "Clear what is selected"],
      ["Ctrl Z", "Undo; Ctrl Shift Z does it again"],
      ["F2, Alt ↑ ↓", "At a layer: another name, another place"],
      ["Ctrl Enter", "In its prompt: draw"],
      ["← → Enter Esc", "At what came back: the next, take it, leave all"],
    ],
  },
];
