"""What a run learns to make, and what its model is told of it; whether the two fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mezzotint.engine.captions import caption_features
from mezzotint.engine.config import ModelConfig, TrainConfig
from mezzotint.engine.objectives import Features
from mezzotint.engine.pictures import (
    Note,
    Reader,
    latent_statistics,
    latents,
    load_autoencoder,
    to_float,
)
from mezzotint.engine.state import TrainError
from mezzotint.engine.team import Team
from mezzotint.families.model import Conditioner, Model
from mezzotint.families.native import (
    CHANNELS,
    EmbeddingCodec,
    LatentCodec,
    LatentConfig,
    NativeConfig,
)
from mezzotint.families.text import load_text_encoder
from mezzotint.modalities.dataset import Dataset
from mezzotint.networks.autoencoder import Autoencoder
from mezzotint.networks.mlp import MLPConfig

T = TypeVar("T")


def shared(team: Team, cached: Callable[[], T]) -> T:
    """The first process makes the cache, then the others open it."""
    if team.first:
        reader = cached()
        team.wait()
        return reader
    team.wait()
    return cached()


# --- what fits ----------------------------------------------------------------------------------


def check_conditions(dataset: Dataset, condition: str) -> None:
    """Every picture must have what the model is to be told of it."""
    lacking = [
        item.name
        for item in dataset.items
        if (condition == "text" and not item.captions) or (condition == "class" and not item.label)
    ]
    if not lacking:
        return
    what = "caption" if condition == "text" else "class"
    remedy = (
        "write one into a .txt file beside it"
        if condition == "text"
        else "put the pictures into one folder a class"
    )
    raise TrainError(
        f"model.condition = {condition!r}, and {len(lacking)} of {len(dataset.items)} pictures "
        f"have no {what} (first: {lacking[0]}): {remedy}, or set model.condition to another"
    )


def check_pictures(config: TrainConfig, frozen: Autoencoder, path: str) -> None:
    """The pictures of a run must be such as a trained autoencoder encodes."""
    stride, key = frozen.config.stride, "crop" if config.data.crop else "size"
    edge = config.data.crop or config.data.size
    if edge % stride:
        raise TrainError(
            f"data.{key} = {edge} does not divide by the autoencoder's stride {stride}: change it"
        )
    channels = CHANNELS[config.data.channels]
    if frozen.config.channels != channels:
        raise TrainError(
            f"the autoencoder {path} has {frozen.config.channels} "
            f"channels, data.channels = {config.data.channels!r} has {channels}"
        )


def check_prior(
    key: str, path: str, description: NativeConfig, embeddings: Tensor, mark: str
) -> None:
    """A trained prior must make embeddings such as the data's."""
    network = description.network
    if not isinstance(network, MLPConfig) or network.in_channels != embeddings.shape[1]:
        raise TrainError(
            f"{key} = {path!r} does not make embeddings of {embeddings.shape[1]} numbers, as "
            "data.embeddings has: train one with network.kind = 'mlp' on the same file"
        )
    if description.notes.get("embeddings", mark) != mark:
        raise TrainError(
            f"{key} = {path!r} learnt other embeddings than those of data.embeddings: train it "
            "again on this file"
        )


def check_prompts(settings: ModelConfig, description: NativeConfig, classes: Sequence[str]) -> None:
    """A trained prior must be told the prompts that the model is told."""
    if (description.condition, description.classes) != (settings.condition, classes):
        raise TrainError(
            f"model.prior = {settings.prior!r} is told other prompts "
            f"({description.condition}, {len(description.classes)} classes) than this model "
            f"({settings.condition}, {len(classes)})"
        )


# --- what is told -------------------------------------------------------------------------------


def make_conditioner(
    config: TrainConfig,
    dataset: Dataset,
    model: Model,
    condition: str,
    folder: Path,
    team: Team,
    note: Note,
) -> Conditioner:
    """What the model is told of a prompt; the features of captions are computed beforehand."""
    if condition != "text":
        return model.conditioner
    encoder = load_text_encoder()
    ids = {"": encoder.ids("")}  # no prompt, for guidance
    for item in dataset.items:
        for caption in item.captions:
            try:
                ids[caption] = ids.get(caption) or encoder.ids(caption)
            except ValueError as error:
                raise TrainError(f"{item.name}: its caption cannot be used: {error}") from error
    kept = folder if config.data.cache else None
    tokens = not isinstance(model.codec, EmbeddingCodec)
    return shared(team, lambda: caption_features(ids, encoder, kept, team.first, note, tokens))


# --- what is made -------------------------------------------------------------------------------


class Subject(NamedTuple):
    """What a run learns to make: items → ``x0`` of ``channels``, and the codec's latent space."""

    read: Reader
    channels: int
    latent: LatentConfig | None = None
    autoencoder: Autoencoder | None = None


def embedding_subject(embeddings: Tensor) -> Subject:
    """The embeddings of the pictures, which have no mirrored ones."""
    return Subject(lambda indices: embeddings[torch.as_tensor(indices)], embeddings.shape[1])


def pixel_subject(read: Reader, count: int, channels: int) -> Subject:
    """Pictures as they are; mirrored ones are those shifted by their ``count``."""

    def mirrored(indices: Sequence[int]) -> Tensor:
        whole = to_float(read([index % count for index in indices]))
        turned = torch.tensor([index >= count for index in indices])
        return torch.where(turned.view(-1, 1, 1, 1), whole.flip(-1), whole)

    return Subject(mirrored, channels)


def _latent_reader(stored: Tensor, mean: Tensor, std: Tensor) -> Reader:
    """Item numbers (mirrored ones shifted by the number of items) → scaled latents, float32."""
    count = len(stored)
    shape = (1, -1, *(1,) * (stored.ndim - 3))
    mean, std = mean.float().view(shape), std.float().view(shape)

    def read(indices: Sequence[int]) -> Tensor:
        where = torch.as_tensor(list(indices))
        picked = stored[where % count, where // count].float()
        return (picked - mean) / std

    return read


def latent_subject(
    config: TrainConfig,
    dataset: Dataset,
    now: Reader,
    folder: Path,
    team: Team,
    note: Note,
    first: LatentConfig | None,
) -> Subject:
    """The scaled codes of an autoencoder; at the scale of the ``first`` model, which goes on."""
    assert config.model is not None and config.model.latent is not None
    frozen, identity = load_autoencoder(Path(config.model.latent))
    check_pictures(config, frozen, config.model.latent)

    def encode() -> Tensor:
        return latents(config.data, dataset, now, frozen, identity, folder, team.first, note)

    stored = shared(team, encode)
    mean, std = latent_statistics(stored)
    if first is not None:
        mean = torch.tensor(first.mean, dtype=torch.float64)
        std = torch.tensor(first.std, dtype=torch.float64)
    latent = LatentConfig(frozen.config, tuple(mean.tolist()), tuple(std.tolist()))
    return Subject(_latent_reader(stored, mean, std), frozen.config.latent_channels, latent, frozen)


def decoder_features(codec: LatentCodec, read: Reader, count: int, most: int = 512) -> Features:
    """What the decoder makes of scaled latents, in standard deviations of each channel.

    Those are measured once, over evenly spaced items.
    """
    with torch.no_grad():
        measured = codec.features(read(range(0, count, -(-count // most))))
    spreads = [each.transpose(0, 1).flatten(1).std(1).clamp_min(1e-6) for each in measured]

    def scaled(x0: Tensor) -> list[Tensor]:
        pairs = zip(codec.features(x0), spreads, strict=True)
        return [each / s.to(each).view(-1, *(1,) * (each.ndim - 2)) for each, s in pairs]

    return scaled
