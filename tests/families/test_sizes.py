"""Sizes by aspect: the lists of the families, and which of them is taken."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mezzotint.apps import cli
from mezzotint.families import catalogue
from mezzotint.families.catalogue import FAMILIES, Limit, load
from mezzotint.families.sizes import WORDS, Aspect, aspect_of, both_ways, read_aspect, sized
from pipelines import small, stable_diffusion

NAMED = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_lists_are_of_the_familys_own_area(name: str) -> None:
    """Each once, both ways, of the usual size among others, in multiples that a code can have."""
    family = NAMED[name]
    sizes, usual = family.defaults.sizes, family.defaults.size
    assert both_ways(*sizes) == sizes
    multiple = 16 if hasattr(family, "t5") else 8
    for height, width in sizes:
        assert height % multiple == width % multiple == 0
        assert 0.74 < height * width / math.prod(usual) < 1.51
    assert not sizes or usual in sizes


@pytest.mark.parametrize(
    ("name", "count", "chosen"),
    [
        ("sdxl", 41, {"16:9": (768, 1344), "3:2": (832, 1216), "4:1": (512, 2048)}),
        ("sdxl-turbo", 0, {"16:9": (384, 680), "1:1": (512, 512)}),
        ("sdxl-lightning", 41, {"9:16": (1344, 768)}),
        ("sd1", 19, {"2:3": (768, 512), "16:9": (448, 832), "1:1": (512, 512)}),
        ("sd2", 0, {"16:9": (576, 1024), "1:1": (768, 768)}),
        ("sd2-base", 0, {"1:1": (512, 512)}),
        ("sd35-medium", 41, {"1:1": (1024, 1024), "4:5": (1152, 896)}),
        ("flux-dev", 0, {"16:9": (768, 1360), "3:2": (832, 1248)}),
        ("flux-kontext", 17, {"16:9": (752, 1392), "2:3": (1248, 832)}),
    ],
)
def test_which_is_taken(name: str, count: int, chosen: dict[str, tuple[int, int]]) -> None:
    defaults = NAMED[name].defaults
    assert len(defaults.sizes) == count
    for text, size in chosen.items():
        aspect = read_aspect(text)
        assert aspect is not None
        multiple = 16 if name.startswith(("flux", "sd3")) else 8
        assert sized(aspect, defaults.size, defaults.sizes, multiple) == size


def test_words_and_what_is_no_aspect() -> None:
    assert read_aspect("Square") == Aspect(1, 1) and read_aspect(" 16:9 ") == WORDS["wide"]
    for text in ("512", "64x64", "0:1", "16:", "1:2:3", "16:9.5", "-1:2", "panorama"):
        assert read_aspect(text) is None
        with pytest.raises(ValueError, match="is no aspect"):
            aspect_of(text)


def test_an_aspect_that_is_too_far_names_the_sizes() -> None:
    with pytest.raises(ValueError, match="no size of this model is near 4:1: there are 672x1568"):
        sized(Aspect(4, 1), (1024, 1024), NAMED["flux-kontext"].defaults.sizes, 16)
    with pytest.raises(ValueError, match="5:1 is beyond 4:1: give an aspect from 1:4 to 4:1"):
        sized(Aspect(5, 1), (64, 64), (), 1)
    assert sized(Aspect(4, 1), (64, 64), (), 1) == (32, 128)
    assert sized(Aspect(1, 4), (8, 8), (), 8) == (16, 8)


def test_inspect_lists_them_and_memory_is_planned_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "sd1")
    stable_diffusion(width=768).save_pretrained(path)
    monkeypatch.setattr(catalogue, "FAMILIES", (small("sd1", 768),))
    assert cli.main(["inspect", path]) == 0
    printed = capsys.readouterr().out
    assert "sizes" in printed and "768x512" in printed and "256x1024" in printed
    told: list[str] = []
    for size in (Aspect(16, 9), (448, 832), (64, 64)):
        with pytest.raises(ValueError) as error:
            load(path, "cpu", precision="float32", limit=Limit(1 << 20, size))
        told.append(str(error.value))
    assert told[0] == told[1] != told[2]
