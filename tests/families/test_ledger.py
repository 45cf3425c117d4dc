"""The drawings that `icons` learnt from: counted, licensed, and found again."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.families import ledger as ledgers
from mezzotint.families.catalogue import DATA, PACKAGED
from mezzotint.modalities.ground import cut_out
from mezzotint.modalities.image import ImageError, on_white, to_tensor
from mezzotint.provenance.licence_table import find
from mezzotint.provenance.licences import stated
from mezzotint.provenance.terms import named

DRAWN = {  # of Twemoji's drawings those that are one disc, or one square with rounded corners
    "red-circle": ("#DD2E44", None),
    "blue-circle": ("#55ACEE", None),
    "green-circle": ("#78B159", None),
    "black-circle": ("#31373D", None),
    "red-square": ("#DD2E44", 106),
    "blue-square": ("#55ACEE", 106),
    "green-square": ("#78B159", 106),
}


def drawn(name: str) -> Image.Image:
    colour, corner = DRAWN[name]
    image = Image.new("RGBA", (1024, 1024))
    draw, box = ImageDraw.Draw(image), (41, 41, 982, 982)
    if corner is None:
        draw.ellipse(box, fill=colour)
    else:
        draw.rounded_rectangle(box, corner, fill=colour)
    return image.resize((128, 128), Image.Resampling.BOX)


# --- the ledger -------------------------------------------------------------------------------


def test_it_tells_what_the_attribution_file_tells() -> None:
    found = ledgers.ledger("icons")
    lines = (DATA / "icons-licences.md").read_text().splitlines()
    told = {
        cells[0]: (int(cells[1]), cells[2], cells[3].strip("–"))
        for line in lines
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 6
        and cells[1].isdigit()
    }
    assert told == {s.id: (s.drawings, s.holder, s.url) for s in found.sources}
    assert len(found.drawings) == sum(count for count, _, _ in told.values()) == 31_292
    assert Counter(d.source.id for d in found.drawings) == {n: told[n][0] for n in told}
    licensed = Counter[str]()
    for source in found.sources:
        licensed[source.licence] += source.drawings
    heads = re.findall(r"^## (\S+):.*\((\d+) drawings\)$", "\n".join(lines), re.MULTILINE)
    assert licensed == {name: int(count) for name, count in heads}


def test_each_set_has_a_licence_of_the_table_and_the_model_states_them_all() -> None:
    sets = ledgers.sources("icons")
    assert sets == ledgers.ledger("icons").sources
    for source in sets:
        row = find(source.licence)
        assert row is not None and row.commercial == "yes" and not row.share_alike
        assert source.holder and source.package
        credited = any(
            source.id in line.split(" by ")[0].split(", ") for line in ledgers.attributions(sets)
        )
        assert credited == row.credit
    model = {each.name for each in named(stated(PACKAGED["icons"]).said)}
    assert model == {source.licence for source in sets}


def test_each_drawing_is_whole() -> None:
    found = ledgers.ledger("icons")
    assert sum(found.learnt().values()) == sum(d.learnt for d in found.drawings) == 29_428
    assert len({(d.source.id, d.name) for d in found.drawings}) == len(found.drawings)
    assert all(d.name and d.concept and d.author for d in found.drawings)
    clip = [d for d in found.drawings if d.source.id == "openclipart"]
    assert sum(d.author != d.source.holder for d in clip) > 0.9 * len(clip)


def test_what_has_none_and_what_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledgers.has_ledger("icons") and not ledgers.has_ledger("other")
    monkeypatch.setitem(PACKAGED, "bad", tmp_path / "bad.safetensors")
    (tmp_path / "bad-ledger.txt.xz").write_bytes(b"none")
    for function in (ledgers.sources, ledgers.ledger):
        with pytest.raises(CheckpointError, match="is damaged .*: install mezzotint anew"):
            function("bad")


def test_the_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 80_000_000


# --- the nearest ------------------------------------------------------------------------------


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    on_white(image).convert("RGB").save(file, "JPEG", quality=60)
    return Image.open(io.BytesIO(file.getvalue()))


def moved(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (240, 200), (250, 240, 200))
    canvas.paste(image, (90, 40), image)
    return canvas


def alone(image: Image.Image) -> Image.Image:
    return image


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("change", [alone, jpeg, moved])
def test_a_drawing_finds_itself_first(
    name: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    near = ledgers.nearest("icons", to_tensor(cut_out(change(drawn(name)), 0.04), "rgba"))
    assert (near[0].drawing.source.id, near[0].drawing.name) == ("twemoji", name)
    likeness = [each.likeness for each in near]
    assert likeness == sorted(likeness, reverse=True) and len(near) == 10
    assert all(each.drawing.learnt for each in near) and 0.98 < likeness[0] <= 1.0001


def test_the_held_out_are_never_told() -> None:
    index = ledgers._index("icons")
    rows = torch.nn.functional.normalize(index["rows"] * index["scale"], dim=1)
    found = ledgers.ledger("icons").drawings
    assert len(rows) == len(found)
    count = sum(drawing.learnt for drawing in found)
    everything = ledgers.nearest("icons", torch.rand(4, 64, 64), len(found))
    assert len(everything) == count and all(each.drawing.learnt for each in everything)


# --- the ground -------------------------------------------------------------------------------


def test_the_ground_is_cut_out_and_what_it_encloses_is_kept() -> None:
    image = Image.new("RGB", (100, 80), "white")
    ImageDraw.Draw(image).ellipse((20, 10, 79, 69), fill="red", outline="black")
    ImageDraw.Draw(image).ellipse((40, 30, 59, 49), fill="white")  # an eye
    found = cut_out(image, 0.1)
    assert found.size == (75, 75)  # 60 pixels of content and a tenth on each side
    alpha = found.getchannel("A")
    assert alpha.getbbox() == (7, 7, 67, 67)
    assert alpha.getpixel((37, 37)) == 255 and found.getpixel((37, 37))[:3] == (255, 255, 255)
    assert alpha.getpixel((8, 8)) == 0


def test_what_is_transparent_keeps_its_colours() -> None:
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    ImageDraw.Draw(image).rectangle((10, 20, 49, 39), fill=(255, 255, 255, 255))
    found = cut_out(image, 0.0)
    assert found.size == (40, 40) and found.getchannel("A").getbbox() == (0, 10, 40, 30)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.linear_gradient("L"), "its border is of many colours"),
        (Image.new("RGB", (40, 30), "white"), "there is nothing on its ground"),
        (Image.new("RGBA", (40, 30)), "there is nothing on its ground"),
    ],
)
def test_what_cannot_be_cut_out(image: Image.Image, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        cut_out(image, 0.04)
