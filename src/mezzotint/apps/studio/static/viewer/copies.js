// The picture as what other programs say: a command, Python, curl.
import { Icon } from "../icons.js";
import { say } from "../store.js";
import { html, useEffect, useState } from "../ui.js";
import { optionsOf } from "./steer.js";

/** @typedef {import("../api.js").Options} Options */

/** @param {string} text */
const quoted = (text) => (/^[\w.,:=/@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** @param {Options} options @returns {[string, string | true][]} */
const pairs = (options) => Object.entries(options).filter(([name]) => name !== "prompt")
  .flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((each) => /** @type {[string, string | true]} */ ([name, each])));

/** @param {Options} options */
const command = (options) => `mezzotint generate ${quoted(String(options.prompt ?? ""))}${pairs(options)
  .map(([name, value]) => (value === true ? ` --${name}` : ` --${name} ${quoted(value)}`)).join("")}`;

/** @param {string} text a string of Python */
const python = (text) => JSON.stringify(text);

/** @param {Options} options */
function asPython(options) {
  const body = Object.entries(options).map(([name, value]) =>
    `    ${python(name)}: ${value === true ? "True" : Array.isArray(value) ? `[${value.map(python).join(", ")}]` : python(String(value))},`);
  return `import httpx

job = httpx.post("${location.origin}/v1/jobs", json={
${body.join("\n")}
}).json()
print(job["id"])`;
}

/** @param {Options} options */
const curl = (options) =>
  `curl ${location.origin}/v1/jobs -H 'content-type: application/json' -d ${quoted(JSON.stringify(options))}`;

/** @param {string} text @param {string} what */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied as ${what}.`);
  } catch {
    say("The browser does not let the page copy: choose the text below.", true);
  }
}

/** @param {{output: import("../api.js").Output}} props */
export function Copies({ output }) {
  const [options, setOptions] = useState(/** @type {Options | null} */ (null));
  useEffect(() => {
    let gone = false;
    optionsOf(output).then((found) => { if (!gone) setOptions(found); }).catch(() => {});
    return () => { gone = true; };
  }, [output.id]);
  if (!options) return null;
  const all = /** @type {[string, string][]} */ ([["command", command(options)], ["Python", asPython(options)], ["curl", curl(options)]]);
  return html`<section><h3>Say it elsewhere</h3>
    <div class="row">${all.map(([what, text]) => html`<button key=${what} type="button" class="button small" onClick=${() => copy(text, what)}>
      <${Icon} name="copy" /><span>Copy as ${what}</span></button>`)}</div>
    <details class="said"><summary>Show</summary>${all.map(([what, text]) => html`<pre key=${what} tabindex="0" aria-label=${what}>${text}</pre>`)}</details>
  </section>`;
}
