"""What a loaded model is to the engine: a network and the data that gives it meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor, nn

from mezzotint.adapters.image_prompt import Attended, Ports
from mezzotint.adapters.inversion import Embedding
from mezzotint.adapters.lora import Target
from mezzotint.checkpoints.source import Listing
from mezzotint.diffusion.level import Conditioning, Denoiser
from mezzotint.diffusion.prediction import Parameterization, denoiser
from mezzotint.diffusion.schedules import Schedule
from mezzotint.families.sizes import Aspect, sized


class Codec(Protocol):
    """Media ↔ what is diffused.  Media are float32 in [−1, 1], ``(B, channels, *spatial)``."""

    @property
    def channels(self) -> int:
        """Channels of the media: 1 grey, 3 RGB, 4 RGBA (premultiplied)."""
        ...

    @property
    def multiple(self) -> int:
        """Every media size must be a multiple of this."""
        ...

    @property
    def units(self) -> tuple[float, ...]:
        """The numbers that a code is multiplied and moved by, if it is: those of other models
        have other codes."""
        ...

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """The shape (without batch) of ``x0`` for media of a spatial size."""
        ...

    def encode(self, media: Tensor) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...


Conditioner = Callable[[Sequence[str]], Conditioning]
"""Prompts → conditioning, one sample a prompt; ``""`` is the unconditional."""

Pieces = Sequence[Sequence[tuple[str, float]]]
"""A prompt as texts with weights, in parts that an encoder of short texts reads apart."""


@dataclass(frozen=True)
class Defaults:
    """What a request takes when it does not say: data of the family.

    interval: ``(low, high)`` of the time t at which guidance is; None is at every t.
    sizes: all that it was trained on, from the tallest to the widest, where these are known; not
        taken unless a request asks for an aspect (:mod:`mezzotint.families.sizes`).
    """

    size: tuple[int, ...]  # (height, width) of a picture
    steps: int
    guidance: float
    sampler: str
    spacing: str
    interval: tuple[float, float] | None = None
    sizes: tuple[tuple[int, int], ...] = ()


class Weaker(NamedTuple):
    """What a network does without, to be a weaker self to be guided away from.

    perturb: attention layers in which every token attends to itself alone; skip: blocks left out.
    """

    perturb: frozenset[int] = frozenset()
    skip: frozenset[int] = frozenset()


WHOLE = Weaker()


class Ranker(NamedTuple):
    """What a prior chooses by: ``score(embeddings (B, K), told)`` → ``(B,)``, more is better.

    candidates: how many embeddings are made for the one that is taken.
    """

    candidates: int
    score: Callable[[Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class Joined:
    """Pictures that a network is told of beside what it denoises.

    tell: ``(picture (1, C, *spatial) in [−1, 1], mask (1, 1, *spatial))`` → the slots that they
        fill, ``concat`` or ``tokens``.
    masked: it is told the picture that is painted over, and where (the mask is 1); without any,
        all of it is new.  Else it is told a reference, and everywhere the mask is 1.
    optional: it does without a reference; free_size: which may have a size of its own.
    guidance: the usual scale of a guidance by the reference; None: there is no such guidance.
    """

    tell: Callable[[Tensor, Tensor], Conditioning]
    masked: bool = False
    optional: bool = False
    free_size: bool = False
    guidance: float | None = None


class Words(NamedTuple):
    """How a model takes words that have vectors of their own (textual inversion).

    widths: of the vectors of its text encoders, by the names that files of embeddings give these.
    told: what it is told of a prompt with weights, where these embeddings are known.
    """

    widths: Mapping[str, int]
    told: Callable[[Sequence[Embedding]], Callable[[Pieces], Conditioning]]


class NetworkCall(Protocol):
    """The network behind one signature."""

    def __call__(
        self, x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = ...
    ) -> Tensor: ...


class Banked(NamedTuple):
    """How a model takes image prompts (IP-Adapter).

    ports: its cross-attentions; call: its network where these prompts are attended to.
    """

    ports: Ports
    call: Callable[[Sequence[Attended]], NetworkCall]


class Pictured(NamedTuple):
    """How a model is told pictures by tokens that stand behind those of its text.

    said: how `inspect` begins to call the files that make them; width: of the tokens.
    """

    said: str
    width: int


class Sight(NamedTuple):
    """How a model with a prior is told pictures.

    embed: a picture → ``(1, K)``, the embedding that the prior would make of its words.
    words: what the model is told beside pictures where the prompt is empty: it never learnt from an
        embedding without words.
    """

    embed: Callable[[Image.Image], Tensor]
    words: str


Hint = tuple[Tensor, ...]
"""What a control network makes of its picture, once for all steps."""


@dataclass(frozen=True)
class ControlNet:
    """A control network that fits a model.

    network: its module.
    hint: what it is told of a picture ``(3, H, W)`` in [−1, 1]; None: it follows none of its own.
    masked: what it is told of the picture that is painted over, and of the mask ``(1, H, W)``, 1
        where something new is to be made; None: it is not for that.
    residuals: ``(x, time, told, hint)`` → one a residual port of the model's network, None where
        it adds nothing.
    """

    name: str
    network: nn.Module
    hint: Callable[[Tensor], Hint] | None
    residuals: Callable[[Tensor, Tensor, Conditioning, Hint], tuple[Tensor | None, ...]]
    masked: Callable[[Tensor, Tensor], Hint] | None = None


class ControlFile(NamedTuple):
    """A control network's file: what it is recognised as, and what a folder says of it.

    mode: of those pictures that it is to be told, where it knows several kinds; hint: the name of
        what made the picture.
    """

    name: str
    path: Path
    kind: str
    listing: Listing
    config: Mapping[str, Any]
    mode: str | None
    hint: str | None


class ControlKind(NamedTuple):
    """A kind of control networks that a family takes: how `inspect` begins to call their files."""

    said: str
    read: Callable[[Model, ControlFile], ControlNet]


@dataclass(frozen=True)
class Model:
    """A family's network, loaded, with its prediction row, schedule, codec and text side.

    parts: all its modules by name, to be filled, moved and freed.
    framing: what it is told of the media's size, ``(1, K)``, joined to the vector of the prompt;
        framing_negative: to that of the negative prompt; None: the same.
    prior: a model that first makes an embedding of the same prompt; it is told to this one as
        the last entries of the vector, zeros where the prompt is empty.
    ranker: of a prior, how it chooses among several embeddings of a prompt; none makes one.
    shifted: the schedule of media of a size, where it depends on the size; ``schedule`` is then
        that of the default size.
    distilled: guidance was distilled into the network: it is told the scale, as the last entry
        of the vector, and no negative prompt is evaluated.
    weighted: what it is told of one prompt with weights; None: its prompts are plain text.
    targets: the places of its weights by the names that adapters give them.
    notes: what a person should know of this checkpoint, a sentence each.
    joined: the pictures that it is told of; None: it is told of none.
    words: how it takes embeddings of words; None: it takes none.
    banked, pictured, sight: how it takes image prompts; None: it does not in this way.
    controls: the kinds of control networks that it takes.
    preview: ``x0`` to media ``(B, channels, *spatial)`` that show it quickly, roughly in [−1, 1],
        perhaps smaller than it decodes; None: it is decoded, for that is quick.
    """

    name: str
    network: nn.Module
    call: NetworkCall
    parameterization: Parameterization
    schedule: Schedule
    codec: Codec
    conditioner: Conditioner
    defaults: Defaults
    parts: dict[str, nn.Module]
    prior: Model | None = None
    framing: Callable[[Sequence[int]], Tensor] | None = None
    ranker: Ranker | None = None
    shifted: Callable[[Sequence[int]], Schedule] | None = None
    distilled: bool = False
    weighted: Callable[[Pieces], Conditioning] | None = None
    targets: Callable[[], Mapping[str, Target]] | None = None
    notes: tuple[str, ...] = ()
    joined: Joined | None = None
    framing_negative: Callable[[Sequence[int]], Tensor] | None = None
    words: Words | None = None
    banked: Banked | None = None
    pictured: Pictured | None = None
    sight: Sight | None = None
    controls: tuple[ControlKind, ...] = ()
    preview: Callable[[Tensor], Tensor] | None = None

    def schedule_of(self, size: Sequence[int]) -> Schedule:
        """The schedule of media of a spatial size."""
        return self.schedule if self.shifted is None else self.shifted(size)

    def show(self, x0: Tensor) -> Tensor:
        """What a sample ``x0 (1, …)`` looks like, ``(C, *spatial)`` in [−1, 1] on the CPU."""
        media = (self.preview or self.codec.decode)(x0)
        return media[0].clamp(-1, 1).cpu()

    def size_of(self, aspect: Aspect) -> tuple[int, int]:
        """The size ``(height, width)`` of an aspect: see :func:`mezzotint.families.sizes.sized`."""
        defaults = self.defaults
        return sized(aspect, defaults.size, defaults.sizes, self.codec.multiple)

    def denoise(self, weaker: Weaker = WHOLE) -> Denoiser:
        """This model as a denoiser, or its weaker self."""

        def network(x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
            return self.call(x, time, conditioning, weaker)

        return denoiser(network, self.parameterization)
