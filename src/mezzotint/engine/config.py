"""What a training run is: frozen dataclasses, the tables of a small TOML file.

What the data decide (the network's channels and the widths of its conditioning) is not written
down at all.  ``config_file`` reads and writes the file, ``config_check`` says what cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from mezzotint.families.model import Defaults
from mezzotint.families.native import NetworkConfig, kind_of
from mezzotint.networks.autoencoder import AutoencoderConfig


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
        A U-Net may have fewer blocks there: those added begin as the identity.
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
            size=(size, size),
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            spacing=self.spacing,
            interval=self.guidance_interval,
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
    precision: "bf16" (autocast; weights stay float32) or "fp32"; "auto": bf16 where the machine is
        faster at it, measured at the start of a run, which goes on in what it began with.
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
    precision: Literal["auto", "bf16", "fp32"] = "auto"
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


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Keys that differ and may not, as ``key (old, now new)``."""
    before, after = flat(old), flat(new)
    return [
        f"{key} ({before.get(key)!r}, now {after.get(key)!r})"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key) and key not in MAY_CHANGE
    ]
