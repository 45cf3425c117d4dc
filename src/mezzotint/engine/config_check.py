"""What a configuration may not be, where the types of its keys cannot say it."""

from __future__ import annotations

from collections.abc import Callable

from mezzotint.diffusion import samplers, spacings
from mezzotint.engine.config import ConfigError, ModelConfig, StepsConfig, TrainConfig, flat
from mezzotint.networks.mlp import MLPConfig

_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "it must be above 0",
        lambda x: x > 0,
        (
            "data.size",
            "ranker.hidden",
            "ranker.candidates",
            "train.pictures",
            "train.batch",
            "train.learning_rate",
            "train.log_steps",
            "train.level_std",
        ),
    ),
    (
        "it must not be below 0",
        lambda x: x >= 0,
        (
            "data.crop",
            "decoder.blocks",
            "decoder.noise",
            "train.perceptual_weight",
            "train.micro_batch",
            "train.warmup_pictures",
            "train.decay_pictures",
            "train.weight_decay",
            "train.clip",
            "train.kl_weight",
            "train.edge_weight",
            "train.checkpoint_minutes",
            "train.snapshot_pictures",
            "train.sample_pictures",
        ),
    ),
    ("it must lie in [0, 1)", lambda x: 0 <= x < 1, ("ranker.dropout",)),
    ("a share of 0 to 1", lambda x: 0 <= x < 1, ("train.embedding_noise",)),
    ("a share of 0 to 1", lambda x: 0 <= x <= 1, ("train.drop_condition",)),
    ("a time, 0 < t <= 1", lambda x: 0 < x <= 1, ("train.perceptual_time",)),
)
"""What numbers must be, by the keys of the file."""


def _check_ranges(config: TrainConfig) -> None:
    given = flat(config)
    for what, allowed, keys in _RANGES:
        for key in keys:
            if key in given and not allowed(given[key]):
                raise ConfigError(f"{key} = {given[key]}: {what}")
    betas = config.train.betas
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"train.betas = {list(betas)}: both must lie in [0, 1)")


def _check_averages(train: StepsConfig) -> None:
    for width in (*train.ema, *(() if train.final_ema is None else (train.final_ema,))):
        if not 0 < width < 0.28:  # gamma >= 0 keeps every average a falling tail into the past
            raise ConfigError(f"train.ema: {width} is no width of an average: 0 < width < 0.28")
    if not train.ema:
        raise ConfigError("train.ema is empty: name at least one width, such as 0.1")
    if len(set(train.ema)) != len(train.ema):
        raise ConfigError("train.ema names a width twice")
    if train.final_ema not in (None, *train.ema) and not train.snapshot_pictures:
        raise ConfigError(
            f"train.final_ema = {train.final_ema} is none of train.ema: making it afterwards needs "
            "snapshots: set train.snapshot_pictures"
        )


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


def _check_model(model: ModelConfig) -> None:
    for key, find in (("sampler", samplers.find), ("spacing", spacings.find)):
        try:
            find(getattr(model, key))
        except ValueError as error:
            raise ConfigError(f"model.{key}: {error}") from error
    low, high = model.guidance_interval or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise ConfigError(
            f"model.guidance_interval = {[low, high]}: two times, 0 <= low < high <= 1"
        )
    if (model.schedule == "edm") != (model.prediction == "edm"):
        raise ConfigError("the edm prediction and the edm schedule go together (sigma_data = 0.5)")


def check(config: TrainConfig) -> None:
    """Raises ConfigError where keys contradict each other."""
    _check_ranges(config)
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
    _check_averages(train)
    _check_embeddings(config)
    if model is not None:
        _check_model(model)
    latent = model is not None and model.latent is not None
    if latent and not data.cache:
        raise ConfigError("a latent model learns from cached latents: leave data.cache = true")
    if train.perceptual_weight and not latent:
        raise ConfigError("train.perceptual_weight is for a latent model: leave it out")
    if train.decay == "inverse_sqrt" and not train.decay_pictures:
        raise ConfigError("train.decay = 'inverse_sqrt' needs train.decay_pictures above 0")
    edge = data.crop or data.size
    if config.autoencoder is not None and edge % config.autoencoder.stride:
        raise ConfigError(
            f"pictures of {edge} pixels do not divide by the autoencoder's stride "
            f"{config.autoencoder.stride}: change data.{'crop' if data.crop else 'size'}"
        )
