"""What is cut out of a picture, or put together of several, says so, and is checked as that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from mezzotint.apps import cli, derived, sealing
from mezzotint.modalities.image import read_text
from mezzotint.provenance import identity
from mezzotint.provenance.chain import read
from mezzotint.provenance.recipe import CHUNK

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/recipe.schema.json").read_text("utf-8"))


def document(path: Path) -> dict[str, object]:
    """What a file says of itself, which is what the schema allows."""
    found = json.loads(read_text(path)[CHUNK])
    Draft202012Validator(SCHEMA).validate(found)
    return found


@pytest.fixture
def photo(here: Path) -> Path:
    image = Image.new("RGB", (64, 64), "#a0c0e0")
    ImageDraw.Draw(image).ellipse((16, 12, 50, 50), fill="#a03020")
    image.save(here / "photo.png")
    return here / "photo.png"


@pytest.fixture
def drawn(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["a red fox", "--steps", "2", "--seed", "7", "--quiet", "-o", "fox.png", "--opaque"]
    assert cli.main(["generate", *words]) == 0
    return here / "fox.png"


def test_a_drawn_picture_is_cut_out(
    drawn: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cutout", "fox.png"]) == 0
    assert capsys.readouterr().out.endswith("fox-cutout.png\n")
    made = here / "fox-cutout.png"
    with Image.open(made) as image, Image.open(drawn) as whole:
        assert (image.mode, image.size) == ("RGBA", whole.size)
    told, before = document(made), document(drawn)
    assert told["derived"] == "cutout" and "options" not in told
    for key in ("prompt", "model", "seed", "licences"):
        assert told[key] == before[key]
    found = read(made, identity.anchors())
    assert found is not None and found.state == "valid" and len(found.manifests) == 2
    assert [(act.name, act.source) for act in found.manifests[0].actions] == [
        ("c2pa.opened", ""),
        ("c2pa.edited", "trainedAlgorithmicMedia"),
    ]
    assert cli.main(["verify", "fox-cutout.png"]) == 0
    assert "bit-equal" in capsys.readouterr().out
    assert cli.main(["detect", "fox-cutout.png"]) == 0  # what is left carries the mark
    assert cli.main(["audit", "."]) == 0
    assert "cutout" in capsys.readouterr().out
    assert cli.main(["generate", "--from", "fox-cutout.png"]) == 2
    assert "is cut out of fox.png: there are no options" in capsys.readouterr().err
    (here / "more").mkdir()
    drawn.rename(here / "more" / "another.png")
    assert cli.main(["verify", "fox-cutout.png", "--in", "more"]) == 0
    capsys.readouterr()
    assert cli.main(["verify", "fox-cutout.png"]) == 1
    assert (
        "neither here nor beside it, under whatever name: say where with --in"
        in capsys.readouterr().out
    )


def test_a_photograph_is_cut_out(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cutout", "photo.png", "-o", "out.webp"]) == 0
    made = photo.with_name("out.webp")
    told = document(made)
    assert (told["source"], told["licences"]) == ("algorithmicallyEnhanced", [])
    found = read(made, identity.anchors())
    assert found is not None and found.manifests[0].model == ""
    assert [each.relation for each in found.manifests[0].inputs] == ["parentOf"]
    assert cli.main(["verify", "out.webp"]) == 0
    with Image.open(made) as image:
        values = np.array(image)
    assert values[0, 0, 3] == 0 and values[30, 30].tolist() == [0xA0, 0x30, 0x20, 255]
    for words, why in (
        (["out.webp"], "out.webp: is transparent already"),
        (["photo.png", "-o", "out.webp"], "is there already"),
        (["photo.png", "-o", "a.jpg"], "a JPEG has no transparency"),
        (["none.png"], "none.png: no such file"),
    ):
        assert cli.main(["cutout", *words]) == 2
        assert why in capsys.readouterr().err


def test_a_changed_cut_out_is_said(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cutout", "photo.png", "-o", "out.png", "--no-credentials"]) == 0
    made = photo.with_name("out.png")
    assert read(made) is None
    with Image.open(made) as image:
        values, texts = np.array(image), image.info["parameters"]
    values[30, 30, 0] ^= 8
    chunks = PngInfo()
    chunks.add_text(CHUNK, texts)
    Image.fromarray(values).save(made, pnginfo=chunks)
    assert cli.main(["verify", "out.png"]) == 1
    assert "the file was changed after it was made" in capsys.readouterr().out


def composite(here: Path, *parts: Path, lost: int = 0, kind: str = "png") -> Path:
    painted = here / "painted.png"
    Image.new("RGBA", (40, 30), "#20406080").save(painted)
    layers = [derived.Layer(part, part.name) for part in parts]
    made = derived.composed(painted, "two foxes", layers, lost)
    how = derived.signing_composed(layers, identity.configured())
    path = here / f"composite.{kind}"
    sealing.write(made, path, how)
    painted.unlink()
    return path


def test_a_composite_says_of_what(
    drawn: Path, photo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = composite(here, drawn, photo, lost=1)
    told = document(path)
    assert (told["derived"], told["prompt"], told["model"]) == ("composite", "two foxes", "icons")
    assert told["licences"] == document(drawn)["licences"]
    found = read(path, identity.anchors())
    assert found is not None and found.state == "valid" and len(found.manifests) == 2
    assert [(act.name, act.source) for act in found.manifests[0].actions] == [
        ("c2pa.created", "compositeWithTrainedAlgorithmicMedia"),
        ("c2pa.placed", ""),
        ("c2pa.placed", ""),
    ]
    inputs = found.manifests[0].inputs
    assert [each.title for each in inputs if each.relation == "componentOf"] == [
        "fox.png",
        "photo.png",
    ]
    assert cli.main(["verify", "composite.png"]) == 1
    said = capsys.readouterr().out
    assert "cannot be made again; it is a composite of fox.png, photo.png and 1 that is no" in said
    assert "not reproducible; its pixels are as they were then" in said
    photo.unlink()
    assert cli.main(["audit", "."]) == 0  # nothing is missing of either
    rows = capsys.readouterr().out.splitlines()
    (row,) = (line for line in rows if line.startswith("composite.png"))
    assert " composite " in row and " valid " in row and "CC" in row
    assert cli.main(["licences", "composite.png"]) == 0
    assert "icons" in capsys.readouterr().out


def test_what_no_model_drew(photo: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for parts, source in (((), "digitalCreation"), ((photo,), "composite")):
        path = composite(here, *parts)
        assert document(path)["source"] == source
        found = read(path, identity.anchors())
        assert found is not None and found.state == "valid"
        assert found.manifests[0].actions[0].source == source
        assert source in path.read_bytes().decode("latin-1").partition("IDAT")[0]
        curves, _ = sealing.converted(path, "SVG", "a.svg", identity.configured())
        assert f"digitalsourcetype/{source}<".encode() in curves  # as its other files say
    (here / "a.svg").write_bytes(curves)
    assert cli.main(["verify", "a.svg"]) == 1
    assert "reproducible; it was traced in curves, and has no pixels" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["webp", "jpg"])
def test_a_composite_in_other_formats(drawn: Path, here: Path, kind: str) -> None:
    path = composite(here, drawn, kind=kind)
    assert document(path)["derived"] == "composite"
    data, mime = sealing.converted(path, "PNG", "a.png", identity.configured())
    again = here / "again.png"
    again.write_bytes(data)
    found = read(again, identity.anchors())
    assert mime == "image/png" and found is not None and len(found.manifests) == 3
    assert found.manifests[0].actions[1].source == "compositeWithTrainedAlgorithmicMedia"


def test_a_damaged_document_is_said(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, files in enumerate(("x", [{"name": 1}], [])):
        chunks = PngInfo()
        said = {"format": 1, "derived": "cutout", "files": files}
        chunks.add_text(CHUNK, json.dumps(said))
        Image.new("RGB", (8, 8)).save(f"bad{number}.png", pnginfo=chunks)
        assert cli.main(["verify", f"bad{number}.png"]) == 1
        assert "its recipe is damaged: its files" in capsys.readouterr().out
