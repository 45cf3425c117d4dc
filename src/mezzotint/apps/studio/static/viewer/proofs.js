// What can be proved of a picture: each is asked for, for each takes a while.
import { api, ApiError } from "../api.js";
import { Icon } from "../icons.js";
import { html, useState } from "../ui.js";

/** @typedef {import("../api.js").Output} Output */
/** @typedef {{good: boolean, said: string, lines: string[]}} Found */

/** @param {any} found @returns {Found} */
function verdict(found) {
  const apart = found.apart ? [`largest difference ${found.apart.largest ?? "?"}, PSNR ${found.apart.psnr ?? "?"}`] : [];
  return {
    good: found.verdict === "bit-equal", said: found.verdict === "bit-equal" ? "Made again: every bit is equal." : String(found.said),
    lines: [...(found.causes ?? []).map(String), ...apart],
  };
}

const STATES = /** @type {Record<string, string>} */ ({
  valid: "As it was signed, by a key that is known here.", untrusted: "As it was signed, by an unknown signer.",
  invalid: "Not as it was signed.", none: "It carries no credentials.",
});

/** @param {any} found @returns {Found} */
function signed(found) {
  const lines = [];
  for (const each of found.manifests ?? []) {
    const done = (each.actions ?? []).map((/** @type {{name: string}} */ act) => act.name.replace("c2pa.", "")).join(", ");
    lines.push(`${each.title}: ${done}; ${each.software}; signed by ${each.signature?.name ?? "?"} (${each.standing === "own" ? "your own key" : each.standing})`);
  }
  return { good: found.state === "valid", said: STATES[found.state] ?? String(found.state), lines: [...lines, ...(found.faults ?? []).map(String)] };
}

/** @param {any} found @returns {Found} */
function marked(found) {
  const marks = Array.isArray(found) ? found : found.marks ?? found.lines ?? found.found ?? [];
  /** @type {string[]} */
  const lines = marks.map((/** @type {any} */ each) => `${each.mark}, ${each.key}: p = ${Number(each.p_value).toPrecision(2)}`);
  const there = marks.some((/** @type {any} */ each) => each.p_value <= 1e-6);
  return { good: there, said: there ? "A watermark is in its pixels." : "No watermark was found.", lines };
}

/** @type {{name: string, label: string, icon: string, ask: (id: string) => Promise<any>, read: (found: any) => Found}[]} */
const ALL = [
  { name: "verify", label: "Verify", icon: "check", ask: api.verify, read: verdict },
  { name: "detect", label: "Detect", icon: "eye", ask: api.detect, read: marked },
  { name: "credentials", label: "Credentials", icon: "lock", ask: api.credentials, read: signed },
];

/** @param {{output: Output}} props */
export function Proofs({ output }) {
  const [found, setFound] = useState(/** @type {Record<string, Found | "asked">} */ ({}));
  const ask = async (/** @type {(typeof ALL)[number]} */ each) => {
    setFound((now) => ({ ...now, [each.name]: /** @type {const} */ ("asked") }));
    /** @type {Found} */
    let answer;
    try {
      answer = each.read(await each.ask(output.id));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      answer = { good: false, said: error.message, lines: [] };
    }
    setFound((now) => ({ ...now, [each.name]: answer }));
  };
  return html`<section><h3>Proof</h3>
    <div class="row">${ALL.map((each) => html`<button key=${each.name} type="button" class="button small" disabled=${found[each.name] === "asked"}
      onClick=${() => ask(each)}><${Icon} name=${each.icon} /><span>${each.label}</span></button>`)}</div>
    <div aria-live="polite">${ALL.map((each) => {
      const got = found[each.name];
      if (!got) return null;
      if (got === "asked") return html`<p key=${each.name} class="soft proof">${each.label} …</p>`;
      return html`<div key=${each.name} class="proof"><p class=${got.good ? "good" : "bad"}>${got.said}</p>
        ${got.lines.map((line, n) => html`<p key=${n} class="soft small-text">${line}</p>`)}</div>`;
    })}</div></section>`;
}
