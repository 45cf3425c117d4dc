"""Every tensor of every release, at full size and without weights: taken once, and given back."""

from __future__ import annotations

import json
from collections import Counter

import diffusers
import pytest
import releases
import torch
import transformers
from releases import RELEASES, Shapes, folder_names, on_meta, shapes
from torch import Tensor

from mezzotint.checkpoints.keys import Reader, to_ours, to_theirs
from mezzotint.families import folders

LISTS = releases.read()
PLACES = [(name, place) for name, release in RELEASES.items() for place in release.layouts]
COUNTS = {
    "sd1 U-Net: file": 686,
    "sd1 U-Net: folder": 686,
    "sd2 U-Net: file": 686,
    "sdxl U-Net: file": 1680,
    "sdxl U-Net: folder": 1680,
    "sd3 medium: file": 491,
    "flux dev: file": 780,
    "flux schnell: file": 776,
    "autoencoder 4: file": 248,
    "autoencoder 16: file": 244,
    "CLIP-L: file": 197,
    "CLIP-L: folder": 196,
    "OpenCLIP-H: file": 294,
    "OpenCLIP-bigG: file": 390,
    "OpenCLIP-bigG: folder": 517,
}
"""Tensors of the public files.  With its two encoders and autoencoder SDXL's base has 2,515."""


NOT_TOLD = (
    "_use_default_values",
    "sample_size",
    "scaling_factor",
    "shift_factor",
    "upcast_attention",
)


def test_the_counts_of_the_public_files() -> None:
    assert {key: len(LISTS[key]) for key in COUNTS} == COUNTS
    parts = ("sdxl U-Net: file", "CLIP-L: file", "OpenCLIP-bigG: file", "autoencoder 4: file")
    assert sum(COUNTS[part] for part in parts) == 2515
    assert len(LISTS) == len(PLACES)


def _listed(name: str, place: str) -> dict[str, Tensor]:
    """A list as tensors without numbers."""
    rows = LISTS[f"{name}: {place}"]
    assert not [key for key, count in Counter(key for key, _ in rows).items() if count > 1]
    return {key: torch.empty(shape, device="meta") for key, shape in rows}


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_every_tensor_is_taken_once_and_given_back(name: str, place: str) -> None:
    """``to_ours`` refuses what is unknown, lacking or there twice; the rest is counted here."""
    release, layout = RELEASES[name], RELEASES[name].layouts[place]
    listed, wanted = _listed(name, place), on_meta(release.ours).state_dict()
    ours = to_ours(listed, layout.table, wanted)
    assert shapes(ours) == shapes(wanted)
    reader = Reader(layout.table)
    unused: Shapes = {n: tuple(t.shape) for n, t in listed.items() if reader.find(n) is None}
    assert unused == layout.unused
    numbers = sum(tensor.numel() for n, tensor in listed.items() if n not in unused)
    assert numbers == sum(tensor.numel() for tensor in wanted.values())
    back = shapes(to_theirs(ours, layout.table))
    assert {**back, **unused} == shapes(listed)
    assert not back.keys() & unused.keys()


@pytest.mark.parametrize("name", RELEASES)
def test_the_lists_are_those_of_the_reference(name: str) -> None:
    """What `diffusers` and `transformers` build, and what they make of the original files."""
    built = on_meta(RELEASES[name].theirs)
    expected = shapes(folder_names(built.state_dict()))
    assert shapes(_listed(name, "folder")) == expected
    layout = RELEASES[name].layouts.get("file")
    if layout is None or layout.convert is None:
        return
    converted = shapes(layout.convert(_listed(name, "file"), built))
    if name == "OpenCLIP-H":  # their converter takes the 24th layer and the projection too
        extra = {k for k in converted if ".layers.23." in k or k == "text_projection.weight"}
        converted = {k: shape for k, shape in converted.items() if k not in extra}
    assert converted == expected


FACTS = folders.Facts("", {}, 64, 0.18215, 0.1, {}, {})


@pytest.mark.parametrize("name", RELEASES)
def test_the_configuration_that_a_folder_gets_builds_the_same_network(name: str) -> None:
    """`diffusers` and `transformers` make the release's tensors of what `convert` writes."""
    listed = shapes(_listed(name, "folder"))
    row = folders.describe(on_meta(RELEASES[name].ours), FACTS, listed)
    library = {"diffusers": diffusers, "transformers": transformers}[row.names[0]]
    kind = getattr(library, row.names[1])
    if library is diffusers:
        built = on_meta(lambda: kind.from_config(row.config))
        release = on_meta(RELEASES[name].theirs)  # with lists for tuples, as JSON has them:
        said, own = (json.loads(json.dumps(dict(network.config))) for network in (built, release))
        told = [key for key in own if key not in NOT_TOLD and not key.startswith("_")]
        assert {key: said[key] for key in told} == {key: own[key] for key in told}
    else:
        built = on_meta(lambda: kind(kind.config_class.from_dict(row.config)))
    assert shapes(folder_names(built.state_dict())) == listed


@pytest.mark.parametrize(("name", "place"), [("sd1 U-Net", "file"), ("flux dev", "folder")])
def test_one_tensor_more_or_less_is_noticed(name: str, place: str) -> None:
    listed = _listed(name, place)
    wanted, table = on_meta(RELEASES[name].ours).state_dict(), RELEASES[name].layouts[place].table
    for key in (next(iter(listed)), list(listed)[-1]):
        fewer = {k: t for k, t in listed.items() if k != key}
        with pytest.raises(ValueError, match="1 key is missing"):
            to_ours(fewer, table, wanted)
        with pytest.raises(ValueError, match="unknown key|which this network lacks"):
            to_ours({**listed, f"x.{key}": listed[key]}, table, wanted)
