"""What a training run is: a small TOML file, read strictly into frozen dataclasses.

Every key is checked before anything is opened: an unknown one, a missing one, or a value of the
wrong type is an error that names it.  What the data decide (the network's channels and the widths
of its conditioning) is not written down at all.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mezzotint.diffusion import samplers, spacings
from mezzotint.families.model import Defaults
from mezzotint.families.native import CHANNELS, NETWORKS, NetworkConfig, kind_of
from mezzotint.networks.autoencoder import AutoencoderConfig
from mezzotint.networks.mlp import MLPConfig

T = TypeVar("T")
Part = TypeVar("Part", "DataConfig", "ModelConfig", "DecoderConfig", "RankingConfig")


class ConfigError(ValueError):
    """A training configuration cannot be used; one line that names the key."""


@dataclass(frozen=True)
class DataConfig:
    """source: folder or prepared archive, relative to the configuration file.
    size: edge of the square pictures, in pixels; channels: "grey", "rgb" or "rgba".
    split, sets: train on these only; none takes all.
    embeddings: a file of the pictures' embeddings, which an "mlp" learns to make, a ranker to
        rank, and a model with a prior is told.
    flip: mirror every other picture; crop: learn random squares of this edge (autoencoders
        and decoders).
    skip_bad: leave damaged files out instead of stopping.
    cache: keep the decoded (or encoded) data set in one file, under the run or in cache_folder.
    """

    source: str
    size: int
    channels: Literal["grey", "rgb", "rgba"] = "rgb"
    split: str | None = None
    sets: tuple[str, ...] | None = None
    embeddings: str | None = None
    flip: bool = False
    crop: int = 0
    skip_bad: bool = False
    cache: bool = True
    cache_folder: str | None = None


@dataclass(frozen=True)
class ModelConfig:
    """prediction: "x0", "eps", "v", "flow" or "edm"; schedule: "flow", "cosine", "linear", "edm".
    condition: what the model is told: "none", "class" (folder names) or "text" (captions).
    latent: a trained autoencoder's model file; none diffuses pixels.
    prior: the model file of a trained "mlp", which makes the embeddings when `generate` is asked.
    init: a trained model's file of the same network, to go on from (fine-tuning); none starts anew.
    steps, guidance, sampler, spacing: what `generate` takes when it is not told; guidance_interval:
        the noise times (low, high) at which it guides, none at all of them.
    """

    prediction: Literal["x0", "eps", "v", "flow", "edm"]
    schedule: Literal["flow", "cosine", "linear", "edm"]
    condition: Literal["none", "class", "text"] = "none"
    latent: str | None = None
    prior: str | None = None
    init: str | None = None
    steps: int = 20
    guidance: float = 3.0
    guidance_interval: tuple[float, float] | None = None
    sampler: str = "dpmpp_2m"
    spacing: str = "linspace"

    def defaults(self, size: int) -> Defaults:
        """These defaults at a size, as the model file carries them."""
        return Defaults(
            (size, size),
            self.steps,
            self.guidance,
            self.sampler,
            self.spacing,
            self.guidance_interval,
        )


@dataclass(frozen=True)
class DecoderConfig:
    """A trained autoencoder's decoder, trained further; the encoder, and so every code, stays.

    of: the autoencoder's model file.
    blocks: the residual blocks a level that it shall have; those added begin as the identity
        (0: as many as it has).
    noise: the most noise on a code, in the code's own standard deviations, so that the decoder
        forgives a denoiser (noise-augmented decoding, Zheng et al. 2025); each sample has a
        uniform share of it.
    """

    of: str
    blocks: int = 0
    noise: float = 0.0


@dataclass(frozen=True)
class RankingConfig:
    """How well embeddings go with prompts, learnt from a data set, for a trained prior.

    of: the prior's model file; the run's file is the prior with its ranker.
    hidden, dropout: of the dual encoder.
    candidates: how many embeddings the prior is to make for the one that is taken.
    """

    of: str
    hidden: int = 1024
    dropout: float = 0.4
    candidates: int = 16


@dataclass(frozen=True)
class StepsConfig:
    """How long, how fast, and what is reported.  Amounts are counted in pictures.

    pictures: of the whole run; batch: of one step over all processes; micro_batch: of one pass
        through the network (0: a process's whole share).
    learning_rate: its peak, after warmup_pictures; decay: "constant", "cosine" or "linear" (both
        reach 0 at the end), or "inverse_sqrt" (falls as 1 / sqrt after decay_pictures, EDM2).
    betas, weight_decay: of AdamW; clip: the largest norm of the gradient (0: any).
    precision: "bf16" (autocast; weights stay float32) or "fp32".
    loss: the weight of the levels: "plain", "min_snr", "p2", "edm", or "flow" (the error of the
        velocity, for x0 predictions: Li & He 2025).
    levels: which are learnt: "uniform", "logit_normal", "edm_lognormal", with level_mean and
        level_std of the latter two.
    drop_condition: share of samples trained without their condition, for guidance.
    perceptual_weight: of the error that the estimate of x0 makes in the features of the latent
        model's decoder, at times below perceptual_time.
    embedding_noise: the most noise that is mixed into the embeddings which a model is told, so
        that it forgives its prior (noise conditioning augmentation, Ho et al. 2022, §4).
    kl_weight, edge_weight: of an autoencoder's loss; edge_weight of a decoder's too.
    ema: relative widths of the tracked averages of the weights (EDM2, §3.1); final_ema: the one
        that the final model takes, tracked or not (none: the first tracked).
    checkpoint_minutes: between checkpoints; snapshot_pictures: between snapshots of the averages
        (0: none); sample_pictures: between sample pictures of sample_prompts (0: none).
    log_steps: between lines of log.jsonl; tensorboard: write its events too.
    compile: use torch.compile.
    """

    pictures: int
    batch: int
    learning_rate: float
    micro_batch: int = 0
    warmup_pictures: int = 0
    decay: Literal["constant", "cosine", "linear", "inverse_sqrt"] = "constant"
    decay_pictures: int = 0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    loss: Literal["plain", "min_snr", "p2", "edm", "flow"] = "plain"
    levels: Literal["uniform", "logit_normal", "edm_lognormal"] = "uniform"
    level_mean: float = 0.0
    level_std: float = 1.0
    drop_condition: float = 0.1
    perceptual_weight: float = 0.0
    perceptual_time: float = 0.7
    embedding_noise: float = 0.0
    kl_weight: float = 1e-5
    edge_weight: float = 1.0
    ema: tuple[float, ...] = (0.05, 0.10)
    final_ema: float | None = None
    checkpoint_minutes: float = 10.0
    snapshot_pictures: int = 0
    sample_pictures: int = 0
    sample_prompts: tuple[str, ...] = ()
    log_steps: int = 10
    tensorboard: bool = False
    compile: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """One run: a diffusion model (``network`` and ``model``), an ``autoencoder``, a ``decoder`` or
    a ``ranker``.

    The network's channels and conditioning widths are placeholders here: the data decide them.
    """

    name: str
    data: DataConfig
    train: StepsConfig
    network: NetworkConfig | None = None
    model: ModelConfig | None = None
    autoencoder: AutoencoderConfig | None = None
    decoder: DecoderConfig | None = None
    ranker: RankingConfig | None = None
    seed: int = 0


DERIVED = {"in_channels", "out_channels", "channels", "vector_width", "token_width"} | {
    "context_width"
}
"""Fields of a network that follow from the data and the conditioning."""
MAY_CHANGE = {
    *(f"data.{name}" for name in ("source", "embeddings", "cache", "cache_folder")),
    *(f"model.{name}" for name in ("prior", "steps", "guidance", "guidance_interval")),
    *(f"model.{name}" for name in ("sampler", "spacing")),
    *(f"train.{name}" for name in ("pictures", "checkpoint_minutes", "snapshot_pictures")),
    *(f"train.{name}" for name in ("sample_pictures", "sample_prompts", "log_steps")),
    *(f"train.{name}" for name in ("tensorboard", "final_ema")),
}
"""Keys that a run may change when it goes on; of the data, the fingerprint decides."""


# --- reading ----------------------------------------------------------------------------------


def _near(key: str, known: list[str]) -> str:
    found = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; the nearest known is {found[0]!r}" if found else ""


def _names(hint: Any) -> str:
    """A type as an error message calls it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_names(part) for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        count = "a list" if parts[1:] == (...,) else f"a list of {len(parts)}"
        return f"{count}, each {_names(parts[0])}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return plain[hint]


def _value(hint: Any, value: Any, key: str) -> Any:
    """``value`` as the type ``hint``: bool, int, float, str, Literal, tuple, or a union of a tuple
    and one of the others."""
    wrong = ConfigError(f"{key} = {value!r}: it must be {_names(hint)}")
    if get_origin(hint) in (Union, types.UnionType):
        choices = [part for part in get_args(hint) if part is not type(None)]
        for part in choices:
            if isinstance(value, list) and get_origin(part) is tuple:
                return _value(part, value, key)
            with suppress(ConfigError):
                return _value(part, value, key)
        raise wrong
    if get_origin(hint) is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        raise wrong
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if not isinstance(value, list) or (parts[1:] != (...,) and len(value) != len(parts)):
            raise wrong
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) else parts
        return tuple(
            _value(kind, entry, f"{key}[{number}]")
            for number, (kind, entry) in enumerate(zip(kinds, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise wrong
    return value


def _fill(kind: type[T], table: Any, where: str, given: Mapping[str, Any]) -> T:
    """A flat dataclass from a TOML table; ``given`` are fields that the file may not name."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, [{where}]")
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind) if entry.name not in given]  # type: ignore[arg-type]
    values = dict(given)
    for key, value in table.items():
        if key in given:
            raise ConfigError(
                f"{where}.{key} follows from the data and the condition: leave it out"
            )
        if key not in known:
            raise ConfigError(f"unknown key {where}.{key}{_near(key, known)}")
        values[key] = _value(hints[key], value, f"{where}.{key}")
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name not in values and entry.default is MISSING:
            raise ConfigError(f"missing key {where}.{entry.name}: {_names(hints[entry.name])}")
    try:
        return kind(**values)
    except ValueError as error:  # a network's own check
        raise ConfigError(f"{where}: {error}") from error


def _network(table: Any, channels: int) -> NetworkConfig:
    if not isinstance(table, dict):
        raise ConfigError("network must be a table, [network]")
    table = dict(table)
    kind = table.pop("kind", None)
    if kind not in NETWORKS:
        kinds = ", ".join(map(repr, NETWORKS))
        raise ConfigError(f"network.kind = {kind!r}: it must be one of {kinds}")
    derived = {
        entry.name: channels if entry.name.endswith("channels") else 0
        for entry in fields(NETWORKS[kind][0])
        if entry.name in DERIVED
    }
    return _fill(NETWORKS[kind][0], table, "network", derived)


def parse_config(text: str, folder: Path) -> TrainConfig:
    """A configuration from TOML; its paths are relative to ``folder``.

    Raises:
        ConfigError: it is no TOML, or a key is unknown, missing, or holds what it cannot.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not readable as TOML: {error}") from error
    known = [entry.name for entry in fields(TrainConfig)]
    for key in document:
        if key not in known:
            raise ConfigError(f"unknown key {key}{_near(key, known)}")
    for key in ("name", "data", "train"):
        if key not in document:
            raise ConfigError(f"missing {'key' if key == 'name' else 'table'} {key}")
    data = _fill(DataConfig, document["data"], "data", {})
    channels = CHANNELS[data.channels]
    network = model = autoencoder = decoder = ranker = None
    if "network" in document:
        network = _network(document["network"], channels)
    if "model" in document:
        model = _fill(ModelConfig, document["model"], "model", {})
        model = _located(model, folder, ("latent", "prior", "init"))
    if "autoencoder" in document:
        given = {"channels": channels}
        autoencoder = _fill(AutoencoderConfig, document["autoencoder"], "autoencoder", given)
    if "decoder" in document:
        decoder = _fill(DecoderConfig, document["decoder"], "decoder", {})
        decoder = _located(decoder, folder, ("of",))
    if "ranker" in document:
        ranker = _fill(RankingConfig, document["ranker"], "ranker", {})
        ranker = _located(ranker, folder, ("of",))
    config = TrainConfig(
        name=_value(str, document["name"], "name"),
        seed=_value(int, document.get("seed", 0), "seed"),
        data=_located(data, folder, ("source", "embeddings", "cache_folder")),
        train=_fill(StepsConfig, document["train"], "train", {}),
        network=network,
        model=model,
        autoencoder=autoencoder,
        decoder=decoder,
        ranker=ranker,
    )
    check(config)
    return config


def _located(part: Part, folder: Path, paths: Sequence[str]) -> Part:
    """``part`` with the ``paths`` among its fields made absolute."""
    given = {name: getattr(part, name) for name in paths if getattr(part, name) is not None}
    return replace(part, **{name: str((folder / path).absolute()) for name, path in given.items()})


def read_config(path: Path) -> TrainConfig:
    """A configuration file; its paths are relative to its folder.  Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file: {error.reason}") from error
    try:
        return parse_config(text, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


# --- checking what a type cannot say ----------------------------------------------------------


_NOT_NEGATIVE = (
    "perceptual_weight",
    "micro_batch",
    "warmup_pictures",
    "decay_pictures",
    "weight_decay",
    "clip",
    "kl_weight",
    "edge_weight",
    "checkpoint_minutes",
    "snapshot_pictures",
    "sample_pictures",
)


def _positive(config: TrainConfig) -> None:
    data, train = config.data, config.train
    above = {"data.size": data.size, "train.pictures": train.pictures, "train.batch": train.batch}
    above |= {"train.learning_rate": train.learning_rate, "train.log_steps": train.log_steps}
    above |= {"train.level_std": train.level_std}
    if config.ranker is not None:
        above |= {
            f"ranker.{name}": getattr(config.ranker, name) for name in ("hidden", "candidates")
        }
        if not 0 <= config.ranker.dropout < 1:
            raise ConfigError(f"ranker.dropout = {config.ranker.dropout}: it must lie in [0, 1)")
    for key, value in above.items():
        if value <= 0:
            raise ConfigError(f"{key} = {value}: it must be above 0")
    least = {"data.crop": data.crop}
    if config.decoder is not None:
        least |= {f"decoder.{name}": getattr(config.decoder, name) for name in ("blocks", "noise")}
    least |= {f"train.{name}": getattr(train, name) for name in _NOT_NEGATIVE}
    for key, value in least.items():
        if value < 0:
            raise ConfigError(f"{key} = {value}: it must not be below 0")
    if not 0 <= train.embedding_noise < 1:
        raise ConfigError(f"train.embedding_noise = {train.embedding_noise}: a share of 0 to 1")
    if not 0 < train.perceptual_time <= 1:
        raise ConfigError(f"train.perceptual_time = {train.perceptual_time}: a time, 0 < t <= 1")
    if not all(0 <= beta < 1 for beta in train.betas):
        raise ConfigError(f"train.betas = {list(train.betas)}: both must lie in [0, 1)")
    if not 0 <= train.drop_condition <= 1:
        raise ConfigError(f"train.drop_condition = {train.drop_condition}: a share of 0 to 1")
    for width in (*train.ema, *(() if train.final_ema is None else (train.final_ema,))):
        if not 0 < width < 0.28:  # gamma >= 0 keeps every average a falling tail into the past
            raise ConfigError(f"train.ema: {width} is no width of an average: 0 < width < 0.28")


def _check_embeddings(config: TrainConfig) -> None:
    data, model, makes = config.data, config.model, isinstance(config.network, MLPConfig)
    condition, latent, told = "none", None, None
    if model is not None:
        condition, latent, told = model.condition, model.latent, model.prior
    ranks = config.ranker is not None
    if (makes or told) and condition == "none":
        raise ConfigError("embeddings are made of a condition: set model.condition")
    if makes and (latent or told):
        raise ConfigError(
            "network.kind = 'mlp' makes embeddings: leave model.latent and model.prior to the "
            "network that makes pictures"
        )
    if bool(makes or told or ranks) != (data.embeddings is not None):
        raise ConfigError(
            "data.embeddings is for network.kind = 'mlp', which learns to make them, for [ranker], "
            "and for model.prior, which makes them for `generate`: give both or neither"
        )
    if data.embeddings is not None and data.flip:
        raise ConfigError("data.flip: a mirrored picture has another embedding: leave it out")
    if config.train.embedding_noise and not told:
        raise ConfigError("train.embedding_noise is for a model that is told embeddings: leave it")


def check(config: TrainConfig) -> None:
    """Raises ConfigError where keys contradict each other."""
    _positive(config)
    data, train, model = config.data, config.train, config.model
    if (config.network, config.autoencoder, config.decoder, config.ranker).count(None) != 3:
        raise ConfigError(
            "a run trains one thing: give one of [network], [autoencoder], [decoder], [ranker]"
        )
    if (config.network is None) != (model is None):
        raise ConfigError("[network] and [model] go together; nothing else has a [model]")
    if data.crop and (config.network is not None or data.crop > data.size):
        raise ConfigError(
            f"data.crop = {data.crop}: random squares are for autoencoders and at most data.size"
        )
    if not train.ema:
        raise ConfigError("train.ema is empty: name at least one width, such as 0.1")
    if len(set(train.ema)) != len(train.ema):
        raise ConfigError("train.ema names a width twice")
    if train.final_ema not in (None, *train.ema) and not train.snapshot_pictures:
        raise ConfigError(
            f"train.final_ema = {train.final_ema} is none of train.ema: making it afterwards needs "
            "snapshots: set train.snapshot_pictures"
        )
    _check_embeddings(config)
    if model is not None and model.latent is not None and not data.cache:
        raise ConfigError("a latent model learns from cached latents: leave data.cache = true")
    if train.perceptual_weight and (model is None or model.latent is None):
        raise ConfigError("train.perceptual_weight is for a latent model: leave it out")
    if train.decay == "inverse_sqrt" and not train.decay_pictures:
        raise ConfigError("train.decay = 'inverse_sqrt' needs train.decay_pictures above 0")
    if model is not None:
        for key, find in (("sampler", samplers.find), ("spacing", spacings.find)):
            try:
                find(getattr(model, key))
            except ValueError as error:
                raise ConfigError(f"model.{key}: {error}") from error
    if model is not None and model.guidance_interval is not None:
        low, high = model.guidance_interval
        if not 0 <= low < high <= 1:
            raise ConfigError(
                f"model.guidance_interval = {[low, high]}: two times, 0 <= low < high <= 1"
            )
    if model is not None and (model.schedule == "edm") != (model.prediction == "edm"):
        raise ConfigError("the edm prediction and the edm schedule go together (sigma_data = 0.5)")
    edge = data.crop or data.size
    if config.autoencoder is not None and edge % config.autoencoder.stride:
        raise ConfigError(
            f"pictures of {edge} pixels do not divide by the autoencoder's stride "
            f"{config.autoencoder.stride}: change data.{'crop' if data.crop else 'size'}"
        )


# --- writing and comparing --------------------------------------------------------------------


def flat(config: TrainConfig) -> dict[str, Any]:
    """Every key of the file with its value, ``table.key`` by dotted name."""
    found: dict[str, Any] = {"name": config.name, "seed": config.seed}
    for table in ("data", "network", "model", "autoencoder", "decoder", "ranker", "train"):
        part = getattr(config, table)
        if not is_dataclass(part):
            continue
        if table == "network" and config.network is not None:
            found["network.kind"] = kind_of(config.network)
        for entry in fields(part):
            value = getattr(part, entry.name)
            derived = table in ("network", "autoencoder") and entry.name in DERIVED
            if value is not None and not derived:
                found[f"{table}.{entry.name}"] = value
    return found


def to_toml(config: TrainConfig) -> str:
    """The configuration as a file that :func:`read_config` reads again, every key named."""
    lines: list[str] = []
    table = ""
    for key, value in flat(config).items():
        if "." in key and key.split(".")[0] != table:
            table = key.split(".")[0]
            lines += ["", f"[{table}]"]
        listed = list(value) if isinstance(value, tuple) else value
        lines.append(f"{key.split('.')[-1]} = {json.dumps(listed, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Keys that differ and may not, as ``key (old, now new)``."""
    before, after = flat(old), flat(new)
    return [
        f"{key} ({before.get(key)!r}, now {after.get(key)!r})"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
