// The models: what each is, what it needs, and what it allows.
import { Icon } from "../icons.js";
import { change } from "../create/form.js";
import { size } from "../parts.js";
import { go, learn, models, pause } from "../store.js";
import { html, useEffect } from "../ui.js";

/** @typedef {import("../api.js").Model} Model */

const NOTES = /** @type {[string, string][]} */ ([
  ["config.notes.licence", "Licence"], ["licence", "Licence"], ["license", "Licence"],
  ["config.defaults.size", "Usual size"], ["config.defaults.steps", "Steps"], ["config.defaults.guidance", "Guidance"],
  ["config.defaults.sampler", "Sampler"], ["config.prediction", "Predicts"], ["config.condition", "Told by"],
  ["config.notes.data", "Learnt from"], ["config.notes.items", "Drawings"],
]);
const TOLD = /** @type {Record<string, string>} */ ({
  icons: "Words to a small picture on a transparent ground: icons, emoji, stickers. It lies in the package, runs on two cores and asks nobody.",
});

const LOOK = 2000; // ms between looks for files that have come

/** @param {{model: Model}} props */
function Card({ model }) {
  const details = model.details ?? {};
  const known = [["Weights", model.bytes && size(model.bytes)], ...NOTES.map(([name, label]) => [label, details[name]]), ["Sizes", model.sizes?.join(", ")]]
    .filter(([, value]) => value);
  return html`<article class="model"><header class="row"><h2>${model.name}</h2>
      ${!model.error && html`<button type="button" class="button small end" onClick=${() => { change({ model: model.name }); go("create"); }}><${Icon} name="spark" /><span>Create with it</span></button>`}</header>
    ${model.error ? html`<p class="bad">${model.error}</p>` : html`<p class="soft">${TOLD[model.name] ?? model.kind}</p>`}
    <dl class="about">${known.map(([label, value]) => html`<div key=${`${label}${value}`}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>
    ${Object.keys(details).length > 0 && html`<details class="said"><summary>All that its file says</summary><dl class="about">
      ${Object.entries(details).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></details>`}
  </article>`;
}

export function Models() {
  useEffect(() => {
    let here = true;
    (async () => { while (here) { await learn(); await pause(LOOK); } })();
    return () => { here = false; };
  }, []);
  return html`<div class="head"><h1>Models</h1></div>
    <p class="soft lead">Models are files in the folders that the server was started with (<code>--models DIR</code>); put a
      checkpoint there, and it appears here. None is ever fetched, and no code in a file is run. Adapters lie
      in <code>loras</code> below it, words in <code>embeddings</code>, lists in <code>wildcards</code>.</p>
    <div class="models">${models.value.map((model) => html`<${Card} key=${model.name} model=${model} />`)}</div>`;
}
