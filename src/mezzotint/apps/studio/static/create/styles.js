// Styles that a model learnt as words at the end of a caption.

/** @type {Record<string, [string, string][]>} by model: what it is called, what is said */
export const STYLES = {
  icons: [
    ["Noto emoji", "emoji, noto style"],
    ["Noto blobs", "emoji, old noto blob style"],
    ["Twemoji", "emoji, flat twemoji style"],
    ["Fluent, flat", "emoji, flat fluent style"],
    ["Fluent, gradient", "emoji, fluent gradient style"],
    ["Fluent, 3D", "emoji, glossy 3D style"],
    ["EmojiOne", "emoji, emojione style"],
    ["FxEmojis", "emoji, simple flat fxemoji style"],
    ["Outlined cartoon", "emoji, outlined cartoon style"],
    ["Blue and black outline", "icon, blue and black outline style"],
    ["Blue duotone outline", "icon, blue duotone outline style"],
    ["Blue flat", "icon, blue flat style"],
    ["Flat colour", "icon, flat color style"],
    ["Soft gradient", "icon, soft gradient style"],
    ["Bold flat", "icon, bold flat style"],
    ["Polychrome glyph", "icon, polychrome glyph style"],
    ["Two-colour thin line", "icon, two-color thin line style"],
    ["Weather, filled", "weather icon, filled style"],
    ["Weather, outline", "weather icon, outline style"],
    ["Clip art", "clip art"],
  ],
};

/** A prompt without the style at its end, and that style.
 * @param {string} model @param {string} prompt @returns {[string, string]} */
export function unstyled(model, prompt) {
  for (const [, words] of STYLES[model] ?? []) {
    const end = `, ${words}`;
    if (prompt.endsWith(end)) return [prompt.slice(0, -end.length), words];
  }
  return [prompt, ""];
}
