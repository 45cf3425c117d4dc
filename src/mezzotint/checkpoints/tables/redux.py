"""FLUX.1 Redux: its names, which a file and a folder share, to ``networks.redux.Redux``."""

from __future__ import annotations

from mezzotint.checkpoints.keys import Table
from mezzotint.checkpoints.signature import Signature

UP = "redux_up.weight"
TABLE: Table = {"redux_up.{p}": "up.{p}", "redux_down.{p}": "down.{p}"}
PLACE = "image_embedder"
"""Its folder in a folder of `diffusers`."""
KIND = "Redux for FLUX.1"
SIGNATURES = (Signature(f"{KIND} (makes prompts of pictures)", (UP, "redux_down.weight")),)
