"""Mezzotint's own models: what `train` makes, each one safetensors file that says what it is.

The file's metadata holds one JSON document, :class:`NativeConfig`; nothing else is needed to
build the model.  A text-conditioned model reads prompts through the text encoder in the package.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load, load_into, save
from mezzotint.checkpoints.rows import unpack
from mezzotint.diffusion import schedules
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.diffusion.prediction import ROWS, Parameterization, preconditioned, unit
from mezzotint.families.model import (
    WHOLE,
    Codec,
    Conditioner,
    Defaults,
    Model,
    NetworkCall,
    Ranker,
    Weaker,
)
from mezzotint.families.sight import sight_for
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig
from mezzotint.networks.dit import DiT, DiTConfig
from mezzotint.networks.dual_encoder import DualEncoder, DualEncoderConfig
from mezzotint.networks.mlp import MLP, MLPConfig
from mezzotint.networks.unet import UNet, UNetConfig

FORMAT = 1
KEY = "mezzotint"
EMBEDDINGS = "embeddings"
"""The note of a model with a prior: the hash of the embeddings that it was trained on."""
CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}
NetworkConfig = DiTConfig | UNetConfig | MLPConfig
Network = DiT | UNet | MLP
NETWORKS: dict[str, tuple[type[NetworkConfig], type[Network]]] = {
    "dit": (DiTConfig, DiT),
    "unet": (UNetConfig, UNet),
    "mlp": (MLPConfig, MLP),
}
"""The networks that a native model may have, by their kind in files and configurations: "mlp"
makes embeddings of pictures, the others pictures."""
SCHEDULES: dict[str, schedules.Schedule] = {
    "flow": schedules.RectifiedFlow(),
    "cosine": schedules.Cosine(),
    "linear": schedules.linear_beta(),
    "edm": schedules.VarianceExploding(),
}


@dataclass(frozen=True)
class LatentConfig:
    """The autoencoder of a latent model, and the statistics that scale its latents to unit size."""

    autoencoder: AutoencoderConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class RankerConfig:
    """The dual encoder by which a prior takes the best of so many ``candidates`` (Ramesh et al.
    2022, §2.2, who make two)."""

    network: DualEncoderConfig
    candidates: int


@dataclass(frozen=True)
class NativeConfig:
    """All that a native model file says of itself.

    condition: "none", "class" (``classes`` names them) or "text" (MiniLM tokens and pooled).
    prediction: a row of :data:`mezzotint.diffusion.prediction.ROWS`; schedule: of SCHEDULES.
    prior: the model that makes, of the same prompt, the picture's embedding, which this model is
        told beside the prompt (unCLIP, Ramesh et al. 2022); its network is an MLP.
    ranker: of a prior, how it chooses among several embeddings.
    """

    name: str
    network: NetworkConfig
    channels: Literal["grey", "rgb", "rgba"]
    condition: Literal["none", "class", "text"]
    prediction: str
    schedule: str
    defaults: Defaults
    classes: tuple[str, ...] = ()
    latent: LatentConfig | None = None
    prior: NativeConfig | None = None
    ranker: RankerConfig | None = None
    notes: dict[str, str] = field(default_factory=dict)  # licence, trained pictures, …

    def __post_init__(self) -> None:
        prior = self.prior
        if self.ranker is not None and not isinstance(self.network, MLPConfig):
            raise ValueError("a ranker is for embeddings: its model's network is an MLP")
        if prior is None:
            return
        if (prior.condition, prior.classes) != (self.condition, self.classes):
            raise ValueError("the prior is told other prompts than its model")
        if prior.condition == "none" or prior.prior is not None:
            raise ValueError("a prior is told a class or a text, and has no prior of its own")


# --- the file's JSON document -----------------------------------------------------------------


def kind_of(network: NetworkConfig) -> str:
    """The row of NETWORKS that a network's configuration belongs to."""
    return next(name for name, (kind, _) in NETWORKS.items() if isinstance(network, kind))


def to_json(config: NativeConfig) -> str:
    kind = kind_of(config.network)
    return json.dumps({"format": FORMAT, "network": kind, "config": asdict(config)})


def _tuples(value: Any) -> Any:
    """JSON knows lists only; the frozen configurations hold tuples."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def from_json(text: str) -> NativeConfig:
    """Raises CheckpointError for a document that this version cannot read."""
    document = json.loads(text)
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"the model file has format {document.get('format')}, this version reads {FORMAT}: "
            "update mezzotint"
        )
    try:
        return _config(document["network"], _tuples(document["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the model file's description is damaged: {error}") from error


def _config(kind: str, values: dict[str, Any]) -> NativeConfig:
    network = NETWORKS[kind][0](**values.pop("network"))
    defaults = Defaults(**values.pop("defaults"))
    latent, prior, ranker = (values.pop(name, None) for name in ("latent", "prior", "ranker"))
    if latent is not None:
        latent["autoencoder"] = AutoencoderConfig(**latent["autoencoder"])
        latent = LatentConfig(**latent)
    if prior is not None:
        prior = _config("mlp", prior)
    if ranker is not None:
        ranker = RankerConfig(DualEncoderConfig(**ranker["network"]), ranker["candidates"])
    return NativeConfig(
        network=network, defaults=defaults, latent=latent, prior=prior, ranker=ranker, **values
    )


# --- its parts --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelCodec:
    """Pictures are diffused as they are."""

    channels: int
    multiple: int = 1
    units: tuple[float, ...] = ()

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *size)

    def encode(self, media: Tensor) -> Tensor:
        return media

    def decode(self, x0: Tensor) -> Tensor:
        return x0


@dataclass(frozen=True)
class LatentCodec:
    """Pictures are diffused as the scaled latent means of an autoencoder."""

    autoencoder: Autoencoder
    mean: Tensor  # (C, 1, 1)
    std: Tensor
    channels: int
    multiple: int

    @property
    def units(self) -> tuple[float, ...]:
        return (*self.mean.flatten().tolist(), *self.std.flatten().tolist())

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (len(self.mean), *[edge // self.multiple for edge in size])

    def encode(self, media: Tensor) -> Tensor:
        mean, _ = self.autoencoder.encode(media)
        return (mean - self.mean.to(mean)) / self.std.to(mean)

    def _code(self, x0: Tensor) -> Tensor:
        return x0 * self.std.to(x0) + self.mean.to(x0)

    def decode(self, x0: Tensor) -> Tensor:
        return self.autoencoder.decode(self._code(x0))

    def features(self, x0: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes of ``x0`` on its way to a picture."""
        return self.autoencoder.features(self._code(x0))


@dataclass(frozen=True)
class EmbeddingCodec:
    """What is diffused is a picture's embedding: a vector, which is no medium to be shown."""

    width: int
    channels: int = 0
    multiple: int = 1
    units: tuple[float, ...] = ()

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.width,)

    def encode(self, media: Tensor) -> Tensor:
        return media

    def decode(self, x0: Tensor) -> Tensor:
        return x0


def _parameterization(config: NativeConfig) -> Parameterization:
    schedule = SCHEDULES[config.schedule]
    if config.schedule != "edm":
        return Parameterization(ROWS[config.prediction], unit, schedule.time)
    return preconditioned(ROWS[config.prediction], 0.5)


def _call(network: Network) -> NetworkCall:
    """The network behind the engine's one signature; picks the slots that this network reads."""

    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        tokens = conditioning.tokens or Tokens(None)  # type: ignore[arg-type]
        given, weak = (conditioning.vector, tokens.values, tokens.mask), weaker._asdict()
        if isinstance(network, MLP):
            if weaker.perturb:
                raise ValueError("an MLP has no attention to perturb: leave perturb out")
            return network(x, time, conditioning.vector, weaker.skip)
        if isinstance(network, DiT):
            return network(x, time, *given, tokens.ids, **weak)
        return network(x, time, *given, residuals=conditioning.residuals, **weak)

    return call


def _ranker(candidates: int, network: DualEncoder) -> Ranker:
    def score(embeddings: Tensor, told: Conditioning) -> Tensor:
        assert told.vector is not None  # a prior is told a class or a text
        return network(embeddings, told.vector[:1])[:, 0]

    return Ranker(candidates, score)


def class_conditioner(classes: Sequence[str]) -> Conditioner:
    """A prompt is a class's name; its one-hot is the pooled vector, zeros the unconditional."""
    rows = {name: number for number, name in enumerate(classes)}

    def condition(prompts: Sequence[str]) -> Conditioning:
        vector = torch.zeros(len(prompts), len(classes))
        for number, prompt in enumerate(prompts):
            if prompt == "":
                continue
            if prompt not in rows:
                near = difflib.get_close_matches(prompt, rows, n=3) or list(rows)[:5]
                raise ValueError(
                    f"this model knows classes, and {prompt!r} is none of them; nearest: "
                    + ", ".join(near)
                )
            vector[number, rows[prompt]] = 1
        return Conditioning(vector=vector)

    return condition


def _no_conditioner(prompts: Sequence[str]) -> Conditioning:
    if any(prompts):
        raise ValueError('this model is unconditional: leave the prompt empty ("")')
    return Conditioning()


def _text_conditioner() -> Conditioner:
    from mezzotint.families.text import load_text_encoder  # its weights load only when used

    encoder = load_text_encoder()

    def condition(prompts: Sequence[str]) -> Conditioning:
        values, mask = encoder.tokens(prompts)
        return Conditioning(vector=encoder.pooled(prompts), tokens=Tokens(values, mask))

    return condition


def _conditioner(config: NativeConfig) -> Conditioner:
    if config.condition == "text":
        return _text_conditioner()
    if config.condition == "class":
        return class_conditioner(config.classes)
    return _no_conditioner


# --- build, load, save ------------------------------------------------------------------------


def build(config: NativeConfig, conditioner: Conditioner | None = None) -> Model:
    """A model with fresh weights.

    Args:
        conditioner: what it and its prior are told prompts by; None makes the one that it needs.

    Raises:
        ValueError: an unknown prediction or schedule, or a network that cannot be built.
    """
    for name, known in ((config.prediction, ROWS), (config.schedule, SCHEDULES)):
        if name not in known:
            raise ValueError(f"unknown {name!r}: choose one of {', '.join(known)}")
    conditioner = conditioner or _conditioner(config)
    make = NETWORKS[kind_of(config.network)][1]
    network = make(config.network)  # type: ignore[arg-type]  # the row pairs them
    codec: Codec = PixelCodec(CHANNELS[config.channels])
    if config.latent is not None:
        codec = _latent_codec(config.latent, CHANNELS[config.channels])
    if isinstance(config.network, MLPConfig):
        codec = EmbeddingCodec(config.network.in_channels)
    prior = None if config.prior is None else build(config.prior, conditioner)
    parts: dict[str, nn.Module] = {"network": network}
    if isinstance(codec, LatentCodec):
        parts["autoencoder"] = codec.autoencoder
    if prior is not None:
        parts["prior"] = prior.network
        parts |= {name: part for name, part in prior.parts.items() if name == "ranker"}
    ranker = None
    if config.ranker is not None:
        parts["ranker"] = dual_encoder = DualEncoder(config.ranker.network)
        ranker = _ranker(config.ranker.candidates, dual_encoder)
    return Model(
        name=config.name,
        network=network,
        call=_call(network),
        parameterization=_parameterization(config),
        schedule=SCHEDULES[config.schedule],
        codec=codec,
        conditioner=conditioner,
        defaults=config.defaults,
        parts=parts,
        prior=prior,
        ranker=ranker,
    )


def _latent_codec(config: LatentConfig, channels: int) -> LatentCodec:
    autoencoder = Autoencoder(config.autoencoder).eval().requires_grad_(False)
    shape = (-1,) + (1,) * config.autoencoder.dims
    return LatentCodec(
        autoencoder,
        torch.tensor(config.mean).view(shape),
        torch.tensor(config.std).view(shape),
        channels,
        config.autoencoder.stride,
    )


def save_model(path: Path, config: NativeConfig, tensors: dict[str, Tensor]) -> None:
    """Write a model file, atomically; ``tensors`` named by the model's parts, ``network.…`` etc."""
    save(path, tensors, {KEY: to_json(config)})


def load_model(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Model, NativeConfig]:
    """A native model from its file, on the CPU, in evaluation mode; int8 rows are unpacked.

    Raises:
        CheckpointError: the file is damaged, is not ours, or does not fit its own description.
    """
    state, metadata = load(path)
    if KEY not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a Mezzotint model: `mezzotint inspect` says what"
        )
    config = from_json(metadata[KEY])
    model = build_unfilled(lambda: build(config))
    parts = nn.ModuleDict(model.parts)
    weights = {name: tensor.to(dtype) for name, tensor in unpack(state).items()}
    load_into(parts, weights, str(path), assign=True)
    parts.eval().requires_grad_(False)
    if model.prior is not None:
        model = replace(model, sight=sight_for(config.notes.get(EMBEDDINGS)))
    return model, config
