// The views, in the order of the menu; each is loaded when it is first opened.

/**
 * @typedef {object} Route
 * @property {string} name of its address, #/name
 * @property {string} title
 * @property {string} key that opens it
 * @property {string} icon see icons.js
 * @property {() => Promise<import("./vendor/preact.js").Component<object>>} load
 */

/** @type {Route[]} */
export const routes = [
  {
    name: "create", title: "Create", key: "1", icon: "spark",
    load: async () => (await import("./create/view.js")).Create,
  },
  {
    name: "canvas", title: "Canvas", key: "2", icon: "brush",
    load: async () => (await import("./canvas/page.js")).Canvas,
  },
  {
    name: "grids", title: "Grids", key: "3", icon: "matrix",
    load: async () => (await import("./grids/view.js")).Grids,
  },
  {
    name: "gallery", title: "Gallery", key: "4", icon: "pictures",
    load: async () => (await import("./gallery/view.js")).Gallery,
  },
  {
    name: "queue", title: "Queue", key: "5", icon: "queue",
    load: async () => (await import("./queue/view.js")).Queue,
  },
  {
    name: "models", title: "Models", key: "6", icon: "cube",
    load: async () => (await import("./models/view.js")).Models,
  },
];
