// Pixels, masks, layers, history, PNG: closed forms first.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./modules.mjs";

const raster = await load("canvas/raster.js");
const paint = await load("canvas/paint.js");
const masks = await load("canvas/masks.js");
const compose = await load("canvas/compose.js");
const png = await load("canvas/png.js");
const tiles = await load("canvas/tiles.js");
const documents = await load("canvas/document.js");
const plan = await load("canvas/plan.js");
const { History } = await load("canvas/history.js");

const rect = (x, y, width, height) => ({ x, y, width, height });
let state = 1;
const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
const noise = (where, channels = 4) => {
  const made = raster.blank(where, channels);
  for (let i = 0; i < made.data.length; i++) made.data[i] = random() * 256;
  return made;
};
const memory = () => {
  const held = new Map();
  return { held, read: async (name) => held.get(name), write: (name, data) => void held.set(name, data) };
};

test("a rectangle meets another where both are", () => {
  assert.deepEqual(raster.meet(rect(0, 0, 4, 4), rect(2, -1, 5, 3)), rect(2, 0, 2, 2));
  assert.equal(raster.meet(rect(0, 0, 4, 4), rect(4, 0, 1, 1)).width, 0);
  assert.deepEqual(raster.join(rect(0, 0, 1, 1), rect(3, 4, 1, 1)), rect(0, 0, 4, 5));
});

test("a crop and back is the same", () => {
  const whole = noise(rect(-3, 5, 31, 17)), part = raster.crop(whole, rect(0, 7, 9, 9));
  const again = raster.copy(part, raster.crop(whole, whole));
  assert.ok(raster.equal(again, whole));
  assert.deepEqual(raster.content(raster.copy(part, raster.blank(rect(-9, -9, 60, 60)))), rect(0, 7, 9, 9));
});

test("a picture of one colour keeps it at any size", () => {
  const of = raster.blank(rect(0, 0, 7, 5));
  for (let i = 0; i < of.data.length; i += 4) of.data.set([200, 30, 4, 255], i);
  for (const [width, height] of [[3, 2], [20, 11], [7, 5]]) {
    const made = raster.resized(of, rect(1, 1, width, height));
    for (let i = 0; i < made.data.length; i += 4) assert.deepEqual([...made.data.slice(i, i + 4)], [200, 30, 4, 255]);
  }
});

test("PNG gives back every byte, also of what is transparent", async () => {
  for (const channels of [1, 4]) {
    const of = noise(rect(0, 0, 37, 23), channels);
    const bytes = new Uint8Array(await (await png.encode(of)).arrayBuffer());
    assert.ok(raster.equal(await png.decode(bytes, channels), of));
  }
  assert.equal(await png.decode(new Uint8Array([1, 2, 3])), null);
});

test("a dab is whole in its middle, nothing outside, and round", () => {
  const on = raster.blank(rect(0, 0, 41, 41), 1);
  paint.dab(on, 20.5, 20.5, { size: 21, hardness: 1 });
  assert.equal(on.data[20 * 41 + 20], 255);
  assert.equal(on.data[20 * 41 + 34], 0);
  const area = on.data.reduce((sum, value) => sum + value, 0) / 255;
  assert.ok(Math.abs(area - Math.PI * 10.5 ** 2) < 6, String(area));
});

test("a stroke that crosses itself is not darker there", () => {
  const on = raster.blank(rect(0, 0, 40, 40)), before = raster.blank(on), coverage = raster.blank(on, 1);
  const at = (x, y) => ({ x, y, pressure: 1 });
  paint.stretch(coverage, at(5, 20), at(35, 20), { size: 6, hardness: 1 }, 0);
  paint.stretch(coverage, at(20, 5), at(20, 35), { size: 6, hardness: 1 }, 0);
  paint.lay(on, before, coverage, [255, 0, 0], 0.5, on, null);
  const alpha = (x, y) => on.data[(y * 40 + x) * 4 + 3];
  assert.equal(alpha(20, 20), 128);
  assert.equal(alpha(10, 20), 128);
  assert.equal(alpha(2, 2), 0);
});

test("what the selection leaves out keeps its bytes", () => {
  const before = noise(rect(0, 0, 30, 30)), on = raster.crop(before, before);
  const coverage = masks.all(before), allowed = raster.copy(masks.all(rect(5, 5, 9, 9)), raster.blank(before, 1));
  paint.lay(on, before, coverage, [1, 2, 3], 1, before, allowed);
  for (let y = 0; y < 30; y++)
    for (let x = 0; x < 30; x++) {
      const i = (y * 30 + x) * 4, now = [...on.data.slice(i, i + 4)];
      assert.deepEqual(now, raster.inside(rect(5, 5, 9, 9), x, y) ? [1, 2, 3, 255] : [...before.data.slice(i, i + 4)]);
    }
  paint.erase(on, before, coverage, 1, before, allowed);
  assert.equal(on.data[(6 * 30 + 6) * 4 + 3], 0);
  assert.deepEqual([...on.data.slice(0, 4)], [...before.data.slice(0, 4)]);
});

test("a fill stops where the colour does", () => {
  const of = raster.blank(rect(0, 0, 9, 9));
  for (let y = 0; y < 9; y++) for (let x = 0; x < 9; x++) of.data.set(x === 4 ? [0, 0, 0, 255] : [250, 250, 250, 255], (y * 9 + x) * 4);
  const found = paint.flood(of, 1, 1, 10);
  assert.equal(found.data.filter(Boolean).length, 36);
  assert.deepEqual(raster.content(found), rect(0, 0, 4, 9));
  assert.equal(paint.flood(of, 1, 1, 255).data.filter(Boolean).length, 81);
});

test("shapes have the area that they should", () => {
  for (const [kind, width, area] of [["rectangle", 0, 600], ["ellipse", 0, Math.PI * 150], ["rectangle", 2, 600 - 26 * 16], ["line", 4, null]]) {
    const on = raster.blank(rect(0, 0, 60, 60), 1), box = rect(10, 10, 30, 20);
    paint.cover(on, rect(0, 0, 60, 60), paint.shape(kind, box, { ax: 10, ay: 10, bx: 40, by: 30 }, width));
    const found = on.data.reduce((sum, value) => sum + value, 0) / 255;
    const wanted = area ?? 4 * Math.hypot(30, 20) + Math.PI * 4;
    assert.ok(Math.abs(found - wanted) < 2, `${kind} ${found} ${wanted}`);
  }
});

test("selections combine as sets", () => {
  const where = rect(0, 0, 8, 1), of = (...bits) => ({ ...raster.blank(where, 1), data: Uint8ClampedArray.from(bits, (bit) => bit * 255) });
  const a = of(1, 1, 0, 0), b = of(1, 0, 1, 0), bits = (mask) => [...mask.data].map((value) => value / 255);
  assert.deepEqual(bits(masks.combine(a, b, "add")).slice(0, 4), [1, 1, 1, 0]);
  assert.deepEqual(bits(masks.combine(a, b, "take")).slice(0, 4), [0, 1, 0, 0]);
  assert.deepEqual(bits(masks.combine(a, b, "both")).slice(0, 4), [1, 0, 0, 0]);
  assert.deepEqual(bits(masks.combine(a, b, "new")).slice(0, 4), [1, 0, 1, 0]);
  assert.deepEqual(bits(masks.inverted(a)).slice(0, 4), [0, 0, 1, 1]);
});

test("a soft edge grows inwards, never out, and the picture's border is no edge", () => {
  const of = raster.copy(masks.all(rect(10, 0, 20, 30)), raster.blank(rect(0, 0, 40, 40), 1));
  const soft = masks.feathered(of, 4);
  let before = 0;
  for (let x = 0; x < 20; x++) {
    const value = soft.data[10 * 40 + x];
    assert.ok(value >= before && (value > 0) === x >= 10, `${x} ${value}`);
    before = value;
  }
  assert.equal(soft.data[0 * 40 + 20], 255); // at the border above
  assert.equal(soft.data[10 * 40 + 20], 255);
  assert.equal(masks.feathered(of, 0), of);
});

test("the outline has the length of the edge", () => {
  const lines = masks.outline(raster.copy(masks.all(rect(3, 4, 5, 6)), raster.blank(rect(0, 0, 20, 20), 1)));
  let length = 0;
  for (let i = 0; i < lines.length; i += 4) length += Math.abs(lines[i + 2] - lines[i]) + Math.abs(lines[i + 3] - lines[i + 1]);
  assert.equal(length, 22);
});

test("layers lie over each other as Porter and Duff have it", () => {
  const below = noise(rect(0, 0, 16, 16)), above = noise(rect(0, 0, 16, 16));
  const made = compose.flatten(below, [{ pixels: below, mask: null, opacity: 1 }, { pixels: above, mask: null, opacity: 0.5 }]);
  for (let i = 0; i < made.data.length; i += 4) {
    const a = (above.data[i + 3] / 255) * 0.5, b = (below.data[i + 3] / 255) * (1 - a);
    assert.ok(Math.abs(made.data[i + 3] - 255 * (a + b)) <= 1);
    if (a + b > 0.1) assert.ok(Math.abs(made.data[i] - (above.data[i] * a + below.data[i] * b) / (a + b)) <= 1.5);
  }
});

test("a layer with a mask takes the place of what is below, and only there", () => {
  const below = noise(rect(0, 0, 16, 16)), pixels = noise(rect(0, 0, 16, 16));
  const mask = raster.copy(masks.all(rect(4, 4, 8, 8)), raster.blank(below, 1));
  const made = compose.flatten(below, [{ pixels: below, mask: null, opacity: 1 }, { pixels, mask, opacity: 1 }]);
  for (let y = 0; y < 16; y++)
    for (let x = 0; x < 16; x++) {
      const i = (y * 16 + x) * 4, from = raster.inside(rect(4, 4, 8, 8), x, y) ? pixels : below;
      if (from.data[i + 3]) assert.deepEqual([...made.data.slice(i, i + 4)], [...from.data.slice(i, i + 4)]);
      else assert.equal(made.data[i + 3], 0);
    }
});

test("tiles give back the raster, share what is equal, and lie behind when memory is short", async () => {
  const backing = memory(), store = new tiles.TileStore(backing, 3 * 128 * 128 * 4);
  const of = noise(rect(-7, 3, 300, 200)), first = tiles.split(of, store);
  assert.ok(store.bytes <= store.most && backing.held.size === 6);
  assert.ok(raster.equal(await tiles.assembled(first, store), of));
  const next = raster.crop(of, of);
  next.data.fill(9, 0, 4);
  const second = tiles.split(next, store, first, rect(-7, 3, 1, 1));
  assert.equal(second.tiles.filter((name, i) => name !== first.tiles[i]).length, 1);
  assert.ok(raster.equal(await tiles.assembled(second, store), next));
  assert.ok(raster.equal(await tiles.assembled(first, store), of));
  assert.ok(tiles.split(raster.blank(rect(0, 0, 300, 200)), store).tiles.every((name) => name === ""));
  assert.equal(documents.nothing(rect(0, 0, 300, 200)).tiles.length, tiles.places(rect(0, 0, 300, 200)).length);
});

test("a thousand steps are undone and done again, with few of them in memory", async () => {
  const held = new Map();
  const backing = { read: async (n) => held.get(n), write: (n, entry) => void held.set(n, entry), at: () => {},
    cut: (from) => [...held.keys()].filter((n) => n >= from).forEach((n) => held.delete(n)) };
  const history = new History(backing, 10);
  for (let n = 0; n < 1000; n++) history.add(`step ${n}`, n);
  for (let n = 998; n >= 0; n--) {
    const { document, undone } = await history.step(-1);
    assert.deepEqual([document, undone], [n, `step ${n + 1}`]);
  }
  assert.equal(await history.step(-1), null);
  assert.equal((await history.step(1)).document, 1);
  assert.ok(history.held.size <= 10);
  history.add("another", "b");
  assert.equal(history.canRedo, false);
  assert.deepEqual([held.size, history.count, (await history.step(-1)).document], [3, 3, 1]);
});

test("documents are values", () => {
  const first = documents.created(64, 48), layer = documents.made("two", documents.nothing(first.frame));
  const two = documents.added(first, layer), id = first.layers[0].id;
  assert.equal(first.layers.length, 1);
  assert.deepEqual(two.layers.map((each) => each.id), [id, layer.id]);
  assert.deepEqual(documents.raised(two, id, 1).layers.map((each) => each.id), [layer.id, id]);
  assert.equal(documents.raised(two, id, -1), two);
  assert.equal(documents.removed(two, layer.id).active, id);
  assert.deepEqual(raster.rect(documents.moved(two, id, 3, -2).layers[0].pixels), rect(3, -2, 64, 48));
  assert.equal(documents.hit(two, 5, 5, (of) => (of === two.layers[0].pixels ? 200 : 0))?.id, id);
  assert.equal(documents.hit(documents.changed(two, id, { visible: false }), 5, 5, (of) => (of === two.layers[0].pixels ? 200 : 0)), null);
});

test("a frame that grows knows what was there", () => {
  const first = documents.created(64, 48), grown = documents.framed(first, rect(-16, 0, 88, 48));
  assert.deepEqual(grown.known, rect(0, 0, 64, 48));
  assert.deepEqual(documents.sides(grown), { left: 16, top: 0, right: 8, bottom: 0 });
  assert.equal(documents.framed(first, rect(8, 8, 16, 16)).known, null);
  const again = documents.framed(grown, rect(-16, -8, 88, 56));
  assert.deepEqual(again.known, rect(0, 0, 64, 48));
  const mask = masks.around(grown.frame, grown.known);
  assert.equal(mask.data.filter(Boolean).length, 24 * 48);
});

test("what is asked for follows from the canvas", () => {
  const wanted = { prompt: "a fox", negative: " ", model: "icons", count: 2, steps: "3", seed: "", strength: 1, change: 0.6, closely: false, around: 32, feather: 4 };
  const first = documents.created(64, 48), grown = documents.framed(first, rect(0, -8, 64, 56));
  const selected = { ...first, selection: documents.nothing(first.frame) };
  assert.deepEqual([plan.kindOf(first, false), plan.kindOf(first, true), plan.kindOf(selected, true), plan.kindOf(grown, true)], ["new", "change", "fill", "expand"]);
  const asked = { prompt: "a fox", model: "icons", count: 2, steps: 3 };
  assert.deepEqual(plan.wish("new", first, wanted, {}), { ...asked, size: "64x48" });
  assert.deepEqual(plan.wish("fill", selected, { ...wanted, closely: true }, { image: "i", mask: "m" }), { ...asked, image: "i", mask: "m", only_masked: 32 });
  assert.deepEqual(plan.wish("expand", grown, wanted, { image: "i" }), { ...asked, image: "i", expand: "left=0,top=8,right=0,bottom=0" });
  assert.deepEqual(plan.wish("change", first, { ...wanted, change: 0.5, seed: "7" }, { image: "i" }), { ...asked, seed: 7, image: "i", size: "64x48", strength: 0.5 });
  assert.deepEqual(plan.usual({ name: "x", details: { "config.defaults.size": "128, 256" } }), [256, 128]);
});
