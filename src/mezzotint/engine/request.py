"""What a person asks for, as data: one request type for every task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mezzotint.adapters.image_prompt import ImageAdapter
from mezzotint.adapters.inversion import Embedding
from mezzotint.adapters.lora import Fitted
from mezzotint.adapters.strengths import Rule
from mezzotint.families.model import ControlNet, Model
from mezzotint.families.sizes import written
from mezzotint.provenance.keys import MarkKey


class RequestError(ValueError):
    """A request that cannot be carried out; the message is one line with the remedy."""


@dataclass(frozen=True)
class Start:
    """Image to image: begin at ``media (C, *spatial)`` noised, not at pure noise.

    strength: share of the path that is walked, in (0, 1]; 1 keeps nothing but the size.
    coded: the media is what is diffused already, such as the code of a picture.
    """

    media: Tensor
    strength: float
    coded: bool = False


@dataclass(frozen=True)
class Known:
    """Inpainting and outpainting: keep ``media (C, *spatial)`` where ``mask (1, *spatial)`` is 0.

    The mask is 1 where something new is to be made, and may be soft.  Where it is 0 the result
    has exactly the known values.

    around: work on the masked area alone, with so much around it, at the request's size, and put
        the result back; None works on the whole, which then is of that size.
    """

    media: Tensor
    mask: Tensor
    around: int | None = None


@dataclass(frozen=True)
class Guidance:
    """How strongly the prompt steers, and by which rules; they combine freely.

    scale: classifier-free guidance, 1 is off; None takes the model's default
    interval: ``(low, high)`` of the time t: guidance only there (Kynkäänniemi et al. 2024)
    rescale: share of the standard deviation taken back to the conditional's (Lin et al. 2023)
    apg: adaptive projected guidance instead of the plain rule (Sadat et al. 2024)
    cfg_zero_star: optimised unconditional scale and a zero first step (Fan et al. 2025)
    perturb, perturb_scale: blocks whose attention becomes the identity in a weaker self, and how
        far to move away from that self (perturbed-attention guidance, Ahn et al. 2024)
    skip, skip_scale: the same with whole blocks left out (skip-layer guidance)
    image: how strongly the reference steers, of a model that is guided by one, 1 is off; None
        takes the model's default (Brooks et al. 2023, eq. 3)
    """

    scale: float | None = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    apg: bool = False
    cfg_zero_star: bool = False
    perturb: frozenset[int] = frozenset()
    perturb_scale: float = 1.0
    skip: frozenset[int] = frozenset()
    skip_scale: float = 1.0
    image: float | None = None


class Attached(NamedTuple):
    """An adapter for the time of a request: its name, its deltas, and how strongly they act.

    rules: other strengths of some blocks (:mod:`mezzotint.adapters.strengths`).
    """

    name: str
    fitted: tuple[Fitted, ...]
    strength: float
    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.name, f"{self.strength:g}", *map(str, self.rules)])


class Control(NamedTuple):
    """A control network for the time of a request, and the picture ``(3, *spatial)`` it is told.

    picture: None for a network that is told the picture that is painted over, and where.
    begin, end: the share of the steps in which it acts.
    """

    network: ControlNet
    picture: Tensor | None
    strength: float = 1.0
    begin: float = 0.0
    end: float = 1.0

    def __str__(self) -> str:
        return f"{self.network.name}:{self.strength:g}:{self.begin:g}-{self.end:g}"

    def shown(self, change: Callable[[Tensor], Tensor]) -> Control:
        """This control with its picture changed, where it has one."""
        return self if self.picture is None else self._replace(picture=change(self.picture))

    def acts(self, step: int, steps: int) -> bool:
        """Whether it acts in a step, counted from 0."""
        return self.begin <= step / steps and (step + 1) / steps <= self.end


class Refiner(NamedTuple):
    """A model that goes on where another has come to: it walks the rest of the same path.

    begin: from which share of the times on, in (0, 1).
    """

    model: Model
    begin: float


class Enlarge(NamedTuple):
    """A second pass: what the first has made, enlarged, and drawn over as image to image.

    factor: of each side, in (1, 8]; strength: see :class:`Start`.
    coded: its code is enlarged, not the picture: softer, so it takes a strength of 0.5 or more.
    """

    factor: float
    strength: float = 0.35
    coded: bool = False


class Vary(NamedTuple):
    """A variation of what another seed makes: its noise, at the start and on the way, is led
    towards each seed's own.

    amount: how far, in [0, 1]: at 0 it is that seed's sample, about 0.1 is subtle and 0.4 strong.
    of: of what that seed's sample was a variation itself.
    """

    seed: int
    amount: float
    of: Vary | None = None

    @property
    def root(self) -> int:
        """The seed that all of them vary."""
        return self.seed if self.of is None else self.of.root

    def __str__(self) -> str:
        before = "" if self.of is None else f"{self.of},"
        return f"{before}{self.seed}:{self.amount:g}"


class ImagePrompt(NamedTuple):
    """A picture as a prompt, for the time of a request: its name, the tokens that were made of it
    and those of no picture, each ``(1, N, C)``, and how strongly it acts.

    adapter: by whose keys and values the tokens are attended to.  None: they are joined to those
        of the text; there are none of no picture then, and the strength lies in [0, 1].
    """

    name: str
    adapter: ImageAdapter | None
    tokens: Tensor
    negative: Tensor | None
    strength: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}:{self.strength:g}"


class Seen(NamedTuple):
    """A picture as the embedding ``(1, K)`` that the model's prior would make of its words
    (:class:`~mezzotint.families.model.Sight`), and its share, in [0, 1]."""

    name: str
    embedding: Tensor
    strength: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}:{self.strength:g}"


class Region(NamedTuple):
    """A prompt for a part of the picture.

    mask: ``(1, *spatial)``, 1 where it is told, 0 where not, between them both are.
    strength: the share that it takes there from the request's prompt, in (0, 1].
    """

    prompt: str
    mask: Tensor
    strength: float = 1.0


@dataclass(frozen=True)
class Request:
    """One prompt, one or more seeds: a sample a seed, whatever else is in the request.

    size is ``(height, width)`` of a picture, in general the spatial size; None values take the
    model's defaults.  adapters: all that the prompt asks for (``<lora:name:0.8>``), or more.
    reference: a picture ``(C, *spatial)`` for a model that is told of one: what it is to edit, or
        edges or depth that it follows.  adapters and reference are not the refiner's.
    controls: several add up.  They are not the refiner's.
        tiled: spatial axes (0 is the height) whose two ends fit together.
        enlarge: a second pass; a refiner has no part in it.
        embeddings: words of the prompts that have vectors of their own (textual inversion).
        image_prompts, seen: pictures beside the prompt; not the refiner's.
        regions: other prompts for parts of the picture; where no region is, the prompt is.
        mark: key of a watermark in the noise (:mod:`mezzotint.provenance.noise_mark`), where a
            sample begins at noise alone: in its start and in what the steps draw.  Of a start
            image, of the second pass of ``enlarge``, of what a refiner draws and of a prior's
            embedding the noise is left as it is.
    """

    prompt: str
    seeds: tuple[int, ...]
    negative: str = ""
    size: tuple[int, ...] | None = None
    steps: int | None = None
    guidance: Guidance = Guidance()
    sampler: str | None = None
    spacing: str | None = None
    start: Start | None = None
    known: Known | None = None
    adapters: tuple[Attached, ...] = ()
    reference: Tensor | None = None
    refiner: Refiner | None = None
    vary: Vary | None = None
    tiled: frozenset[int] = frozenset()
    enlarge: Enlarge | None = None
    controls: tuple[Control, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    image_prompts: tuple[ImagePrompt, ...] = ()
    seen: tuple[Seen, ...] = ()
    regions: tuple[Region, ...] = ()
    mark: MarkKey | None = None


class Progress(NamedTuple):
    """Told to a listener after every step; ``preview()`` shows what is believed now, perhaps small:
    see :class:`~mezzotint.families.model.Model`."""

    sample: int  # 0 … samples − 1
    samples: int
    step: int  # 1 … steps
    steps: int
    preview: Callable[[], Tensor]  # (C, *spatial) in [−1, 1]


MAX_STEPS = 10_000
MAX_FACTOR = 8
MAX_SCALE = 1_000_000  # of a guidance or a strength: far more than any that makes a picture
EMPTY_MASK = "the mask is black everywhere: make white what is to be drawn anew"
MAX_ELEMENTS = 1 << 26  # of the spatial size


def check_size(size: tuple[int, ...], multiple: int) -> None:
    """Raise RequestError for a size that no model, or not this one, can make."""
    if min(size) < 1 or math.prod(size) > MAX_ELEMENTS:
        raise RequestError(
            f"impossible size {written(size)}: give 1 or more on each side and at most "
            f"{MAX_ELEMENTS:,} pixels"
        )
    if any(edge % multiple for edge in size):
        near = tuple(max(multiple, round(edge / multiple) * multiple) for edge in size)
        raise RequestError(
            f"impossible size {written(size)}: this model needs multiples of {multiple}; "
            f"nearest {written(near)}"
        )


def check(request: Request, channels: int, multiple: int, size: tuple[int, ...]) -> None:
    """Raise RequestError for what no model, or not this one, can do."""
    check_size(size, multiple)
    if not request.seeds:
        raise RequestError("no seed: a request makes one sample a seed")
    if request.steps is not None and not 1 <= request.steps <= MAX_STEPS:
        raise RequestError(f"steps must lie in 1…{MAX_STEPS}, not {request.steps}")
    scale = request.guidance.scale
    if scale is not None and not 0 <= scale <= MAX_SCALE:
        raise RequestError(f"guidance must be a number of 0…{MAX_SCALE:,} (1 is off), not {scale}")
    if not 0 <= request.guidance.rescale <= 1:
        raise RequestError(f"rescale must lie in 0 to 1, not {request.guidance.rescale}")
    for worn in request.adapters:
        if not all(abs(far) <= MAX_SCALE for far in (worn.strength, *(r[1] for r in worn.rules))):
            raise RequestError(f"an adapter's strength must be a number, not as of {worn}")
    if request.refiner is not None and not 0 < request.refiner.begin < 1:
        raise RequestError(f"a refiner begins between 0 and 1, not at {request.refiner.begin}")
    if (wanted := request.enlarge) is not None:
        if not 1 < wanted.factor <= MAX_FACTOR:
            raise RequestError(
                f"enlarge by more than 1 and up to {MAX_FACTOR}, not {wanted.factor}"
            )
        if not 0 < wanted.strength <= 1:
            raise RequestError(f"strength must lie in (0, 1], not {wanted.strength}")
    varied = request.vary
    while varied is not None:
        if not 0 <= varied.amount <= 1:
            raise RequestError(f"a variation goes from 0 to 1, not {varied.amount}")
        varied = varied.of
    if not request.tiled <= set(range(len(size))):
        raise RequestError(f"no such axes to tile: {sorted(request.tiled)} of {len(size)}")
    for control in request.controls:
        if not 0 <= control.begin < control.end <= 1:
            raise RequestError(
                f"a control network acts from a share of the steps to a later one, "
                f"0 <= from < to <= 1, not {control.begin} to {control.end}"
            )
        if not abs(control.strength) <= MAX_SCALE:
            raise RequestError(f"a control's strength must be a number, not {control.strength}")
        _check_followed(control, request.known, size)
    for number, region in enumerate(request.regions, start=1):
        _check_media(f"the mask of region {number}", region.mask, 1, size)
    wish = request.guidance
    if wish.image is not None and not 0 <= wish.image <= MAX_SCALE:
        raise RequestError(f"the guidance by a picture must be 0 or more, not {wish.image}")
    low, high = wish.interval or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise RequestError(
            f"a guidance interval is two times, 0 <= low < high <= 1, not {low} and {high}"
        )
    for name, numbers, far in (
        ("perturb", wish.perturb, wish.perturb_scale),
        ("skip", wish.skip, wish.skip_scale),
    ):
        if numbers and not 0 < far <= MAX_SCALE:
            raise RequestError(f"the scale of {name} must be a number above 0, not {far}")
    if request.start is not None:
        if not 0 < request.start.strength <= 1:
            raise RequestError(f"strength must lie in (0, 1], not {request.start.strength}")
        if not request.start.coded:
            _check_media("the start image", request.start.media, channels, size)
    if request.known is not None:
        _check_media("the known image", request.known.media, channels, size)
        _check_media("the mask", request.known.mask, 1, size)
        if not bool((request.known.mask > 0).any()):
            raise RequestError(EMPTY_MASK)


def _check_followed(control: Control, known: Known | None, size: tuple[int, ...]) -> None:
    """Raise RequestError where a control network is not told what it follows."""
    name = control.network.name
    if control.picture is None:
        if control.network.masked is None:
            raise RequestError(f"{name} follows a picture: give one (--control FILE=PICTURE)")
        if known is None:
            raise RequestError(
                f"{name} is told what is painted over, and where: give --image and --mask, or a "
                "picture that it follows (--control FILE=PICTURE)"
            )
        return
    if control.network.hint is None:
        raise RequestError(
            f"{name} is told the picture that is painted over: give it no other (--control FILE)"
        )
    _check_media("the control's picture", control.picture, 3, size)


def check_coded(request: Request, shape: tuple[int, ...]) -> None:
    """Raise RequestError for a start that is coded in another shape than what is diffused."""
    start = request.start
    if start is not None and start.coded and tuple(start.media.shape) != shape:
        raise RequestError(
            f"the start's code has shape {tuple(start.media.shape)}, this request needs {shape}"
        )


def _check_media(what: str, media: Tensor, channels: int, size: tuple[int, ...]) -> None:
    if tuple(media.shape) != (channels, *size):
        raise RequestError(
            f"{what} has shape {tuple(media.shape)}, this request needs {(channels, *size)} "
            "(channels, height, width)"
        )
