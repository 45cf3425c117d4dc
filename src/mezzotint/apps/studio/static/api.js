// The server's own interface, /v1.  Nothing else talks to it.

/**
 * @typedef {object} Output
 * @property {string} id
 * @property {string} job
 * @property {number} place
 * @property {number} number
 * @property {string} file SHA-256 of its bytes
 * @property {string} url
 * @property {string} type
 * @property {number} bytes
 * @property {number} width
 * @property {number} height
 * @property {string} seed
 * @property {string} model
 * @property {string} prompt
 * @property {string} licence
 * @property {"cutout" | "composite" | null} derived how it was made of other pictures
 * @property {boolean} transparent
 * @property {number} [likeness] to what was sought for
 * @property {{wh: number, gco2e: number, how: string} | null} energy that making it took
 * @property {string} created
 * @property {boolean} [favourite]
 * @property {Recipe} [recipe] of one that was asked for by itself
 *
 * @typedef {Record<string, string | string[] | boolean>} Options as of `mezzotint generate`
 * @typedef {{option: string, name: string, fingerprint: string}} InputFile
 *
 * @typedef {{[said: string]: any, software: string, options: Options, files: InputFile[]}} Recipe
 *
 * @typedef {"submitted" | "running" | "done" | "failed" | "cancelled"} State
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {number} number
 * @property {string} kind
 * @property {State} state
 * @property {string} owner
 * @property {number} priority
 * @property {Options | null} asked
 * @property {number} count
 * @property {number} step
 * @property {number} steps
 * @property {{message: string, fault: string} | null} error
 * @property {any} result
 * @property {Output[]} outputs
 * @property {string} created
 * @property {string | null} started
 * @property {string | null} finished
 *
 * @typedef {{[option: string]: string | number | boolean | (string | number)[] | undefined}} Wish
 *
 * @typedef {object} Model
 * @property {string} name
 * @property {string} [kind]
 * @property {string} [error]
 * @property {number} [bytes] of its files
 * @property {Record<string, string>} [details]
 * @property {string[]} [sizes] that it was trained on
 * @property {{size?: string, steps?: number, transparent?: boolean, edits?: boolean}} [usual]
 * @property {boolean} [image_prompts] whether pictures may be a part of the prompt
 *
 * @typedef {{models: Model[], loras: string[], embeddings: string[], controls: string[], wildcards: string[]}} Kinds
 *
 * @typedef {{id: string, type: string, bytes: number}} Upload
 * @typedef {{id: string, name: string, count: number, cover: string | null}} Board
 *
 * @typedef {{count: number, bytes: number}} Taken
 * @typedef {{outputs: Taken, uploads: Taken, unused: Taken, free: number}} Space
 *
 * @typedef {Output & {how: string}} Kin
 * @typedef {{parents: Kin[], uploads: {file: string, name: string}[], children: Kin[], boards: string[]}} Family
 *
 * @typedef {object} Told what is told of a job while it runs
 * @property {string} [job]
 * @property {string} [state]
 * @property {number} [step]
 * @property {number} [steps]
 * @property {number} [place]
 * @property {string} [preview] a WebP in base64
 * @property {string} [output] the id of a picture that is done
 */

/** What the server says is wrong, in one line. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status @param {string | null} field */
  constructor(message, status, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

const TOKEN = "mezzotint.token";

/** @returns {string | null} */
export const token = () => localStorage.getItem(TOKEN);

/** @param {string} given */
export function setToken(given) {
  if (given) localStorage.setItem(TOKEN, given);
  else localStorage.removeItem(TOKEN);
}

/** @returns {Record<string, string>} */
function bearer() {
  const held = token();
  return held ? { authorization: `Bearer ${held}` } : {};
}

/** Whoever wants to know that a token is needed. @type {() => void} */
let onDenied = () => {};

/** @param {() => void} told */
export function whenDenied(told) {
  onDenied = told;
}

/**
 * Ask the server.
 * @param {string} method
 * @param {string} path
 * @param {{json?: unknown, body?: Blob, headers?: Record<string, string>, signal?: AbortSignal}} [more]
 * @returns {Promise<Response>} that is good
 * @throws {ApiError}
 */
export async function request(method, path, more = {}) {
  const headers = { ...bearer(), ...more.headers };
  let body = /** @type {BodyInit | undefined} */ (more.body);
  if (more.json !== undefined) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(more.json);
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal: more.signal });
  } catch (error) {
    if (more.signal?.aborted) throw error;
    throw new ApiError("the server does not answer", 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) onDenied();
  const said = await answer.json().catch(() => null);
  const found = said?.error ?? {};
  throw new ApiError(
    String(found.message ?? `the server said ${answer.status}`), answer.status, found.field ?? null,
  );
}

/** @param {string} method @param {string} path @param {unknown} [json] @returns {Promise<any>} */
async function call(method, path, json) {
  const answer = await request(method, path, { json });
  return answer.status === 204 ? null : answer.json();
}

/** @param {string} path @param {Record<string, string | number | undefined>} asked */
function query(path, asked) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) {
    if (value !== undefined && value !== "") found.set(name, String(value));
  }
  return found.size ? `${path}?${found}` : path;
}

/** @typedef {Record<string, string | number | undefined>} Asked */

export const api = {
  /** @returns {Promise<Kinds>} */
  models: () => call("GET", "/v1/models"),
  /** @returns {Promise<{samplers: string[], spacings: string[]}>} */
  samplers: () => call("GET", "/v1/samplers"),
  /** @returns {Promise<Record<string, string>>} */
  fields: () => call("GET", "/v1/fields"),
  /** @param {Asked} asked @returns {Promise<Job[]>} */
  jobs: async (asked = {}) => (await call("GET", query("/v1/jobs", asked))).jobs,
  /** @param {string} id @returns {Promise<Job>} */
  job: (id) => call("GET", `/v1/jobs/${id}`),
  /** A key that came before is the same job. @param {Wish} wish @param {string} key
   * @returns {Promise<Job>} */
  submit: async (wish, key = crypto.randomUUID()) => {
    const headers = { "idempotency-key": key };
    return (await request("POST", "/v1/jobs", { json: wish, headers })).json();
  },
  /** @param {string} id @returns {Promise<Job>} */
  cancel: (id) => call("DELETE", `/v1/jobs/${id}`),
  /** @param {string} id @param {number} priority @returns {Promise<Job>} */
  hasten: (id, priority) => call("PATCH", `/v1/jobs/${id}`, { priority }),
  /** @param {Asked} asked @returns {Promise<Output[]>} */
  outputs: async (asked = {}) => (await call("GET", query("/v1/outputs", asked))).outputs,
  /** @param {string} id @returns {Promise<Output>} with its recipe */
  output: (id) => call("GET", `/v1/outputs/${id}`),
  /** What was put together, as a file that says so. @param {Blob} body
   * @param {{part: string[], name: string, format: string, keep: boolean}} asked
   * @returns {Promise<{file: Blob, output: string | null}>} output: of what was kept */
  compose: async (body, { part, name, format, keep }) => {
    const asked = new URLSearchParams([...part.map((each) => ["part", each]), ["name", name.slice(0, 200)], ["format", format], ["keep", String(keep)]]);
    const answer = await request("POST", `/v1/composites?${asked}`, { body, headers: { "content-type": "application/octet-stream" } });
    return { file: await answer.blob(), output: answer.headers.get("x-mezzotint-output") };
  },
  /** @param {string} picture @returns {Promise<Output>} without its ground */
  cutout: (picture) => call("POST", "/v1/cutouts", { picture }),
  /** @param {string} id */
  forget: async (id) => { await call("DELETE", `/v1/outputs/${id}`); return true; },
  /** @param {Blob} file @param {string} name @returns {Promise<Upload>} */
  upload: async (file, name = "") =>
    (await request("POST", query("/v1/uploads", { name: name.slice(0, 200) }), {
      body: file, headers: { "content-type": "application/octet-stream" },
    })).json(),
  /** @returns {Promise<Space>} */
  space: () => call("GET", "/v1/space"),
  /** @returns {Promise<Taken>} what was given and is used by nothing, now gone */
  forgetUnused: () => call("DELETE", "/v1/uploads"),
  /** @param {string} id @param {boolean} is @returns {Promise<{favourite: boolean}>} */
  favour: (id, is) => call("PUT", `/v1/outputs/${id}/favourite`, { favourite: is }),
  /** @returns {Promise<Board[]>} */
  boards: async () => (await call("GET", "/v1/boards")).boards,
  /** @param {string} name @returns {Promise<Board>} */
  addBoard: (name) => call("POST", "/v1/boards", { name }),
  /** @param {string} id @param {string} name @returns {Promise<Board>} */
  renameBoard: (id, name) => call("PATCH", `/v1/boards/${id}`, { name }),
  /** @param {string} id */
  dropBoard: (id) => call("DELETE", `/v1/boards/${id}`),
  /** @param {string} id @param {string[]} outputs @param {boolean} on */
  pin: (id, outputs, on) => call("POST", `/v1/boards/${id}/outputs`, { outputs, on }),
  /** @param {string} id @returns {Promise<Family>} */
  family: (id) => call("GET", `/v1/outputs/${id}/family`),
  /** @param {string} picture @returns {Promise<any>} */
  credentials: (picture) => call("POST", "/v1/credentials", { picture }),
  /** @param {string} picture @returns {Promise<any>} */
  verify: (picture) => call("POST", "/v1/verify", { picture }),
  /** @param {string} picture @returns {Promise<any>} */
  detect: (picture) => call("POST", "/v1/detect", { picture }),
  /** @param {string} picture
   * @returns {Promise<{program: string, wishes: Options[], left: unknown[]}>} */
  recipe: (picture) => call("POST", "/v1/recipe", { picture }),
};

/**
 * Follow events until they end; the reader reconnects by calling again.
 * @param {string} path
 * @param {(told: Told) => void} hear
 * @param {AbortSignal} signal
 */
export async function follow(path, hear, signal) {
  const headers = { accept: "text/event-stream" };
  const answer = await request("GET", path, { headers, signal });
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop() ?? "";
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) hear(JSON.parse(lines.map((line) => line.slice(5)).join("\n")));
    }
  }
}
