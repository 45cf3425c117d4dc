"""`mezzotint licences` and `sources`: what they say of models, data sets and pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from mezzotint.apps import cli
from mezzotint.provenance.licence_table import LICENCES

LORA = {"lora_unet_a.lora_down.weight": torch.zeros(2, 4)}


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert cli.main([*words]) == 0
    return capsys.readouterr().out


def data(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(ask(capsys, *words, "--json"))


def test_of_the_model_in_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "licences", "icons")
    assert "icons: Apache-2.0 AND CC-BY-4.0 AND LicenseRef-Public-Domain AND MIT, as its" in told
    assert "text encoder  minilm: Apache-2.0" in told and "commercial    yes\n" in told
    assert "twemoji by Twitter, CC-BY-4.0" in told and "no legal advice" in told
    found = data(capsys, "licences", "icons")
    assert found["terms"]["commercial"] == "yes" and found["terms"]["conflicts"] == []
    assert [part["what"] for part in found["parts"]] == ["model", "text encoder"]


@pytest.mark.parametrize(
    ("metadata", "lines"),
    [
        ({}, ["a: unknown: nobody states it", "commercial    unknown"]),
        (
            {"license": "CC-BY-NC-SA-4.0"},
            ["CC-BY-NC-SA-4.0, as its file states", "commercial    no", "share alike   CC Attr"],
        ),
        (
            {"license": "stabilityai-ai-community"},
            ["commercial    conditional", "1,000,000 USD", "forbidden", "outputs       Stability"],
        ),
    ],
)
def test_of_an_adapter(
    here: Path, metadata: dict[str, str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(LORA, "a", metadata)
    told = ask(capsys, "licences", "a")
    assert all(line in told for line in lines), told
    printed = ask(capsys, "inspect", "a")
    assert any(line.startswith("commercial use") for line in printed.splitlines())


def test_of_a_picture_what_follows_of_all(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.safetensors").write_bytes(model.read_bytes())
    side = Path("tiny.safetensors.licence.toml")
    side.write_text('licence = "CC-BY-SA-4.0"\nattribution = "Foxes by Ada"')
    wish = ["generate", "fox", "--model", "tiny.safetensors", "--steps", "1", "--quiet"]
    assert cli.main([*wish, "-o", "a.png"]) == 0
    side.write_text('licence = "CC-BY-NC-4.0"')
    two = ["--image", "a.png", "-o", "b.png", "--steps", "2", "-n", "2", "--seed", "1"]
    assert cli.main([*wish, *two]) == 0
    for path in ("b_1.png", "b_2.png", "b_1-2_sheet.png"):
        found = data(capsys, "licences", path)
        names = {(part["what"], part["name"]) for part in found["parts"]}
        assert names == {("model", "tiny.safetensors"), ("image", "a.png (tiny.safetensors)")}
        terms = found["terms"]
        assert terms["commercial"] == "no" and "Foxes by Ada" in terms["credit"]
        assert "CC Attribution-NonCommercial 4.0 does not allow" in terms["conflicts"][0]
    assert "conflict" in ask(capsys, "licences", "b_1.png")
    (row,) = [row for row in data_of_audit(capsys) if row["file"] == "a.png"]
    assert (row["licence"], row["commercial"]) == ("CC-BY-SA-4.0", "yes")


def data_of_audit(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    cli.main(["audit", ".", "--json"])
    rows = json.loads(capsys.readouterr().out)["files"]
    assert all(row["commercial"] == "no" for row in rows if row["file"].startswith("b"))
    return rows


def test_of_a_data_set(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d").mkdir()
    rows = []
    for number, licence in enumerate(["MIT", "MIT", "CC0-1.0", None]):
        Image.new("RGB", (4, 4)).save(f"d/{number}.png")
        rows.append({"file": f"{number}.png", "licence": licence})
    Path("d/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = ask(capsys, "licences", "d")
    assert "d (2 pictures): MIT" in told and "d (1 picture): unknown" in told
    assert "commercial    unknown" in told


def test_all_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "licences")
    assert all(row.id in told and row.source in told for row in LICENCES)
    found = data(capsys, "licences")
    assert {row["id"]: row["commercial"] for row in found} == {
        row.id: row.commercial for row in LICENCES
    }


def test_the_drawings_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "licences", "icons", "--drawings")
    assert len(found["drawings"]) == 31_292 and len(found["sets"]) == 26
    table = list(
        csv.DictReader(io.StringIO(ask(capsys, "licences", "icons", "--drawings", "--csv")))
    )
    assert len(table) == 31_292
    fox = {"set": "noto", "name": "fox", "concept": "fox", "licence": "Apache-2.0"}
    assert any(fox.items() <= row.items() for row in table)
    assert {row["learnt"] for row in table} == {"yes", "no"}
    told = ask(capsys, "licences", "icons", "--drawings").splitlines()
    assert len(told) == 1 + 26 + 1 + 1 + 31_292


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["licences", "nowhere"], "no model 'nowhere'"),
        (["licences", "bare.png"], "bare.png: carries no recipe"),
        (["licences", "--drawings"], "--drawings needs a model"),
        (["licences", "icons", "--csv"], "--csv is for --drawings"),
        (["licences", "a.safetensors", "--drawings"], "a.safetensors: has no ledger of drawings"),
        (["licences", "d.zip"], "d.zip: no such file"),
        (["sources", "nowhere.png"], "nowhere.png: no such file"),
        (["sources", "bare.png"], "bare.png: there is nothing on its ground"),
        (["sources", "photo.png"], "photo.png: its border is of many colours"),
        (["sources", "a.safetensors"], "a.safetensors"),
        (["sources", "tiny.png"], "tiny.png: was made by tiny.safetensors, of which no ledger"),
    ],
)
def test_one_line_says_why_not(
    here: Path,
    model: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("RGB", (8, 8)).save("bare.png")
    Image.linear_gradient("L").save("photo.png")
    save_file(LORA, "a.safetensors")
    if words[-1] == "tiny.png":
        wish = ["generate", "fox", "--model", str(model), "--steps", "1", "--quiet"]
        assert cli.main([*wish, "-o", "tiny.png"]) == 0
    capsys.readouterr()
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("mezzotint: ") and error.count("\n") == 1 and message in error


def test_the_sources_of_a_generated_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = ["generate", "a red fox, emoji, noto style", "--seed", "7", "--steps", "8", "--quiet"]
    assert cli.main([*wish, "-o", "fox.png"]) == 0
    told = ask(capsys, "sources", "fox.png")
    assert told.startswith("fox.png: made by icons; ") and "no proof" in told
    (found,) = data(capsys, "sources", "fox.png", "-n", "20")
    assert len(found["nearest"]) == 20 and "no proof" in found["note"]
    assert any(row["concept"] == "fox" for row in found["nearest"])
    for row in found["nearest"]:
        assert row["licence"] and row["author"] and row["set"] and 0 < row["likeness"] <= 1


def test_the_sources_of_any_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).ellipse((60, 20, 219, 179), fill="#DD2E44")
    image.save("dot.jpg", quality=60)
    told = ask(capsys, "sources", "dot.jpg", "-n", "1")
    assert told.startswith("dot.jpg: carries no recipe: compared with")
    assert "red circle" in told.splitlines()[2]
