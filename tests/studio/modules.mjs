// The studio's modules end in .js and have no package.json, as browsers need none: they are loaded
// as what they are.
import * as module from "node:module";

const root = new URL("../../src/mezzotint/apps/studio/static/", import.meta.url);
if (module.registerHooks) {
  module.registerHooks({
    load: (url, context, next) => next(url, url.startsWith(root.href) ? { ...context, format: "module" } : context),
  });
} else {
  module.register("data:text/javascript," + encodeURIComponent(
    `export const load = (url, context, next) => next(url, url.startsWith(${JSON.stringify(root.href)}) ? { ...context, format: "module" } : context);`,
  ), import.meta.url);
}

/** @param {string} name */
export const load = (name) => import(new URL(name, root).href);
