"""The watermark in the pixels of a picture that is being made, after everything else is done."""

from __future__ import annotations

import argparse
from dataclasses import replace

from PIL import Image

from mezzotint.engine.request import Known
from mezzotint.provenance import blind, keys, recipe
from mezzotint.provenance.codeword import WatermarkError
from mezzotint.provenance.recipe import Mark, Recipe
from mezzotint.provenance.sight import SMALLEST

LEAST = SMALLEST**2
"""Pixels that a mask must let change, so that there is a mark in them."""


def marked(
    image: Image.Image,
    how: Recipe,
    key: keys.MarkKey | None,
    args: argparse.Namespace,
    known: Known | None,
) -> tuple[Image.Image, Recipe]:
    """The picture with the mark in its pixels, and its recipe with what marks it has.

    Of an edit with a mask only what may be new is marked: the rest keeps its colours exactly.

    key: None: there is to be none.
    """
    if key is None:
        return image, how
    noise: tuple[Mark, ...] = ("noise",) if args.watermark in ("both", "noise") else ()
    if args.watermark == "noise":
        return image, replace(how, key=key.id, marks=noise)
    # A recipe that is checked has its own hash, whatever its files are called here.
    meant = args.recipe if args.recipe is not None and args.lenient else how
    payload = keys.payload(key, recipe.short_hash(meant))
    try:
        made = blind.embed(image, payload, key.secret, _changed(image, known))
    except WatermarkError as error:
        return image, replace(how, key=key.id, marks=noise, without=str(error))
    return made, replace(how, key=key.id, marks=(*noise, "pixels"))


def _changed(image: Image.Image, known: Known | None) -> blind.Where | None:
    """Where a picture may differ from the one that was edited; None: everywhere."""
    if known is None or tuple(known.mask.shape[1:]) != (image.height, image.width):
        return None  # a picture that was enlarged afterwards is new everywhere
    where = (known.mask[0] > 0).cpu().numpy()
    if where.sum() < LEAST:
        raise WatermarkError(
            f"the mask lets {int(where.sum())} pixels change, and a watermark takes {LEAST}"
        )
    return where
