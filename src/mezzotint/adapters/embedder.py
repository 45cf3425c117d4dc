"""Redux: a picture as a prompt, by tokens that are joined to those of the text.

Nothing of a denoiser is changed, and it has no further matrices: it attends to the picture's tokens
as it does to words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load_into
from mezzotint.checkpoints.keys import to_ours
from mezzotint.checkpoints.source import one_file, open_folder
from mezzotint.checkpoints.streamed import finite, not_finite
from mezzotint.checkpoints.tables import redux
from mezzotint.networks.redux import Redux


@dataclass(frozen=True)
class Embedder:
    """network: from features of each patch ``(B, N, image)`` to tokens ``(B, N, context)``."""

    network: Redux
    image: int


def file_of(path: Path) -> Path:
    """The file of an embedder that is given by its file, its folder, or that of its pipeline.

    Raises:
        CheckpointError: there is none in the folder.
    """
    file = one_file(path)
    return open_folder(file).weights(redux.PLACE) if file.is_dir() else file


def embeds(state: Mapping[str, Tensor]) -> bool:
    """Whether a file is one of these."""
    return redux.UP in state


def read(
    state: Mapping[str, Tensor], context: int, kind: torch.dtype, place: torch.device
) -> Embedder:
    """The embedder of a file.

    Args:
        context: width of the tokens that its denoiser attends to.
        kind, place: the precision and the device that it works in.

    Raises:
        CheckpointError: a key is unknown or missing, or a tensor of another shape; it is for
            another model, or has numbers that are not finite.
    """
    shape = tuple(state[redux.UP].shape)
    if len(shape) != 2:
        raise CheckpointError(f"its {redux.UP} has shape {shape}: no matrix")
    hidden, image = shape
    if hidden != 3 * context:
        raise CheckpointError(
            f"makes tokens of width {hidden // 3} and this model attends to {context}: it is for "
            "another model, take one made for this"
        )
    with torch.device("meta"):  # sizes are a stranger's until the tensors are found to fit
        network = Redux(image, context)
    made: dict[str, Tensor] = {}
    for name, tensor in to_ours(state, redux.TABLE, network.state_dict()).items():
        made[name] = tensor.to(kind).clone(memory_format=torch.contiguous_format)
        if not finite(made[name]):
            raise CheckpointError(not_finite("the adapter", name))
    load_into(network, made, "the adapter", assign=True)
    return Embedder(network.eval().requires_grad_(False).to(place), image)


def blended(pictures: Sequence[tuple[Tensor, float]]) -> Tensor | None:
    """Pictures' tokens, each with its strength in [0, 1], as one's: ``Σ s e / max(1, Σ s)``.

    Where the strengths are 1 together, it is the weighted sum of `diffusers`; where they are more,
    the pictures share.  A picture of strength 0 is left out.

    Args:
        pictures: ``(1, N, context)`` each, of one N.

    Returns:
        ``(1, N, context)``, or None if nothing is left.
    """
    acting = [(tokens, strength) for tokens, strength in pictures if strength]
    if not acting:
        return None
    whole = max(1.0, sum(strength for _, strength in acting))
    parts = [tokens * (strength / whole) for tokens, strength in acting]
    return torch.stack(parts).sum(dim=0)
