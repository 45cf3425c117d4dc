"""From a configuration to what a run needs: the data, the objective, and the file at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mezzotint.engine import objectives
from mezzotint.engine.config import DecoderConfig, RankingConfig, TrainConfig
from mezzotint.engine.embeddings import read_embeddings
from mezzotint.engine.grow import grown, grows_into
from mezzotint.engine.objectives import Objective
from mezzotint.engine.pictures import (
    Note,
    Reader,
    code_spread,
    fingerprint,
    load_autoencoder,
    pictures,
    save_autoencoder,
)
from mezzotint.engine.reports import Listener
from mezzotint.engine.state import TrainError
from mezzotint.engine.subject import (
    check_conditions,
    check_pictures,
    check_prior,
    check_prompts,
    decoder_features,
    embedding_subject,
    latent_subject,
    make_conditioner,
    pixel_subject,
    shared,
)
from mezzotint.engine.team import Team
from mezzotint.families.model import Conditioner, Model
from mezzotint.families.native import (
    CHANNELS,
    LatentCodec,
    NativeConfig,
    NetworkConfig,
    RankerConfig,
    build,
    load_model,
    save_model,
)
from mezzotint.modalities.dataset import Dataset, open_dataset
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig
from mezzotint.networks.bert import BertConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.dual_encoder import DualEncoder, DualEncoderConfig
from mezzotint.networks.mlp import MLPConfig
from mezzotint.networks.unet import UNetConfig


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
        return _autoencoder(config, config.autoencoder, dataset, shared(team, cached), notes)
    if config.decoder is not None:
        return _decoder(config, config.decoder, dataset, shared(team, cached), notes)
    if config.ranker is not None:
        return _ranker(config, config.ranker, dataset, folder, team, listener.note, notes)
    return _diffusion(config, dataset, now, cached, folder, team, listener, notes)


def _named(part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a part, as the file of the whole names them."""
    return {f"{part}.{name}": value for name, value in state.items()}


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
    check_pictures(config, trained, wish.of)
    has = trained.config.decoder_blocks
    if wish.blocks and wish.blocks < has:
        raise TrainError(f"decoder.blocks = {wish.blocks}: {wish.of} has {has} already")
    network = replace(trained.config, decoder_blocks=wish.blocks or has)
    module = Autoencoder(network)
    module.load_state_dict(trained.state_dict(), strict=False)  # added blocks are the identity

    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        tensors = trained.state_dict() | _named("decoder", state)
        save_autoencoder(path, network, tensors, notes | more)

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
    check_prior("ranker.of", wish.of, description, embeddings, mark)
    check_conditions(dataset, description.condition)
    width = embeddings.shape[1]
    told = prior.conditioner([""]).vector
    assert told is not None  # a prior is told a class or a text
    network = DualEncoderConfig(width, told.shape[1], wish.hidden, wish.dropout)
    conditioner = make_conditioner(
        config, dataset, prior, description.condition, folder, team, note
    )
    objective = objectives.ranker(
        config, dataset, DualEncoder(network), embeddings, conditioner, description.condition
    )

    def export(path: Path, state: dict[str, Tensor], more: dict[str, str]) -> None:
        tensors = _named("network", prior.network.state_dict()) | _named("ranker", state)
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
    check_conditions(dataset, settings.condition)
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
        check_prompts(settings, description, classes)
        check_prior("model.prior", settings.prior, description, embeddings, mark)
    if isinstance(config.network, MLPConfig):
        assert embeddings is not None
        subject = embedding_subject(embeddings)
    elif settings.latent is None:
        reader = shared(team, cached)
        subject = pixel_subject(reader, len(dataset.items), CHANNELS[data.channels])
    else:
        earlier = None if first is None else first[1].latent
        subject = latent_subject(config, dataset, now, folder, team, listener.note, earlier)
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
    conditioner = make_conditioner(
        config, dataset, model, settings.condition, folder, team, listener.note
    )
    features, seen_by = None, None
    if config.train.perceptual_weight:
        assert isinstance(model.codec, LatentCodec)  # the configuration says so
        features = decoder_features(model.codec, subject.read, len(dataset.items))
        seen_by = model.codec.autoencoder
    objective = objectives.diffusion(
        config, dataset, model, subject.read, conditioner, told, features
    )
    objective = replace(objective, frozen=seen_by)
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
    be another, and a U-Net may have fewer blocks."""
    same = ("channels", "condition", "prediction", "schedule", "classes")
    differ = [name for name in same if getattr(native, name) != getattr(description, name)]
    had, has = description.network, native.network
    if had != has and not grows_into(had, has):
        differ.insert(0, "network")
    if not _encode_alike(model, first):
        differ.append("latent")
    if differ:
        raise TrainError(
            f"model.init = {path!r} is another model: its {', '.join(differ)} differ from this "
            "configuration: make them the same, or leave init out"
        )
    weights = first.network.state_dict()
    if isinstance(had, UNetConfig) and isinstance(has, UNetConfig):
        weights = grown(weights, had, has, model.network.state_dict())
    model.network.load_state_dict(weights)


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
        tensors = _named("network", state)
        for part, module in frozen.items():
            tensors |= _named(part, module.state_dict())
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
