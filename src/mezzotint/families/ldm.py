"""The families of latent diffusion: CLIP text encoders, a U-Net on a code, an autoencoder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.adapters.image_prompt import Attended, Ports, attend
from mezzotint.adapters.inversion import Embedding
from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load_into
from mezzotint.checkpoints.layout import NOTHING, Beside, Layout, read_parts
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.marks import EDM
from mezzotint.checkpoints.streamed import Scratch, give
from mezzotint.checkpoints.tables import image_prompt
from mezzotint.diffusion.guidance import cat_conditioning
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.diffusion.prediction import ROWS, Parameterization, preconditioned, unit
from mezzotint.diffusion.schedules import (
    Table,
    VarianceExploding,
    from_betas,
    linear_beta,
    scaled_linear_beta,
    zero_terminal_snr,
)
from mezzotint.families import bands
from mezzotint.families.adapted import targets
from mezzotint.families.apart import apart
from mezzotint.families.clip_tokens import END, chunks, emphasized
from mezzotint.families.exploding import exploding, is_edm
from mezzotint.families.model import (
    WHOLE,
    Banked,
    Conditioner,
    ControlKind,
    Defaults,
    Joined,
    Model,
    NetworkCall,
    Pieces,
    Weaker,
    Words,
)
from mezzotint.families.precision import rounded, stored
from mezzotint.families.separate import incomplete, lacking
from mezzotint.networks.clip import ClipText, ClipTextConfig, Encoded
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import LdmUNet, LdmUNetConfig, embed_time


@dataclass(frozen=True)
class Text:
    """A text encoder, and what the U-Net is told of it.

    pad: the token that fills up a prompt: OpenAI's encoder learnt with its end, OpenCLIP's with 0.
    skip: layers at its end whose features are not used; without its last norm, if so.
    pooled: whether the features of the whole are told too, in the vector.
    called: what files of embeddings for several encoders call it.
    """

    encoder: ClipTextConfig
    pad: int = END
    skip: int = 0
    pooled: bool = False
    called: str = "clip_l"


@dataclass(frozen=True)
class Family:
    """What checkpoints of one family have in common.

    texts: its text encoders by the part's name; their features are joined.
    prediction: a row of :data:`mezzotint.diffusion.prediction.ROWS`; schedule: the table of steps
        that the network was trained on, and is told; or EDM's noise, with EDM's inputs.
    scale: the code is multiplied by it before diffusion; mean, std: after it was normed by these,
        of each of its channels, if there are any.
    framed: the vector tells the picture's size too (:func:`framing`), and an empty prompt is zeros.
    scores: or it tells the size and how good the picture looks, from 0 to 10: by a prompt and by
        a negative one; an empty prompt is what the encoder makes of it.
    file, folder: the layouts of a single file and of a folder of `diffusers`.
    joining: the pictures that its U-Net is told of, if any (:mod:`mezzotint.families.joined`).
    title: of a variant that has another family's tensors, as `checkpoints.marks` names it; no
        checkpoint is taken for it that does not say so.
    notes, controls: see :class:`~mezzotint.families.model.Model`.
    """

    name: str
    unet: LdmUNetConfig
    autoencoder: LdmAutoencoderConfig
    texts: Mapping[str, Text]
    prediction: str
    schedule: Table | VarianceExploding
    scale: float
    defaults: Defaults
    file: Layout
    folder: Layout
    framed: bool = False
    scores: tuple[float, float] | None = None
    joining: Joining | None = None
    title: str = ""
    notes: tuple[str, ...] = ()
    controls: tuple[ControlKind, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class ScaledCodec:
    """Pictures are diffused as the means of an autoencoder's code, ``(mean − offset) * scale``.

    scale, offset: one number, or one a channel, ``(C, 1, 1)``.
    patch: pixels of the code a side of what the network takes as one token.
    """

    autoencoder: LdmAutoencoder
    scale: float | Tensor
    offset: float | Tensor = 0.0
    patch: int = 1

    @property
    def channels(self) -> int:
        return self.autoencoder.config.channels

    @property
    def multiple(self) -> int:
        return self.autoencoder.config.stride * self.patch

    @property
    def units(self) -> tuple[float, ...]:
        numbers = torch.as_tensor(self.scale), torch.as_tensor(self.offset)
        return tuple(n for each in numbers for n in each.flatten().tolist())

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        stride = self.autoencoder.config.stride
        return (self.autoencoder.config.latent_channels, *(edge // stride for edge in size))

    def banded(self, size: Sequence[int]) -> bool:
        """Whether media of a size are coded in bands (:mod:`mezzotint.families.bands`)."""
        return math.prod(size) > bands.AREA

    def encode(self, media: Tensor) -> Tensor:
        if self.banded(media.shape[2:]):
            code = bands.encode(self.autoencoder, media)
        else:
            code = self.autoencoder.encode(media)[0]
        return (code - _on(self.offset, code)) * _on(self.scale, code)

    def decode(self, x0: Tensor) -> Tensor:
        code = x0 / _on(self.scale, x0) + _on(self.offset, x0)
        stride = self.autoencoder.config.stride
        if self.banded([edge * stride for edge in x0.shape[2:]]):
            return bands.decode(self.autoencoder, code)
        return self.autoencoder.decode(code)


def _on(value: float | Tensor, code: Tensor) -> float | Tensor:
    return value.to(code.device) if isinstance(value, Tensor) else value


def _codec(family: Family, autoencoder: LdmAutoencoder) -> ScaledCodec:
    if not family.std:
        return ScaledCodec(autoencoder, family.scale)
    mean, std = (torch.tensor(row)[:, None, None] for row in (family.mean, family.std))
    return ScaledCodec(autoencoder, family.scale / std, mean)


def _parameterization(family: Family) -> Parameterization:
    row, schedule = ROWS[family.prediction], family.schedule
    if isinstance(schedule, Table):
        return Parameterization(row, unit, schedule.index)
    return preconditioned(row, EDM[family.prediction]["sigma_data"])


Joining = Callable[[ScaledCodec], Joined]
"""Of a family: from the codec to the pictures that its network is told of."""


def framing(size: Sequence[int], score: float | None = None) -> Tensor:
    """What SDXL is told of a picture's size: ``(1, 1536)`` (Podell et al. 2023, §2.2).

    Height and width that the picture had, where it was cropped (not at all), and that it has.

    score: its refiner is told an aesthetic score instead of the last two: ``(1, 1280)``.
    """
    last = size if score is None else [score]
    numbers = torch.tensor([*size, 0, 0, *last], dtype=torch.float32)
    return embed_time(numbers, 256).flatten()[None]


EMPTY: Pieces = [[("", 1.0)]]
"""The empty prompt."""


def _looked_up(
    encoder: ClipText, ids: Tensor, embeddings: Sequence[Embedding], called: str
) -> Tensor | None:
    """The vectors of tokens where some have vectors of their own; None where none has."""
    own = ids > END
    if not bool(own.any()):
        return None
    rows = torch.cat([embedding.vectors[called] for embedding in embeddings])
    words = encoder.words(ids.clamp_max(END))
    words[own] = rows.to(words)[ids[own] - END - 1]
    return words


def clip_features(
    texts: Mapping[str, Text],
    encoders: Mapping[str, ClipText],
    pieces: Pieces,
    embeddings: Sequence[Embedding] = (),
) -> tuple[list[Tensor], list[Tensor]]:
    """``(1, 77 n, C)`` of each encoder, of all tokens with their weights; and ``(1, K)`` of each
    that tells of the whole, of the first chunk and without weights."""

    def read(encoder: ClipText, text: Text, pieces: Pieces) -> tuple[Encoded, Tensor]:
        ids, weights = chunks(pieces, text.pad, embeddings)
        ids = ids.to(next(encoder.parameters()).device)
        words = _looked_up(encoder, ids, embeddings, text.called)
        return encoder(ids, text.skip, not text.skip, words), weights

    hidden: list[Tensor] = []
    pooled: list[Tensor] = []
    for name, text in texts.items():
        found, weights = read(encoders[name], text, pieces)
        values = found.hidden.float()
        if bool((weights != 1).any()):
            empty, _ = read(encoders[name], text, EMPTY)
            values = emphasized(values, weights.to(values), empty.hidden.float())
        hidden.append(values.flatten(0, 1)[None])
        pooled += [found.pooled[:1].float()] if text.pooled else []
    return hidden, pooled


def one_by_one(weighted: Callable[[Pieces], Conditioning]) -> Conditioner:
    """What a family is told of several prompts, as one batch."""

    def condition(prompts: Sequence[str]) -> Conditioning:
        return reduce(cat_conditioning, [weighted([[(prompt, 1.0)]]) for prompt in prompts])

    return condition


def _weighted(
    texts: Mapping[str, Text],
    encoders: Mapping[str, ClipText],
    zeros: bool,
    embeddings: Sequence[Embedding] = (),
) -> Callable[[Pieces], Conditioning]:
    """The features of all tokens of a prompt; one that is too long for a chunk has several.

    zeros: an empty prompt is told as zeros.
    """

    def tell(pieces: Pieces) -> Conditioning:
        hidden, pooled = clip_features(texts, encoders, pieces, embeddings)
        values = torch.cat(hidden, dim=2)
        vector = torch.cat(pooled, dim=1) if pooled else None
        if zeros and all(text == "" for part in pieces for text, _ in part):
            values, vector = values * 0, None if vector is None else vector * 0
        return Conditioning(vector=vector, context=Tokens(values))

    return tell


def _call(network: LdmUNet, prompts: Sequence[Attended] = ()) -> NetworkCall:
    """The U-Net behind the engine's one signature.

    prompts: pictures whose tokens stand first of the context.
    """

    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        guidance = None
        if network.config.guided:  # the scale is the vector's last entry, and is not rounded
            assert conditioning.vector is not None
            vector, guidance = conditioning.vector[:, :-1], conditioning.vector[:, -1]
            conditioning = conditioning._replace(vector=vector if vector.shape[1] else None)
        given, told = rounded(network, x, conditioning)
        assert told.context is not None
        if told.concat is not None:
            given = torch.cat([given, told.concat], dim=1)
        context, banks = attend(prompts, told.context.values)
        residuals, features = None, None
        if told.residuals is not None:
            kept = len(network.ports)
            residuals, features = told.residuals[:kept], told.residuals[kept:]
        perturb, skip = weaker
        output = network(
            given, time, context, told.vector, residuals, banks, perturb, skip, guidance, features
        )
        return output.to(x.dtype)

    return apart(call)


def _ports(config: LdmUNetConfig) -> Ports:
    """Where image prompts act on a U-Net."""
    places = config.attended()
    table = image_prompt.banks(*map(len, places))
    return Ports(sum(places, ()), config.context_width, table)


_MOST_STEPS = 100_000  # of a noise schedule; honest ones have 1,000
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_BETAS: dict[str, Callable[[float, float, int], Table]] = {
    "linear": linear_beta,
    "scaled_linear": scaled_linear_beta,
}


def _betas(values: object) -> list[float]:
    """Betas as a file gives them.

    Raises:
        ValueError: they are no list of numbers in (0, 1].
    """
    if not isinstance(values, list) or not 0 < len(values) <= _MOST_STEPS:
        raise ValueError("betas are a list of numbers")
    for value in values:
        if type(value) not in (int, float) or not 0 < value <= 1:
            raise ValueError(f"{shown(value)} is no beta, which lie in (0, 1]")
    return values


def scheduled(family: Family, config: Mapping[str, Any], where: str) -> Family:
    """The family as a ``scheduler_config.json`` of `diffusers` has it: what was predicted, on
    which noise schedule.  Keys that it lacks are the family's own.

    Raises:
        CheckpointError: it names a prediction or a schedule that is not known.
    """

    def get(key: str, default: Any) -> Any:
        return default if config.get(key) is None else config[key]

    def known(key: str, rows: Mapping[str, Any]) -> Any:
        if not isinstance(config[key], str) or config[key] not in rows:
            names = ", ".join(rows)
            raise CheckpointError(f"{where}: {key} is {shown(config[key])}; known are {names}")
        return rows[config[key]]

    if is_edm(config):
        prediction, schedule = exploding(config, where)
        return replace(family, prediction=prediction, schedule=schedule)
    prediction, schedule = family.prediction, family.schedule
    if "prediction_type" in config:
        prediction = known("prediction_type", _PREDICTIONS)
    make = known("beta_schedule", _BETAS) if "beta_schedule" in config else None
    steps = get("num_train_timesteps", 1000)
    if type(steps) is not int or not 0 < steps <= _MOST_STEPS:
        raise CheckpointError(f"{where}: num_train_timesteps is {shown(steps)}: no number of steps")
    try:
        if get("trained_betas", None) is not None:
            schedule = from_betas(_betas(config["trained_betas"]))
        elif make is not None:
            ends = _betas([get("beta_start", 1e-4), get("beta_end", 0.02)])
            schedule = make(*ends, steps)
        if get("rescale_betas_zero_snr", False) and isinstance(schedule, Table):
            schedule = zero_terminal_snr(schedule)
        if isinstance(schedule, Table) and not bool(schedule.alphas_cumprod.isfinite().all()):
            raise ValueError("it has no noise")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{where}: its noise schedule is malformed: {reason}") from None
    return replace(family, prediction=prediction, schedule=schedule)


def build(family: Family) -> Model:
    """A model of a family with fresh weights."""
    network = LdmUNet(family.unet)
    encoders = {name: ClipText(text.encoder) for name, text in family.texts.items()}
    autoencoder = LdmAutoencoder(family.autoencoder)
    weighted = partial(_weighted, family.texts, encoders, family.framed)
    widths = {text.called: text.encoder.width for text in family.texts.values()}
    codec = _codec(family, autoencoder)
    parts = {"network": network, **encoders, "autoencoder": autoencoder}
    good, bad = family.scores or (None, None)
    framed = family.framed or family.scores is not None
    return Model(
        name=family.name,
        network=network,
        call=_call(network),
        parameterization=_parameterization(family),
        schedule=family.schedule,
        codec=codec,
        conditioner=one_by_one(weighted()),
        defaults=family.defaults,
        parts=parts,
        framing=partial(framing, score=good) if framed else None,
        framing_negative=None if bad is None else partial(framing, score=bad),
        weighted=weighted(),
        words=Words(widths, weighted),
        banked=Banked(_ports(family.unet), partial(_call, network)),
        targets=partial(targets, parts, family.file, family.folder),
        joined=None if family.joining is None else family.joining(codec),
        distilled=family.unet.guided,
        notes=family.notes,
        controls=family.controls,
    )


def fill(
    model: Model,
    path: str | os.PathLike[str],
    file: Layout,
    folder: Layout,
    kind: torch.dtype = torch.float32,
    room: Mapping[str, int] | None = None,
    beside: Mapping[str, Beside] = NOTHING,
    narrow: bool = False,
) -> Model:
    """The model with the weights of a checkpoint, in a precision.

    Quantized matrices stay packed (:mod:`mezzotint.checkpoints.streamed`).

    Args:
        room: bytes for the matrices of a part that stay in memory; the others are read each time
            that they are used.  All of a part that it lacks stay.
        beside: parts in files of their own.
        narrow: what stays does so as the file has it, where that is narrower than the precision.

    Raises:
        CheckpointError: as :func:`load`.
    """
    wanted, scratch = {name: part.state_dict() for name, part in model.parts.items()}, Scratch()
    for name, state in read_parts(path, file, folder, wanted, beside).items():
        own = beside[name].path if name in beside else path
        part, where = model.parts[name], f"{own}: {name}"
        kinds = partial(stored, part, kind=kind)
        weights = give(part, state, kinds, where, (room or {}).get(name), narrow, scratch)
        load_into(part, weights, where, assign=True)
        part.eval().requires_grad_(False)
    return model


def load(
    family: Family,
    path: str | os.PathLike[str],
    kind: torch.dtype = torch.float32,
    room: Mapping[str, int] | None = None,
    beside: Mapping[str, Beside] = NOTHING,
    narrow: bool = False,
) -> Model:
    """A model from a checkpoint of its family, a file or a folder, in a precision.

    Args:
        room, beside, narrow: see :func:`fill`.

    Raises:
        CheckpointError: it is damaged, or a part or a tensor is missing, or a tensor is unknown,
            of another shape or has numbers that are not finite.
    """
    if missing := lacking(family, Path(path), beside):
        raise incomplete(family, Path(path), missing)
    model = build_unfilled(lambda: build(family))
    return fill(model, path, family.file, family.folder, kind, room, beside, narrow)
