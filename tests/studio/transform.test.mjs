// A layer that is scaled, turned and mirrored: exactly where it can be.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./modules.mjs";

const { boxOf, pointOf, shifted, stretched, transformed, turned, wrapped } = await load("canvas/transform.js");
const { blank, equal } = await load("canvas/raster.js");

/** Every pixel another one. */
function picture(x, y, width, height, channels = 4) {
  const made = blank({ x, y, width, height }, channels);
  made.data.forEach((_, i) => { made.data[i] = channels === 4 && i % 4 === 3 ? 255 : (i * 37 + 11) % 256; });
  return made;
}

const pixel = (of, x, y) => [...of.data.slice(((y - of.y) * of.width + x - of.x) * of.channels).slice(0, of.channels)];
const near = (a, b, by = 1e-9) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

test("the box of a rectangle leaves it as it is", () => {
  const from = picture(3, -2, 7, 4);
  assert.ok(equal(transformed(from, boxOf(from)), from));
});

test("quarters of a turn and mirrors move whole pixels, and four quarters are none", () => {
  const from = picture(0, 0, 6, 4);
  const right = transformed(from, { ...boxOf(from), angle: 90 });
  assert.deepEqual([right.x, right.y, right.width, right.height], [1, -1, 4, 6]);
  assert.deepEqual(pixel(right, 4, -1), pixel(from, 0, 0)); // the top left is the top right now
  let again = from;
  for (let i = 0; i < 4; i++) again = transformed(again, { ...boxOf(again), angle: 90 });
  assert.ok(equal(again, from));
  const back = transformed(right, { ...boxOf(right), angle: -90 });
  assert.ok(equal(back, from));
  const half = transformed(from, { ...boxOf(from), angle: 180 });
  assert.ok(equal(transformed(half, { ...boxOf(half), width: -6, height: -4 }), from));
  const mirrored = transformed(from, { ...boxOf(from), width: -6 });
  assert.deepEqual(pixel(mirrored, 0, 2), pixel(from, 5, 2));
  assert.ok(equal(transformed(mirrored, { ...boxOf(mirrored), width: -6 }), from));
});

test("twice the size of one colour is that colour", () => {
  for (const channels of [1, 4]) {
    const from = blank({ x: 2, y: 2, width: 4, height: 4 }, channels);
    from.data.fill(200);
    const made = transformed(from, { ...boxOf(from), width: 8, height: 8 });
    assert.deepEqual([made.x, made.y, made.width, made.height], [0, 0, 8, 8]);
    assert.ok(made.data.every((value) => value === 200));
  }
});

test("turned by any angle the amount of paint and its middle stay, and no colour bleeds", () => {
  const from = blank({ x: 10, y: 20, width: 20, height: 12 });
  for (let i = 0; i < from.data.length; i += 4) from.data.set([240, 40, 90, 255], i);
  for (const angle of [17, 45, -120.5]) {
    const made = transformed(from, { ...boxOf(from), angle });
    let paint = 0, across = 0, down = 0;
    for (let i = 0; i < made.data.length; i += 4) {
      const alpha = made.data[i + 3] / 255, n = i / 4;
      paint += alpha;
      across += alpha * (made.x + (n % made.width) + 0.5);
      down += alpha * (made.y + Math.floor(n / made.width) + 0.5);
      if (alpha) assert.deepEqual([...made.data.slice(i, i + 3)], [240, 40, 90]);
    }
    near(paint, 240, 0.02 * 240);
    near(across / paint, 20, 0.05);
    near(down / paint, 26, 0.05);
  }
});

test("a handle goes where it is dragged, and what lies opposite stays", () => {
  const box = { x: 50, y: 40, width: 40, height: -20, angle: 30 };
  for (const across of [-1, 0, 1]) for (const down of [-1, 0, 1]) {
    if (!across && !down) continue;
    const from = pointOf(box, across, down), fixed = pointOf(box, -across, -down);
    const same = stretched(box, { across, down }, from, false);
    for (const name of ["x", "y", "width", "height", "angle"]) near(same[name], box[name]);
    const to = { x: box.x + 3 * (from.x - box.x), y: box.y + 3 * (from.y - box.y) };
    for (const keep of [false, true]) {
      const made = stretched(box, { across, down }, to, keep);
      const there = pointOf(made, -across, -down);
      near(there.x, fixed.x);
      near(there.y, fixed.y);
      assert.ok(made.width >= box.width && made.height <= box.height); // larger, mirrored as before
    }
    const gone = stretched(box, { across, down }, fixed, false);
    assert.ok(Math.abs(gone.width) >= 1 && Math.abs(gone.height) >= 1);
  }
  const kept = stretched(box, { across: 1, down: 1 }, { x: 90, y: 90 }, true);
  near(kept.width / -kept.height, 2, 0.05);
});

test("the top looks to where it is turned, in steps", () => {
  const box = { x: 0, y: 0, width: 10, height: 10, angle: 0 };
  near(turned(box, { x: 0, y: -9 }, 1).angle, 0);
  near(turned(box, { x: 9, y: 0 }, 1).angle, 90);
  near(turned(box, { x: -9, y: 0.1 }, 15).angle, -90);
  near(turned(box, { x: 1, y: -4 }, 15).angle, 15);
  near(wrapped(270), -90);
  near(wrapped(-180), -180);
  assert.deepEqual(shifted(box, 3, -2), { ...box, x: 3, y: -2 });
});
