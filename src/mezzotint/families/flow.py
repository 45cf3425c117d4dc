"""The families of flow transformers: CLIP and T5 text encoders, MMDiT or Flux, an autoencoder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, build_unfilled
from mezzotint.checkpoints.layout import NOTHING, Beside, Layout
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.source import open_folder
from mezzotint.diffusion.level import Conditioning, Level, Tokens
from mezzotint.diffusion.prediction import ROWS, Parameterization, unit
from mezzotint.diffusion.schedules import RectifiedFlow, resolution_shift
from mezzotint.families import t5_tokens
from mezzotint.families.adapted import targets
from mezzotint.families.apart import apart
from mezzotint.families.clip_tokens import emphasized
from mezzotint.families.codec import AutoencoderConfig, ScaledCodec, coded
from mezzotint.families.ldm import (
    EMPTY,
    Joining,
    Text,
    clip_features,
    fill,
    one_by_one,
)
from mezzotint.families.linear import Linear
from mezzotint.families.model import (
    WHOLE,
    ControlKind,
    Defaults,
    Model,
    NetworkCall,
    Pictured,
    Pieces,
    Weaker,
)
from mezzotint.families.precision import rounded
from mezzotint.families.separate import T5, incomplete, lacking
from mezzotint.networks.clip import ClipText
from mezzotint.networks.flux import Flux, FluxConfig
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig
from mezzotint.networks.t5 import T5Config, T5Encoder
from mezzotint.networks.tiny_autoencoder import TinyAutoencoderConfig

_STEPS = 1000  # the time that these networks are told of pure noise
_PATCH = 2  # pixels of the code a side of a token


@dataclass(frozen=True)
class ByTokens:
    """A flow shift by the number of tokens: :func:`~mezzotint.diffusion.schedules
    .resolution_shift`."""

    base_tokens: int = 256
    max_tokens: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def at(self, tokens: int) -> float:
        return resolution_shift(
            tokens, self.base_tokens, self.max_tokens, self.base_shift, self.max_shift
        )


@dataclass(frozen=True)
class LongText:
    """The T5 encoder of a family.

    encoder: None where a checkpoint lacks it: zeros stand for its features.
    length: tokens, always so many; the network attends to the padding too.
    tokenizer: its folder in a folder of `diffusers`.
    optional: a checkpoint may lack it.
    """

    encoder: T5Config | None
    length: int
    tokenizer: str
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """What checkpoints of one family have in common.

    texts: its CLIP encoders by the part's name; what is pooled of them is joined to the vector.
    joined: their features are joined too, and stand before T5's, filled up with zeros.
    identity: those of them whose projection a single file leaves out, because it changes nothing.
    shift: of the flow's time, one number or by the picture's size.
    scale, offset: ``(mean − offset) * scale`` of the code is diffused.
    file, folder: the layouts of a single file and of a folder of `diffusers`.
    notes, controls: see :class:`~mezzotint.families.model.Model`.
    pictured: how `inspect` calls what makes tokens of pictures beside those of the text; empty:
        there is nothing that does.
    joining, title, linear, tiny: see :class:`~mezzotint.families.ldm.Family`.
    """

    name: str
    network: MMDiTConfig | FluxConfig
    autoencoder: AutoencoderConfig
    texts: Mapping[str, Text]
    t5: LongText
    joined: bool
    shift: float | ByTokens
    scale: float
    offset: float
    defaults: Defaults
    file: Layout
    folder: Layout
    identity: tuple[str, ...] = ()
    prediction: str = "flow"
    notes: tuple[str, ...] = ()
    joining: Joining | None = None
    title: str = ""
    controls: tuple[ControlKind, ...] = ()
    pictured: str = ""
    linear: Linear | None = None
    tiny: TinyAutoencoderConfig | None = None


# --- what the network is told -----------------------------------------------------------------


def _weighted(
    family: Family,
    encoders: Mapping[str, ClipText],
    t5: T5Encoder | None,
    tokenizer: Tokenizer,
) -> Callable[[Pieces], Conditioning]:
    """The features of all tokens of a prompt, CLIP's before T5's, and those of the whole.

    A prompt too long for a chunk of CLIP's has several; the whole is told by the first.
    """
    long, width = family.t5, family.network.context_width

    def read(t5: T5Encoder, ids: Tensor) -> Tensor:
        return t5(ids.to(next(t5.parameters()).device)).float()

    def tell(pieces: Pieces) -> Conditioning:
        hidden, pooled = clip_features(family.texts, encoders, pieces)
        ids, weights = t5_tokens.row(pieces, long.length, tokenizer)
        if t5 is None:
            features = hidden[0].new_zeros(1, long.length, width)
        else:
            features = read(t5, ids)
            if bool((weights != 1).any()):
                none, _ = t5_tokens.row(EMPTY, long.length, tokenizer)
                features = emphasized(features, weights.to(features), read(t5, none))
        if family.joined:
            short = torch.cat(hidden, dim=2)
            features = torch.cat([F.pad(short, (0, width - short.shape[2])), features], dim=1)
        return Conditioning(vector=torch.cat(pooled, dim=1), context=Tokens(features))

    return tell


# --- the networks behind one signature --------------------------------------------------------


def _unmasked(call: NetworkCall) -> NetworkCall:
    """A network without masks and without attention to perturb."""

    def whole(
        x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE
    ) -> Tensor:
        if weaker.perturb:
            raise ValueError("this network has no attention to perturb: leave blocks out (skip)")
        return call(x, time, conditioning, weaker)

    return apart(whole)


def _told(x: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor, Tensor]:
    """The input with the channels joined to it, the tokens of the text, the vector."""
    context, vector, concat = conditioning.context, conditioning.vector, conditioning.concat
    assert context is not None and vector is not None
    return x if concat is None else torch.cat([x, concat], dim=1), context.values, vector


def _mmdit(network: MMDiT) -> NetworkCall:
    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        given, told = rounded(network, x, conditioning)
        given, context, vector = _told(given, told)
        return network(given, time, context, vector, told.residuals, weaker.skip).to(x.dtype)

    return call


def pack(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to tokens ``(B, H/2 · W/2, 4 C)``, each a square of 2×2 pixels."""
    square = x.unflatten(3, (-1, _PATCH)).unflatten(2, (-1, _PATCH))  # (B, C, h, 2, w, 2)
    return square.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`pack`, for ``height`` by ``width`` tokens."""
    square = tokens.unflatten(2, (-1, _PATCH, _PATCH)).unflatten(1, (height, width))
    return square.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def positions(
    height: int, width: int, number: int = 0, device: torch.device | None = None
) -> Tensor:
    """``(1, height · width, 3)``: of each token the picture's number (the text's ids are all 0,
    and so is the number of what is made), its row and its column."""
    edges = (torch.arange(edge, device=device) for edge in (height, width))
    rows, columns = torch.meshgrid(*edges, indexing="ij")
    return torch.stack([torch.full_like(rows, number), rows, columns], dim=-1).flatten(0, 1)[None]


def _flux(network: Flux) -> NetworkCall:
    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        guidance = None
        if network.config.guided:  # the scale is the vector's last entry, and is not rounded
            assert conditioning.vector is not None
            guidance = conditioning.vector[:, -1]
            conditioning = conditioning._replace(vector=conditioning.vector[:, :-1])
        given, told = rounded(network, x, conditioning)
        given, context, vector = _told(given, told)
        height, width = (edge // _PATCH for edge in x.shape[2:])
        ids = positions(height, width, device=x.device).expand(len(x), -1, -1)
        residuals, skip = told.residuals, weaker.skip
        tokens, own = pack(given), ids.shape[1]
        if told.tokens is not None:  # of another picture, behind those of this one
            assert told.tokens.ids is not None
            tokens = torch.cat([tokens, told.tokens.values], dim=1)
            ids = torch.cat([ids, told.tokens.ids], dim=1)
        made = network(tokens, ids, time, context, vector, guidance, residuals, skip)
        return unpack(made[:, :own], height, width).to(x.dtype)

    return call


# --- the schedule -----------------------------------------------------------------------------


def _time(level: Level) -> Tensor:
    """What the networks are told: the noise ``sigma`` of the flow, counted to 1000."""
    return level.sigma * _STEPS


def _schedule(family: Family) -> Callable[[Sequence[int]], RectifiedFlow]:
    """The schedule of a picture of a size."""
    shift, edge = family.shift, family.autoencoder.stride * _PATCH

    def at(size: Sequence[int]) -> RectifiedFlow:
        if isinstance(shift, ByTokens):
            return RectifiedFlow(shift.at(math.prod(side // edge for side in size)))
        return RectifiedFlow(shift)

    return at


_ONLY: dict[str, Any] = {
    "num_train_timesteps": _STEPS,
    "prediction_type": "flow_prediction",
    "invert_sigmas": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}
"""What a scheduler may say in one way only."""


def scheduled(family: Family, config: Mapping[str, Any], where: str) -> Family:
    """The family as a ``scheduler_config.json`` of `diffusers` has it: how the flow is shifted.
    Keys that it lacks are the family's own.

    Raises:
        CheckpointError: it says something that is not known, or a number is none.
    """
    for key, only in _ONLY.items():
        if (said := config.get(key)) is not None and said != only:
            raise CheckpointError(f"{where}: {key} is {shown(said)}; known is {only!r}")

    def number(key: str, default: float) -> float:
        value = default if config.get(key) is None else config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise CheckpointError(f"{where}: {key} is {shown(value)}: no number above 0")
        return value

    own = family.shift
    dynamic = config.get("use_dynamic_shifting", isinstance(own, ByTokens))
    if not isinstance(dynamic, bool):
        raise CheckpointError(f"{where}: use_dynamic_shifting is {shown(dynamic)}: true or false")
    if not dynamic:
        return replace(family, shift=number("shift", own if not isinstance(own, ByTokens) else 1.0))
    base = own if isinstance(own, ByTokens) else ByTokens()
    tokens = int(number("base_image_seq_len", base.base_tokens))
    most = int(number("max_image_seq_len", base.max_tokens))
    if most <= tokens:
        raise CheckpointError(f"{where}: max_image_seq_len is {most}: not above {tokens}")
    low, high = number("base_shift", base.base_shift), number("max_shift", base.max_shift)
    defaults = family.defaults
    if defaults.spacing == "linspace_sigma":  # a shift by the size is not applied twice
        defaults = replace(defaults, spacing="linspace")
    shift = ByTokens(tokens, most, low, high)
    return replace(family, shift=shift, defaults=defaults)


# --- from a checkpoint ------------------------------------------------------------------------


def build(family: Family, tokenizer: Tokenizer | None = None) -> Model:
    """A model of a family with fresh weights.

    tokenizer: of T5, if it is not the package's.
    """
    sizes = family.network
    network = MMDiT(sizes) if isinstance(sizes, MMDiTConfig) else Flux(sizes)
    call = _mmdit(network) if isinstance(network, MMDiT) else _flux(network)
    encoders = {name: ClipText(text.encoder) for name, text in family.texts.items()}
    t5 = None if family.t5.encoder is None else T5Encoder(family.t5.encoder)
    codec, preview, pictures = coded(
        family.autoencoder,
        family.tiny,
        family.linear,
        lambda autoencoder: ScaledCodec(autoencoder, family.scale, family.offset, _PATCH),
    )
    schedule = _schedule(family)
    weighted = _weighted(family, encoders, t5, tokenizer or t5_tokens.tokenizer())
    parts: dict[str, nn.Module] = {"network": network, **encoders}
    parts |= ({} if t5 is None else {T5: t5}) | pictures
    return Model(
        name=family.name,
        network=network,
        call=_unmasked(call),
        parameterization=Parameterization(ROWS[family.prediction], unit, _time),
        schedule=schedule(family.defaults.size),
        codec=codec,
        conditioner=one_by_one(weighted),
        defaults=family.defaults,
        parts=parts,
        shifted=schedule if isinstance(family.shift, ByTokens) else None,
        distilled=isinstance(sizes, FluxConfig) and sizes.guided,
        weighted=weighted,
        targets=partial(targets, parts, family.file, family.folder),
        notes=family.notes,
        joined=None if family.joining is None else family.joining(codec),
        controls=family.controls,
        pictured=Pictured(family.pictured, sizes.context_width) if family.pictured else None,
        preview=preview,
    )


def _without_t5(family: Family) -> Family:
    def less(layout: Layout) -> Layout:
        places = {part: place for part, place in layout.places.items() if part != T5}
        return replace(layout, places=places)

    note = "there is no T5 text encoder in this checkpoint: zeros stand for what it would say"
    return replace(
        family,
        t5=replace(family.t5, encoder=None),
        file=less(family.file),
        folder=less(family.folder),
        notes=(*family.notes, note),
    )


def _tokenizer(
    family: Family, path: Path, beside: Mapping[str, Beside]
) -> tuple[Family, Tokenizer]:
    """The family with the T5 encoder that a folder has, if it has it, and its tokenizer."""
    folder, place = open_folder(path), family.folder.places[T5]
    if place not in folder.networks and T5 not in beside:
        if not family.t5.optional or place in folder.lacking:
            raise CheckpointError(
                f"{path}: has no {place}, the T5 text encoder: fetch it again, or give --part "
                f"{T5}=FILE"
            )
        if (path / place).exists():
            raise CheckpointError(
                f"{path}: has a {place} that its model_index.json does not name: name it there, "
                "or take it away"
            )
        return _without_t5(family), t5_tokens.tokenizer()
    assert family.t5.encoder is not None
    words = family.t5.encoder.vocabulary
    return family, t5_tokens.tokenizer_in(path / family.t5.tokenizer, words)


def present(
    family: Family, path: Path, beside: Mapping[str, Beside] = NOTHING
) -> tuple[Family, Tokenizer]:
    """The family with the encoders that a checkpoint has, and the tokenizer of T5.

    Args:
        beside: parts in files of their own.

    Raises:
        CheckpointError: it lacks a part that it needs, or its tokenizer is of another kind.
    """
    tokenizer = t5_tokens.tokenizer()
    if path.is_dir():
        family, tokenizer = _tokenizer(family, path, beside)
    missing = lacking(family, path, beside)
    if missing == [T5] and family.t5.optional:
        family = _without_t5(family)
    elif missing:
        raise incomplete(family, path, missing)
    return family, tokenizer


def unprojected(family: Family, parts: Collection[str]) -> Family:
    """The family without the projections of some text encoders, where they change nothing."""
    texts = {
        name: replace(text, encoder=replace(text.encoder, projection=0))
        for name, text in family.texts.items()
        if name in family.identity and name in parts
    }
    return replace(family, texts={**family.texts, **texts})


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
        room, beside, narrow: see :func:`mezzotint.families.ldm.fill`.

    Raises:
        CheckpointError: it is damaged, or a part is missing, or a tensor is missing, unknown or of
            another shape.
    """
    path = Path(path)
    found, tokenizer = present(family, path, beside)
    found = unprojected(found, beside if path.is_dir() else found.identity)
    model = build_unfilled(lambda: build(found, tokenizer))
    return fill(model, path, found.file, found.folder, kind, room, beside, narrow)
