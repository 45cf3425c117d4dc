// The axes of a grid.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./modules.mjs";

const { AxisError, byModel, cells, REPLACE, values } = await load("grids/axes.js");

test("values are lists and ranges", () => {
  for (const [text, wanted] of [
    ["1, 2,5", "1 2 5"], ["1-5", "1 2 3 4 5"], ["1-10 (+3)", "1 4 7 10"], ["10-1 (-3)", "10 7 4 1"], ["3-1", "3 2 1"],
    ["0-1 [5]", "0 0.25 0.5 0.75 1"], ["1-10 [4]", "1 4 7 10"], ["0.1-0.5 (+0.2)", "0.1 0.3 0.5"], ["euler, ddim", "euler ddim"],
    ["-1-1", "-1 0 1"], ["1-3, 9", "1 2 3 9"], ["2024-01-01", "2024-01-01"],
  ]) assert.equal(values(text).join(" "), wanted, text);
  assert.deepEqual(values('"a, b", c, "d ""e"""'), ["a, b", "c", 'd "e"']);
  assert.deepEqual(values("1-5", false), ["1-5"]);
  assert.deepEqual(values(""), []);
  for (const wrong of ["1-5 (-1)", "1-5 (+0)", "1-99999", "0-1 [1]"]) assert.throws(() => values(wrong), AxisError, wrong);
});

const none = { field: "", values: "" };

test("cells have the wishes of their places", () => {
  const { cells: all } = cells({ prompt: "a red fox", model: "icons", seed: 7 }, [
    { field: "guidance", values: "1,2" }, { field: REPLACE, values: "fox, owl, bear" }, none,
  ]);
  assert.equal(all.length, 6);
  assert.deepEqual(all[3], { x: 1, y: 1, z: 0, wish: { prompt: "a red owl", model: "icons", seed: 7, count: 1, guidance: "2" } });
  assert.deepEqual(cells({ prompt: "x" }, [none, none, none]).cells.length, 1);
});

test("whole prompts come before the words in them; models are made in turn", () => {
  const { cells: all } = cells({ prompt: "x", model: "a" }, [
    { field: REPLACE, values: "fox, owl" }, { field: "prompt", values: "a fox, the fox" }, { field: "model", values: "b, a" },
  ]);
  assert.deepEqual(all.slice(0, 4).map(({ wish }) => wish.prompt), ["a fox", "a owl", "the fox", "the owl"]);
  assert.deepEqual(byModel(all), [4, 5, 6, 7, 0, 1, 2, 3]);
});

test("what cannot be is said in a line", () => {
  const seeds = { field: "seed", values: "1-40" };
  for (const [axes, why] of [
    [[{ field: REPLACE, values: "owl, bear" }, none, none], /not in the prompt/],
    [[seeds, seeds, none], /the same/],
    [[seeds, { field: "steps", values: "1-40" }, none], /at most/],
    [[{ field: "seed", values: " " }, none, none], /no values/],
  ]) assert.throws(() => cells({ prompt: "a fox" }, axes), why);
});
