// @ts-check
/** A grid as one labelled picture: a view. What proves a picture is in the single ones. */

/** @typedef {{title: string, columns: string[], rows: string[], pictures: (ImageBitmap | null)[]}} Part row by row */

const GAP = 8, EDGE = 28, SMALL = "15px system-ui, sans-serif", HEAD = "600 17px system-ui, sans-serif";
const MOST = 12_000; // pixels of an edge

/** Words on lines that fit. @param {OffscreenCanvasRenderingContext2D} context @param {string} text @param {number} width @param {number} most lines */
function lines(context, text, width, most) {
  /** @type {string[]} */
  const found = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const next = line ? `${line} ${word}` : word;
    if (line && context.measureText(next).width > width) {
      found.push(line);
      line = word;
    } else line = next;
  }
  if (line) found.push(line);
  return found.length > most ? [...found.slice(0, most - 1), `${found[most - 1]} …`] : found;
}

/** @param {string} title @param {Part[]} parts @param {string} foot @returns {Promise<Blob>} a PNG */
export async function sheet(title, parts, foot) {
  const first = parts.flatMap((part) => part.pictures).find((each) => each);
  const columns = Math.max(...parts.map((part) => Math.max(part.columns.length, 1)));
  const rows = parts.reduce((sum, part) => sum + Math.max(part.rows.length, 1), 0);
  const aspect = first ? first.width / first.height : 1;
  const width = Math.max(Math.min(first?.width ?? 128, Math.floor(MOST / columns) - GAP, Math.floor((MOST / rows - GAP) * aspect)), 96);
  const height = Math.round(width / aspect);
  const aside = parts.some((part) => part.rows.some(Boolean)) ? 150 : 0;
  const whole = Math.max(2 * EDGE + aside + columns * (width + GAP), 560);
  const head = 44, over = 46;
  const tall = 2 * EDGE + 64 + parts.reduce((sum, part) => sum + (part.title ? head : 0) + over + Math.max(part.rows.length, 1) * (height + GAP), 0) + 40;
  const canvas = new OffscreenCanvas(whole, tall);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fffdfa";
  context.fillRect(0, 0, whole, tall);
  context.fillStyle = "#211d19";
  context.font = HEAD;
  let y = EDGE + 16;
  for (const line of lines(context, title, whole - 2 * EDGE, 2)) {
    context.fillText(line, EDGE, y);
    y += 24;
  }
  y = EDGE + 64;
  for (const part of parts) {
    if (part.title) {
      context.font = HEAD;
      context.fillText(lines(context, part.title, whole - 2 * EDGE, 1)[0] ?? "", EDGE, y + 22);
      y += head;
    }
    context.font = SMALL;
    part.columns.forEach((text, i) => {
      const x = EDGE + aside + i * (width + GAP) + width / 2;
      context.textAlign = "center";
      lines(context, text, width, 2).forEach((line, n, both) => context.fillText(line, x, y + over - 10 - (both.length - 1 - n) * 18, width));
    });
    context.textAlign = "left";
    y += over;
    for (let j = 0; j < Math.max(part.rows.length, 1); j++) {
      const wrapped = lines(context, part.rows[j] ?? "", aside - 14, 5);
      wrapped.forEach((line, n) => context.fillText(line, EDGE, y + height / 2 + (n - (wrapped.length - 1) / 2) * 19 + 5, aside - 14));
      const across = Math.max(part.columns.length, 1);
      for (let i = 0; i < across; i++) {
        const x = EDGE + aside + i * (width + GAP), picture = part.pictures[j * across + i];
        context.fillStyle = "#f0ebe3";
        context.fillRect(x, y, width, height);
        context.fillStyle = "#211d19";
        if (picture) context.drawImage(picture, x, y, width, height);
      }
      y += height + GAP;
    }
  }
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = "#635a50";
  context.fillText(foot, EDGE, tall - EDGE + 6, whole - 2 * EDGE);
  return canvas.convertToBlob({ type: "image/png" });
}
