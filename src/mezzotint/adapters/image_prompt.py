"""IP-Adapter: a picture as a prompt, by further keys and values in every cross-attention.

The third seam (attention banks): a denoiser takes them as an argument, so nothing of it is
changed.  Of an adapter's file the names and shapes say which kind it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, load_into
from mezzotint.checkpoints.keys import Table, to_ours
from mezzotint.checkpoints.streamed import finite, not_finite
from mezzotint.checkpoints.tables import image_prompt as tables
from mezzotint.networks.image_prompt import (
    HEAD,
    Banks,
    FullProjection,
    Projection,
    Resampler,
)


@dataclass(frozen=True)
class Ports:
    """The cross-attentions of a denoiser that take banks, in the order in which they run.

    widths: of their queries; context: of the tokens that they attend to
    table: what files of adapters call the matrices of each
    """

    widths: tuple[int, ...]
    context: int
    table: Table


@dataclass(frozen=True)
class ImageAdapter:
    """A loaded adapter.

    project: from a picture's features to tokens ``(B, T, context)``
    banks: from tokens to keys and values
    image: width of the features; pooled: they are those of the whole picture, projected; else
        those of each patch, of the encoder's last layer but one
    """

    project: nn.Module
    banks: Banks
    image: int
    pooled: bool

    def tokens(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of a picture, and those of no picture, each ``(1, T, context)``.

        Args:
            features: ``(2, image)`` or ``(2, N, image)``, of the picture and of a blank one; in
                place of a blank one's pooled features are zeros, as in training.
        """
        if self.pooled:
            features = torch.stack([features[0], torch.zeros_like(features[1])])
        made: Tensor = self.project(features)
        return made[:1], made[1:]


class Attended(NamedTuple):
    """An image prompt as a denoiser attends to it: to the tokens that stand first of its context.

    size: how many of them are this prompt's; strength: what its part is multiplied by.
    """

    banks: Banks
    size: int
    strength: float


def attend(
    attended: Sequence[Attended], context: Tensor
) -> tuple[Tensor, list[list[tuple[Tensor, Tensor]]]]:
    """The text's tokens of ``context (B, M, C)``, and the banks of the prompts before them."""
    banks: list[list[tuple[Tensor, Tensor]]] = []
    for prompt in attended:
        tokens, context = context[:, : prompt.size], context[:, prompt.size :]
        banks.append(prompt.banks(tokens, prompt.strength))
    return context, banks


# --- reading a file ---------------------------------------------------------------------------


def _plain(state: Mapping[str, Tensor]) -> tuple[nn.Module, int, int]:
    context, (total, image) = len(state["norm.weight"]), state["proj.weight"].shape
    return Projection(image, context, max(total // context, 1)), image, context


def _full(state: Mapping[str, Tensor]) -> tuple[nn.Module, int, int]:
    context, image = state["proj.2.weight"].shape
    return FullProjection(image, context), image, context


def _plus(state: Mapping[str, Tensor]) -> tuple[nn.Module, int, int]:
    _, tokens, width = state["latents"].shape
    image, context = state["proj_in.weight"].shape[1], len(state["proj_out.weight"])
    depth = len({key.split(".")[1] for key in state if key.startswith("layers.")})
    heads = len(state["layers.0.0.to_q.weight"]) // HEAD
    hidden = len(state["layers.0.1.1.weight"])
    made = Resampler(image, context, tokens, width, depth, heads, hidden)
    return made, image, context


_KINDS = (
    ("latents", _plus, tables.PLUS, False),
    ("proj.3.weight", _full, tables.FULL, False),
    ("proj.weight", _plain, tables.PLAIN, True),
)
"""The tensor that tells a kind, how it is built, its names, and whether its features are pooled."""


def _check_other(state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for adapters of other pictures' features than CLIP's."""
    image = [key for key in state if key.startswith(tables.IMAGE)]
    if not image or not any(key.startswith(tables.ATTENTION) for key in state):
        raise CheckpointError(
            f"is no IP-Adapter: it needs tensors under {tables.IMAGE} and {tables.ATTENTION}"
        )
    face = f"{tables.IMAGE}proj.0.weight" in state and f"{tables.IMAGE}proj.3.weight" not in state
    if face or any(".to_q_lora." in key or "perceiver_resampler" in key for key in state):
        raise CheckpointError(
            "is a FaceID adapter, which goes by a face recogniser that is not here: give a plain, "
            "Plus or full-face one"
        )


def read(
    state: Mapping[str, Tensor], ports: Ports, kind: torch.dtype, place: torch.device
) -> ImageAdapter:
    """The adapter of a file.

    Args:
        ports: of the denoiser that it is for.
        kind, place: the precision and the device that it works in.

    Raises:
        CheckpointError: a key is unknown or missing, or a tensor of another shape; it is of
            another kind, for another base model, or has numbers that are not finite.
    """
    _check_other(state)
    image_state = {
        key.removeprefix(tables.IMAGE): value
        for key, value in state.items()
        if key.startswith(tables.IMAGE)
    }
    found = next((row for row in _KINDS if row[0] in image_state), None)
    if found is None:
        raise CheckpointError(f"its {tables.IMAGE} is of no known kind of IP-Adapter")
    _, build, table, pooled = found
    try:
        with torch.device("meta"):  # sizes are a stranger's until the tensors are found to fit
            project, image, context = build(image_state)
            banks = Banks(ports.context, ports.widths)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"its {tables.IMAGE} is incomplete or damaged: {error}") from None
    if context != ports.context:
        raise CheckpointError(
            f"makes tokens of width {context} and this model attends to {ports.context}: it is for "
            "another base model, take one made for this"
        )
    whole = nn.ModuleDict({"project": project, "banks": banks})
    ours = to_ours(state, tables.whole(table, ports.table), whole.state_dict())
    made: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        made[name] = tensor.to(kind).clone(memory_format=torch.contiguous_format)
        if not finite(made[name]):
            raise CheckpointError(not_finite("the adapter", name))
    load_into(whole, made, "the adapter", assign=True)
    whole.eval().requires_grad_(False).to(place)
    return ImageAdapter(project, banks, image, pooled)
