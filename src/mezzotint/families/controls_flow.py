"""What controls a flow transformer: ControlNets of FLUX.1 and of Stable Diffusion 3 and 3.5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.source import Listing, read
from mezzotint.checkpoints.tables import control_flux, control_mmdit
from mezzotint.diffusion.level import Conditioning
from mezzotint.families import flow
from mezzotint.families.codec import ScaledCodec
from mezzotint.families.controls import filled, numbered, without_mode
from mezzotint.families.joined import hard
from mezzotint.families.model import Codec, ControlFile, ControlKind, ControlNet, Hint, Model
from mezzotint.families.precision import rounded, working
from mezzotint.networks.control_flux import ControlFlux, ControlFluxConfig
from mezzotint.networks.control_mmdit import ControlMMDiT, ControlMMDiTConfig
from mezzotint.networks.flux import Flux
from mezzotint.networks.mmdit import MMDiT

UNION = (
    ("canny",),
    ("tile",),
    ("depth",),
    ("blur",),
    ("pose",),
    ("gray", "grey", "luminance"),
    ("low-quality", "lq"),
)
"""The modes of InstantX' and Shakker's Union networks of FLUX.1, by number."""
STABILITY = (("blur",), ("canny",), ("depth",))
"""What Stability's networks of 3.5 large follow, by the number in their files."""
_CANNY = 1
_ZEROS = "force_zeros_for_pooled_projection"
USUAL_GUIDANCE = 3.5
"""What a control network that is told a scale is told beside a model that is told none: dev's."""


def _count(listing: Listing, name: str) -> int:
    pattern = re.compile(rf"{re.escape(name)}\.\d+\.weight")
    return sum(pattern.fullmatch(key) is not None for key in listing.tensors)


def _size(listing: Listing, name: str, axis: int, lacking: int = 0) -> int:
    """A size of a tensor; ``lacking`` where there is none such."""
    entry = listing.tensors.get(name)
    return lacking if entry is None or len(entry.shape) <= axis else entry.shape[axis]


def _paints(file: ControlFile, hinted: int, code: int, mask: int) -> bool:
    """Whether a network is told a mask beside the code of a picture, by its channels.

    Raises:
        CheckpointError: it is told something else.
    """
    if hinted not in (code, code + mask):
        raise CheckpointError(
            f"{file.path}: is told {hinted} channels of a picture: known are {code}, and "
            f"{code + mask} with a mask"
        )
    return hinted != code


def painted(codec: Codec, picture: Tensor, mask: Tensor) -> Tensor:
    """``(1, C + 1, H, W)``: the code of a picture that is black where something new is to be made,
    and a mask, 1 where nothing is (alimama-creative's networks for inpainting, 2024).

    Args:
        picture: ``(3, H, W)``.
        mask: ``(1, H, W)``, which the code takes at the corner of its pixels.
    """
    new = hard(mask)[None]
    code = codec.encode(torch.where(new == 1, -1.0, picture[None]))
    return torch.cat([code, 1 - F.interpolate(new, size=code.shape[2:])], dim=1)


# --- FLUX.1 -----------------------------------------------------------------------------------


def spread(made: Sequence[Tensor], depth: int, repeated: bool) -> tuple[Tensor | None, ...]:
    """The residuals of a few blocks for a network of more: each for the next few, as `diffusers`
    has it, or one after the other and again (XLabs)."""
    if not made:
        return (None,) * depth
    each = -(-depth // len(made))
    return tuple(made[n % len(made) if repeated else n // each] for n in range(depth))


def flux_sizes(network: Flux, listing: Listing) -> ControlFluxConfig:
    """What a control network beside a network of FLUX.1 is made of, by the names in its file."""
    told = ("time_text_embed.guidance_embedder.linear_1.weight", "guidance_in.in_layer.weight")
    blocks = replace(
        network.config,
        in_channels=network.config.out_channels,  # it sees what is denoised alone
        depth=_count(listing, "controlnet_blocks"),
        single=_count(listing, "controlnet_single_blocks"),
        guided=any(name in listing.tensors for name in told),
    )
    modes = _size(listing, "controlnet_mode_embedder.weight", 0)
    drawn = any(name.startswith("input_hint_block.") for name in listing.tensors)
    hinted = _size(listing, "controlnet_x_embedder.weight", 1, network.config.out_channels)
    return ControlFluxConfig(blocks, modes, drawn, hinted)


def _flux(model: Model, file: ControlFile) -> ControlNet:
    own = model.network
    assert isinstance(own, Flux)  # the families of this row have one
    config = flux_sizes(own, file.listing)
    theirs = "double_blocks.0.img_attn.qkv.weight" in file.listing.tensors
    table = control_flux.ORIGINAL if theirs else control_flux.DIFFUSERS
    number: int | None = None
    if config.modes:
        number = numbered(file, [*UNION, *[()] * config.modes][: config.modes])
    else:
        without_mode(file)
    paints = _paints(file, config.hinted, config.blocks.in_channels, 4)
    network = filled(model, file, lambda: ControlFlux(config), table)
    place = next(own.parameters()).device

    def hint(picture: Tensor) -> Hint:
        kind = working(network)
        if network.encoder is not None:
            code = network.encoder(picture[None].to(place, kind))
        else:
            code = model.codec.encode(picture[None].to(place)).to(kind)
        return (network.hint(flow.pack(code)),)

    def masked(picture: Tensor, mask: Tensor) -> Hint:
        code = painted(model.codec, picture.to(place), mask.to(place))
        return (network.hint(flow.pack(code.to(working(network)))),)

    def residuals(
        x: Tensor, time: Tensor, told: Conditioning, hint: Hint
    ) -> tuple[Tensor | None, ...]:
        assert told.vector is not None
        vector, scale = told.vector, told.vector.new_full((len(x),), USUAL_GUIDANCE)
        if own.config.guided:  # the scale is the vector's last entry, and is not rounded
            vector, scale = vector[:, :-1], vector[:, -1]
        given, same = rounded(network, x, Conditioning(vector, told.context))
        assert same.context is not None and same.vector is not None
        height, width = (edge // 2 for edge in x.shape[2:])
        ids = flow.positions(height, width, device=x.device).expand(len(x), -1, -1)
        joint, single = network(
            flow.pack(given),
            ids,
            time,
            same.context.values,
            same.vector,
            hint[0],
            scale if config.blocks.guided else None,
            None if number is None else torch.full((len(x),), number, device=x.device),
        )
        return (
            *spread(joint, own.config.depth, config.drawn),
            *spread(single, own.config.single, config.drawn),
        )

    told = (None, masked) if paints else (hint, None)
    return ControlNet(file.name, network, told[0], residuals, told[1])


# --- Stable Diffusion 3 -----------------------------------------------------------------------


def mmdit_sizes(network: MMDiT, listing: Listing) -> ControlMMDiTConfig:
    """What a control network beside one of SD3 is made of, by the names in its file."""
    sizes = network.config
    reads = "context_embedder.weight" in listing.tensors
    second = re.compile(r"transformer_blocks\.\d+\.attn2\.to_q\.weight")
    most = _size(listing, "pos_embed.pos_embed", 1, sizes.positions**2)
    blocks = replace(
        sizes,
        depth=_count(listing, "controlnet_blocks"),
        positions=int(most**0.5),
        normalized="transformer_blocks.0.attn.norm_q.weight" in listing.tensors,
        dual=sum(second.fullmatch(name) is not None for name in listing.tensors),
    )
    hinted = _size(listing, "pos_embed_input.proj.weight", 1, sizes.in_channels)
    return ControlMMDiTConfig(blocks, hinted, reads)


def _stability(file: ControlFile) -> int | None:
    """What a network of Stability's follows; None of others.

    Raises:
        CheckpointError: neither the file nor the request says it, or they contradict each other.
    """
    if "context_embedder.weight" in file.listing.tensors:
        without_mode(file)
        return None
    if control_mmdit.KIND not in file.listing.tensors:
        return numbered(file, STABILITY)
    value = read(file.path)[control_mmdit.KIND]
    numbers = range(len(STABILITY))
    if not isinstance(value, Tensor) or value.numel() != 1 or float(value) not in numbers:
        raise CheckpointError(f"{file.path}: its {control_mmdit.KIND} is none of 0, 1 and 2")
    said = int(value)
    asked = file.mode is not None or any(file.hint in names for names in STABILITY)
    if asked and numbered(file, STABILITY) != said:
        raise CheckpointError(
            f"{file.path}: follows {STABILITY[said][0]}, not {file.mode or file.hint}: give it that"
        )
    return said


def _blank(file: ControlFile, reads: bool) -> bool:
    """Whether it is told a code without offset, and zeros for the whole of the text.

    InstantX' were trained so, which only a folder's configuration tells; where nothing is said
    `diffusers` takes those that read the text so.

    Raises:
        CheckpointError: the configuration says neither yes nor no.
    """
    said = file.config.get(_ZEROS, reads)
    if not isinstance(said, bool):
        raise CheckpointError(f"{file.path}: {_ZEROS} is {shown(said)}: true or false")
    return said


def _mmdit(model: Model, file: ControlFile) -> ControlNet:
    own, codec, listing = model.network, model.codec, file.listing
    assert isinstance(own, MMDiT) and isinstance(codec, ScaledCodec)  # as these families have it
    config, number = mmdit_sizes(own, listing), _stability(file)
    paints = _paints(file, config.hinted, config.blocks.in_channels, 1)
    blank = paints or _blank(file, config.reads)
    if blank and not paints:
        codec = replace(codec, offset=0.0)
    original = "transformer_blocks.0.attn.qkv.weight" in listing.tensors
    table = control_mmdit.ORIGINAL if original else control_mmdit.DIFFUSERS
    first = ("stem.weight", "stem.bias", "positions")
    shared = () if "pos_embed.proj.weight" in listing.tensors else first
    network = filled(model, file, lambda: ControlMMDiT(config), table, shared=shared)
    place = next(own.parameters()).device

    def hint(picture: Tensor) -> Hint:
        media = picture[None].to(place)
        if number == _CANNY:  # as it was trained: white is 128, black 1/2
            media = (media / 2 + 0.5) * 127.5 + 0.5
        return (network.told(codec.encode(media).to(working(network))),)

    def masked(picture: Tensor, mask: Tensor) -> Hint:
        code = painted(codec, picture.to(place), mask.to(place))
        return (network.told(code.to(working(network))),)

    def residuals(
        x: Tensor, time: Tensor, told: Conditioning, hint: Hint
    ) -> tuple[Tensor | None, ...]:
        given, same = rounded(network, x, Conditioning(told.vector, told.context))
        assert same.context is not None and same.vector is not None
        vector = torch.zeros_like(same.vector) if blank else same.vector
        made = network(given, time, same.context.values, vector, hint[0])
        depth = own.config.depth
        each = depth / len(made)  # not a whole number, as `diffusers` has it
        return tuple(made[int(n / each)] for n in range(depth - 1))

    told = (None, masked) if paints else (hint, None)
    return ControlNet(file.name, network, told[0], residuals, told[1])


FLUX = (ControlKind("ControlNet", _flux),)
MMDIT = (ControlKind("ControlNet", _mmdit),)
