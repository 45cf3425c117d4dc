// The picture as what other programs say: a command, Python, curl.  Each makes its pixels again.
import { token } from "../api.js";
import { Icon } from "../icons.js";
import { say } from "../store.js";
import { html, useEffect, useState } from "../ui.js";
import { optionsOf } from "./steer.js";

/** @typedef {import("../api.js").Options} Options */

// Control characters, of which a terminal that is pasted to obeys some, and those that turn the
// direction of the text, so that it reads otherwise than it is run.
const UNSEEN = /[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/;
const EACH_UNSEEN = new RegExp(UNSEEN.source, "g");

/** @param {string} text as bytes that bash and zsh say by number */
const bytes = (text) => [...new TextEncoder().encode(text)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");

/** @param {string} text for a shell: one word that is read as it stands */
function quoted(text) {
  if (/^[\w.,:=/@%+-]+$/.test(text)) return text;
  if (!UNSEEN.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  return `$'${text.replace(new RegExp(`[\\\\'!]|${UNSEEN.source}`, "g"), bytes)}'`;
}

/** @param {unknown} value as JSON in which every character is seen */
const json = (value) => JSON.stringify(value).replace(EACH_UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** @param {Options} options @returns {[string, string | true][]} */
const pairs = (options) => Object.entries(options).filter(([name]) => name !== "prompt")
  .flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((each) => /** @type {[string, string | true]} */ ([name, each])));

const ID = /\b[0-9a-f]{64}\b/g;

/** What curl says who asks. */
const bearer = () => (token() ? ` -H "authorization: Bearer $MEZZOTINT_TOKEN"` : "");

/** Pictures that go in are fetched first, under the names that the recipe has: the mark in the pixels
 * holds its hash, and so the names too. @param {Options} options */
export function command(options) {
  const said = pairs(options);
  const files = new Set(said.flatMap(([, value]) => String(value).match(ID) ?? []));
  const fetched = [...files].map((id) => `curl -sf${bearer()} -o ${id} ${location.origin}/v1/files/${id} &&\n`).join("");
  const words = said.map(([name, value]) => (value === true ? ` --${name}` : ` --${name}=${quoted(String(value))}`)).join("");
  return `${fetched}mezzotint generate${words} -- ${quoted(String(options.prompt ?? ""))}`; // whatever it begins with
}

/** @param {unknown} value as Python says it */
const python = (value) => (value === true ? "True" : json(value)); // its texts are also Python's

/** Python's own library is enough. @param {Options} options */
export function asPython(options) {
  const body = Object.entries(options).map(([name, value]) => `    ${python(name)}: ${Array.isArray(value) ? `[${value.map(python).join(", ")}]` : python(value)},`);
  const held = token();
  return `import json
${held ? "import os\n" : ""}from urllib.request import Request, urlopen

HEADERS = {"content-type": "application/json"${held ? `, "authorization": "Bearer " + os.environ["MEZZOTINT_TOKEN"]` : ""}}

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return urlopen(Request("${location.origin}" + path, data, HEADERS)).read()

job = json.loads(ask("/v1/jobs", {
${body.join("\n")}
}))
ask(f"/v1/jobs/{job['id']}/events")  # until it ends
for made in json.loads(ask(f"/v1/jobs/{job['id']}"))["outputs"]:
    with open(f"{made['seed']}.{made['type'].split('/')[1]}", "wb") as file:
        file.write(ask(made["url"]))`;
}

/** @param {Options} options */
export function curl(options) {
  const here = location.origin, ask = `curl -sf${bearer()}`;
  return `job=$(${ask} ${here}/v1/jobs -H 'content-type: application/json' -d ${quoted(json(options))} |
  grep -o '"id": *"[0-9a-f]*"' | head -n 1 | grep -o '[0-9a-f]\\{32\\}')
${ask} ${here}/v1/jobs/$job/events > /dev/null  # until it ends
${ask} ${here}/v1/jobs/$job | grep -o '/v1/outputs/[0-9a-f]*/file' | while read -r file; do ${ask} -OJ "${here}$file"; done`;
}

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
