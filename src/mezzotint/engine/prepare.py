"""From a configuration to what a run needs: the data, the objective, and the file at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mezzotint.engine import objectives
from mezzotint.engine.captions import caption_features
from mezzotint.engine.config import DecoderConfig, RankingConfig, TrainConfig
from mezzotint.engine.embeddings import read_embeddings
from mezzotint.engine.objectives import Features, Objective
from mezzotint.engine.pictures import (
    Note,
    Reader,
    code_spread,
    fingerprint,
    latent_statistics,
    latents,
    load_autoencoder,
    pictures,
    save_autoencoder,
    to_float,
)
from mezzotint.engine.reports import Listener
from mezzotint.engine.state import TrainError
from mezzotint.engine.team import Team
from mezzotint.families.model import Conditioner, Model
from mezzotint.families.native import (
    CHANNELS,
    EmbeddingCodec,
    LatentCodec,
    LatentConfig,
    NativeConfig,
    NetworkConfig,
    RankerConfig,
    build,
    load_model,
    save_model,
)
from mezzotint.families.text import load_text_encoder
from mezzotint.modalities.dataset import Dataset, open_dataset
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig
from mezzotint.networks.bert import BertConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.dual_encoder import DualEncoder, DualEncoderConfig
from mezzotint.networks.mlp import MLPConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """What a run trains.

    data: the data set's fingerprint; items: how many pictures it has.
    levels: the objective has noise levels to report by.
    export: write the final file, from averaged weights and notes.
    preview: a model with averaged weights, for sample pictures; None for an autoencoder.
    """

    objective: Objective
    data: str
    items: int
    export: Callable[[Path, dict[str, Tensor], dict[str, str]], None]
    notes: dict[str, str]
    levels: bool = False
    preview: Callable[[dict[str, Tensor]], Model] | None = None


def prepare(config: TrainConfig, run: Path, team: Team, listener: Listener) -> Task:
    """Open and check everything, before the first step.

    Raises:
        DatasetError: the data set cannot be used; all bad files are in ``error.bad``.
        TrainError: pictures and configuration do not fit each other.
        CheckpointError: the autoencoder's file cannot be used.
    """
    data = config.data
    listener.note(f"checking {data.source}")
    dataset = open_dataset(
        Path(data.source),
        data.channels,
        split=data.split,
        sets=data.sets,
        skip_bad=data.skip_bad,
        size=data.size,
    )
    if dataset.bad:
        listener.note(f"left out {len(dataset.bad)} bad files: {'; '.join(dataset.bad[:5])}")
    folder = Path(data.cache_folder) if data.cache_folder else run / "cache"
    now, cached = pictures(data, dataset, folder, team.first, listener.note)
    notes = {"data": Path(data.source).name, "items": str(len(dataset.items))}
    if dataset.licence:
        notes["licence"] = dataset.licence
    if config.autoencoder is not None:
        return _autoencoder(config, config.autoencoder, dataset, _shared(team, cached), notes)
    if config.decoder is not None:
        return _decoder(config, config.decoder, dataset, _shared(team, cached), notes)
    if config.ranker is not None:
        return _ranker(config, config.ranker, dataset, folder, team, listener.note, notes)
    return _diffusion(config, dataset, now, cached, folder, team, listener, notes)


def _shared(team: Team, cached: Callable[[], T]) -> T:
    """The first process makes the cache, then the others open it."""
    if team.first:
        reader = cached()
        team.wait()
        return reader
    team.wait()
    return cached()


def _autoencoder(
    config: TrainConfig,
    network: AutoencoderConfig,
    dataset: Dataset,
    reader: Reader,
    notes: dict[str, str],
) -> Task:
    module = Autoencoder(network)

    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        save_autoencoder(path, network, state, notes | more)

    return Task(
        objectives.autoencoder(config, dataset, module, reader),
        fingerprint(dataset),
        len(dataset.items),
        export=export,
        notes=notes,
    )


def _decoder(
    config: TrainConfig,
    wish: DecoderConfig,
    dataset: Dataset,
    reader: Reader,
    notes: dict[str, str],
) -> Task:
    trained, identity = load_autoencoder(Path(wish.of))
    _check_pictures(config, trained, wish.of)
    has = trained.config.decoder_blocks
    if wish.blocks and wish.blocks < has:
        raise TrainError(f"decoder.blocks = {wish.blocks}: {wish.of} has {has} already")
    network = replace(trained.config, decoder_blocks=wish.blocks or has)
    module = Autoencoder(network)
    module.load_state_dict(trained.state_dict(), strict=False)  # added blocks are the identity

    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        decoder = {f"decoder.{name}": value for name, value in state.items()}
        save_autoencoder(path, network, trained.state_dict() | decoder, notes | more)

    return Task(
        objectives.decoder(
            config, dataset, module, reader, code_spread(reader, len(dataset.items), trained)
        ),
        f"{fingerprint(dataset)} {identity}",
        len(dataset.items),
        export=export,
        notes=notes,
    )


def _ranker(
    config: TrainConfig,
    wish: RankingConfig,
    dataset: Dataset,
    folder: Path,
    team: Team,
    note: Note,
    notes: dict[str, str],
) -> Task:
    assert config.data.embeddings is not None
    prior, description = load_model(Path(wish.of))
    embeddings, mark = read_embeddings(Path(config.data.embeddings), dataset)
    _check_prior("ranker.of", wish.of, description, embeddings, mark)
    _check_conditions(dataset, description.condition)
    width = embeddings.shape[1]
    told = prior.conditioner([""]).vector
    assert told is not None  # a prior is told a class or a text
    network = DualEncoderConfig(width, told.shape[1], wish.hidden, wish.dropout)
    conditioner = _conditioner(config, dataset, prior, description.condition, folder, team, note)
    objective = objectives.ranker(
        config, dataset, DualEncoder(network), embeddings, conditioner, description.condition
    )

    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        tensors = {f"network.{name}": value for name, value in prior.network.state_dict().items()}
        tensors |= {f"ranker.{name}": value for name, value in state.items()}
        ranked = {f"ranker {name}": value for name, value in (notes | more).items()}
        ranked["embeddings"] = mark
        ranker = RankerConfig(network, wish.candidates)
        save_model(
            path, replace(description, ranker=ranker, notes=description.notes | ranked), tensors
        )

    return Task(
        objective,
        f"{fingerprint(dataset)} {mark}",
        len(dataset.items),
        export=export,
        notes=notes,
    )


# --- diffusion --------------------------------------------------------------------------------


def _check_conditions(dataset: Dataset, condition: str) -> None:
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


def _conditioner(
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
    return _shared(team, lambda: caption_features(ids, encoder, kept, team.first, note, tokens))


def network_config(
    network: NetworkConfig, condition: str, channels: int, classes: Sequence[str], told: int
) -> NetworkConfig:
    """The network with the channels and widths that the data and the condition give it.

    Args:
        told: width of the embedding that the network is told, 0 for none.
    """
    width = BertConfig().width if condition == "text" else 0
    vector = (len(classes) if condition == "class" else width) + told
    common = {"in_channels": channels, "out_channels": channels, "vector_width": vector}
    if isinstance(network, MLPConfig):
        return replace(network, **common)
    if isinstance(network, DiTConfig):
        return replace(network, **common, token_width=width)
    return replace(network, **common, context_width=width)


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


def _pixel_reader(read: Reader, count: int) -> Reader:
    """Item numbers (mirrored ones shifted by the number of items) → pictures, float32."""

    def mirrored(indices: Sequence[int]) -> Tensor:
        whole = to_float(read([index % count for index in indices]))
        turned = torch.tensor([index >= count for index in indices])
        return torch.where(turned.view(-1, 1, 1, 1), whole.flip(-1), whole)

    return mirrored


def _decoder_features(codec: LatentCodec, read: Reader, count: int, most: int = 512) -> Features:
    """What the decoder makes of scaled latents, in standard deviations of each channel.

    Those are measured once, over evenly spaced items.
    """

    def features(x0: Tensor) -> tuple[Tensor, ...]:
        codec.autoencoder.to(x0.device)
        return codec.features(x0)

    with torch.no_grad():
        measured = features(read(range(0, count, -(-count // most))))
    spreads = [each.transpose(0, 1).flatten(1).std(1).clamp_min(1e-6) for each in measured]

    def scaled(x0: Tensor) -> list[Tensor]:
        pairs = zip(features(x0), spreads, strict=True)
        return [each / s.to(each).view(-1, *(1,) * (each.ndim - 2)) for each, s in pairs]

    return scaled


def _embedding_reader(embeddings: Tensor) -> Reader:
    return lambda indices: embeddings[torch.as_tensor(indices)]


class _Subject(NamedTuple):
    """What a run learns to make: items → ``x0`` of ``channels``, and the codec's latent space."""

    read: Reader
    channels: int
    latent: LatentConfig | None = None
    autoencoder: Autoencoder | None = None


def _latent_subject(
    config: TrainConfig,
    dataset: Dataset,
    now: Reader,
    folder: Path,
    team: Team,
    note: Note,
    first: NativeConfig | None,
) -> _Subject:
    """The scaled codes of an autoencoder; at the scale that the ``first`` model was trained at."""
    assert config.model is not None and config.model.latent is not None
    frozen, identity = load_autoencoder(Path(config.model.latent))
    _check_pictures(config, frozen, config.model.latent)

    def encode() -> Tensor:
        return latents(config.data, dataset, now, frozen, identity, folder, team.first, note)

    stored = _shared(team, encode)
    mean, std = latent_statistics(stored)
    if first is not None and first.latent is not None:
        mean = torch.tensor(first.latent.mean, dtype=torch.float64)
        std = torch.tensor(first.latent.std, dtype=torch.float64)
    latent = LatentConfig(frozen.config, tuple(mean.tolist()), tuple(std.tolist()))
    return _Subject(
        _latent_reader(stored, mean, std), frozen.config.latent_channels, latent, frozen
    )


def _check_prior(
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


def _diffusion(
    config: TrainConfig,
    dataset: Dataset,
    now: Reader,
    cached: Callable[[], Reader],
    folder: Path,
    team: Team,
    listener: Listener,
    notes: dict[str, str],
) -> Task:
    assert config.model is not None and config.network is not None
    settings, data = config.model, config.data
    _check_conditions(dataset, settings.condition)
    first = None if settings.init is None else load_model(Path(settings.init))
    classes = dataset.classes if settings.condition == "class" else ()
    identity, mark = fingerprint(dataset), ""
    embeddings, prior, description = None, None, None
    if data.embeddings is not None:
        embeddings, mark = read_embeddings(Path(data.embeddings), dataset)
        identity = f"{identity} {mark}"
        notes = notes | {"embeddings": mark}
    if settings.prior is not None:
        assert embeddings is not None  # the configuration gives both or neither
        prior, description = load_model(Path(settings.prior))
        if (description.condition, description.classes) != (settings.condition, classes):
            raise TrainError(
                f"model.prior = {settings.prior!r} is told other prompts "
                f"({description.condition}, {len(description.classes)} classes) than this model "
                f"({settings.condition}, {len(classes)})"
            )
        _check_prior("model.prior", settings.prior, description, embeddings, mark)
    if isinstance(config.network, MLPConfig):
        assert embeddings is not None
        subject = _Subject(_embedding_reader(embeddings), embeddings.shape[1])
    elif settings.latent is None:
        reader = _pixel_reader(_shared(team, cached), len(dataset.items))
        subject = _Subject(reader, CHANNELS[data.channels])
    else:
        earlier = None if first is None else first[1]
        subject = _latent_subject(config, dataset, now, folder, team, listener.note, earlier)
    told = None if prior is None else embeddings
    native = NativeConfig(
        name=config.name,
        network=network_config(
            config.network,
            settings.condition,
            subject.channels,
            classes,
            0 if told is None else told.shape[1],
        ),
        channels=data.channels,
        condition=settings.condition,
        prediction=settings.prediction,
        schedule=settings.schedule,
        defaults=settings.defaults(data.size),
        classes=classes,
        latent=subject.latent,
        prior=description,
    )
    frozen: dict[str, nn.Module] = {}
    if subject.autoencoder is not None:
        frozen["autoencoder"] = subject.autoencoder
    if prior is not None:
        frozen["prior"] = prior.network
        frozen |= {name: part for name, part in prior.parts.items() if name == "ranker"}
    model = _build(native, frozen)
    if first is not None:
        _start_from(model, native, *first, str(settings.init))
    conditioner = _conditioner(
        config, dataset, model, settings.condition, folder, team, listener.note
    )
    features = None
    if config.train.perceptual_weight:
        assert isinstance(model.codec, LatentCodec)  # the configuration says so
        features = _decoder_features(model.codec, subject.read, len(dataset.items))
    objective = objectives.diffusion(
        config, dataset, model, subject.read, conditioner, told, features
    )
    return _task(objective, dataset, identity, model, native, frozen, notes)


def _encoder(model: Model) -> dict[str, Tensor]:
    """The weights that make a latent model's codes; none of a model of pixels."""
    autoencoder = model.parts.get("autoencoder", nn.Identity()).state_dict()
    return {name: weight for name, weight in autoencoder.items() if name.startswith("encoder.")}


def _encode_alike(model: Model, first: Model) -> bool:
    """Whether the codes of two models mean the same; a shipped encoder is rounded to float16."""
    new, old = _encoder(model), _encoder(first)
    return new.keys() == old.keys() and all(
        weight.shape == old[name].shape and torch.allclose(weight, old[name], 1e-3, 1e-4)
        for name, weight in new.items()
    )


def _start_from(
    model: Model, native: NativeConfig, first: Model, description: NativeConfig, path: str
) -> None:
    """Take the weights of a trained model, to whose network all must mean the same; its decoder may
    be another."""
    same = ("network", "channels", "condition", "prediction", "schedule", "classes")
    differ = [name for name in same if getattr(native, name) != getattr(description, name)]
    if not _encode_alike(model, first):
        differ.append("latent")
    if differ:
        raise TrainError(
            f"model.init = {path!r} is another model: its {', '.join(differ)} differ from this "
            "configuration: make them the same, or leave init out"
        )
    model.network.load_state_dict(first.network.state_dict())


def _check_pictures(config: TrainConfig, frozen: Autoencoder, path: str) -> None:
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


def _build(
    native: NativeConfig,
    frozen: Mapping[str, nn.Module],
    conditioner: Conditioner | None = None,
) -> Model:
    """The model with fresh weights, except those of its ``frozen`` modules."""
    try:
        model = build(native, conditioner)
    except ValueError as error:
        raise TrainError(f"network: {error}") from error
    for name, module in frozen.items():
        model.parts[name].load_state_dict(module.state_dict())
    return model


def _task(
    objective: Objective,
    dataset: Dataset,
    identity: str,
    model: Model,
    native: NativeConfig,
    frozen: Mapping[str, nn.Module],
    notes: dict[str, str],
) -> Task:
    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        tensors = {f"network.{name}": value for name, value in state.items()}
        for part, module in frozen.items():
            tensors |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        save_model(path, replace(native, notes=notes | more), tensors)

    twin: list[Model] = []  # made when first needed: a second network, never the one that learns

    def preview(state: dict[str, Tensor]) -> Model:
        if not twin:
            twin.append(_build(native, frozen, model.conditioner))
            nn.ModuleDict(twin[0].parts).eval().requires_grad_(False)
        twin[0].network.load_state_dict(state)
        return twin[0]

    return Task(
        objective,
        identity,
        len(dataset.items),
        export=export,
        notes=notes,
        levels=True,
        preview=None if isinstance(native.network, MLPConfig) else preview,
    )
