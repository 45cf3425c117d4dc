"""A folder's files: what they carry, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mezzotint.apps import cli
from mezzotint.apps.commands_audit import HEAD, page, row_of, total
from mezzotint.provenance.grid import GRIDS


@pytest.fixture
def folder(here: Path, model: Path) -> Path:
    wish = ["generate", "--model", str(model), "--quiet", "--seed", "7", "--steps", "2"]
    assert cli.main([*wish, "fox", "-n", "2", "-o", "all/"]) == 0
    assert cli.main([*wish, "red fox", "-o", "all/deep/b.jpg", "--no-credentials"]) == 0
    Image.new("RGB", (4, 4)).save("all/bare.png")
    (here / "all/words.png").write_text("no picture")
    (here / "all/notes.txt").write_text("no media")
    (here / "outside.png").write_bytes((here / "all/bare.png").read_bytes())
    (here / "all/link.png").symlink_to(here / "outside.png")
    return here / "all"


def test_as_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["audit", "all", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    rows = {row["file"]: row for row in found["files"]}
    assert set(rows) == {
        "bare.png",
        "deep/b.jpg",
        "fox_7-8_sheet.png",
        "fox_7.png",
        "fox_8.png",
        "words.png",
    }
    good = rows["fox_7.png"]
    assert (good["model"], good["prompt"], good["seed"]) == ("tiny", "fox", "7")
    assert good["recipe"] == "picture" and rows["fox_7-8_sheet.png"]["recipe"] == "sheet"
    assert good["missing"] == [] and good["credentials"] == "valid"
    assert (good["licence"], good["watermark"]) == ("unknown", "public key")
    assert rows["bare.png"]["watermark"] == ""
    assert rows["deep/b.jpg"]["missing"] == ["credentials"]
    assert rows["bare.png"]["missing"] == ["recipe", "credentials"]
    assert any("is no picture" in each for each in rows["words.png"]["missing"])
    spent = [rows[name]["energy"]["wh"] for name in ("fox_7.png", "fox_8.png", "deep/b.jpg")]
    assert all(wh > 0 for wh in spent) and rows["bare.png"]["energy"] is None
    assert rows["fox_7-8_sheet.png"]["energy"]["wh"] == pytest.approx(sum(spent[:2]))
    total = found["total"]
    assert (total["files"], total["whole"]) == (6, 3)
    assert total["wh"] == pytest.approx(sum(spent))  # what is on the sheet too counts once
    assert total["gco2e"] == pytest.approx(sum(spent) * GRIDS["WORLD"].g_per_kwh / 1000, rel=1e-4)


def test_a_changed_file_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "fox_7.png"
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 12
    data[at] ^= 1
    path.write_bytes(data)
    row = row_of(path, path.name)
    assert row.credentials != "valid" and row.missing
    assert cli.main(["audit", "all"]) == 1
    printed = capsys.readouterr().out
    assert all(word in printed for word in (*HEAD, "6 files, 2 of them"))


def test_the_page_loads_nothing_and_takes_nothing_for_markup(folder: Path) -> None:
    (folder / "<script>alert(1).png").write_bytes((folder / "bare.png").read_bytes())
    assert cli.main(["audit", "all", "--html", "audit.html"]) == 1
    text = Path("audit.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1).png" in text
    assert "default-src 'none'" in text and "http://" not in text and "https://" not in text
    assert text.count("<tr>") == 1 + 7
    assert " Wh, estimated</td>" in text and " g CO2e (estimated)</p>" in text
    assert page("x", [], total([], {})).count("<tr>") == 1


def test_energy_that_can_not_be_is_missing(folder: Path) -> None:
    for name, energy in (("a", None), ("b", {"wh": -1, "gco2e": 0, "how": "measured"})):
        with Image.open(folder / "fox_7.png") as image:
            said = json.loads(image.info["parameters"])
            said["energy"] = energy
            text = PngInfo()
            text.add_text("parameters", json.dumps(said))
            image.save(folder / f"{name}.png", pnginfo=text)
        row = row_of(folder / f"{name}.png", name)
        assert row.energy is None and "energy" in row.missing


def test_an_empty_folder_and_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    assert cli.main(["audit", "empty"]) == 0
    assert "0 files" in capsys.readouterr().out
    assert cli.main(["audit", "nowhere"]) == 2
    assert capsys.readouterr().err == (
        "mezzotint: nowhere: is no folder: name one with pictures in it\n"
    )
