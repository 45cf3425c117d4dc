"""The released networks at full size: what they are built from, and the lists of their tensors.

``data/releases.txt.xz`` holds the lists.  `diffusers` and `transformers` made those of the folders
from the releases' configurations; those of the original files are such that `diffusers`' own
converters of single files make exactly the folders' lists of them, and their counts are those of
the public files.  ``python tests/checkpoints/releases.py`` (with ``src`` on the path) writes it.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import single_file_utils as theirs
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from mezzotint.checkpoints.keys import Table, to_theirs
from mezzotint.checkpoints.tables import clip, flux, ldm_autoencoder, ldm_unet, mmdit, t5
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2
from mezzotint.families.sdxl import SDXL
from mezzotint.networks import clip as our_clip
from mezzotint.networks import t5 as our_t5
from mezzotint.networks.flux import Flux, FluxConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import LdmUNet
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig

DATA = Path(__file__).parent / "data" / "releases.txt.xz"
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A layout of a release.

    table: ours.  unused: tensors that it knows and does not need.
    convert: of original layouts, `diffusers`' converter to the folder's names, and its options.
    """

    table: Table
    unused: Shapes
    convert: Callable[[State, nn.Module], State] | None = None


@dataclass(frozen=True)
class Release:
    """ours, theirs: build the networks; layouts: by name, "folder" first."""

    ours: Callable[[], nn.Module]
    theirs: Callable[[], nn.Module]
    layouts: dict[str, Layout]


# --- their converters, in the other direction -------------------------------------------------


def _unet(state: State, built: nn.Module) -> State:
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
    return theirs.convert_ldm_unet_checkpoint(prefixed, built.config)


def _autoencoder(state: State, built: nn.Module) -> State:
    prefixed = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    return theirs.convert_ldm_vae_checkpoint(prefixed, built.config)


def _open_clip(prefix: str) -> Callable[[State, nn.Module], State]:
    def convert(state: State, built: nn.Module) -> State:
        prefixed = {prefix + name: tensor for name, tensor in state.items()}
        return theirs.convert_open_clip_checkpoint(built, prefixed, prefix=prefix)

    return convert


def _sd3(state: State, built: nn.Module) -> State:
    return theirs.convert_sd3_transformer_checkpoint_to_diffusers(dict(state))


def _flux(state: State, built: nn.Module) -> State:
    return theirs.convert_flux_transformer_checkpoint_to_diffusers(dict(state))


# --- the releases -----------------------------------------------------------------------------


def _of_unet(family: Any, **config: Any) -> Release:
    convolutions = family is SD1
    unet = family.unet
    return Release(
        lambda: LdmUNet(unet),
        lambda: UNet2DConditionModel(**config),
        {
            "folder": Layout(ldm_unet.diffusers(convolutions), {}),
            "file": Layout(ldm_unet.original(unet.depths, unet.blocks, convolutions), {}, _unet),
        },
    )


def _of_autoencoder(channels: int, mixed: bool) -> Release:
    return Release(
        lambda: LdmAutoencoder(LdmAutoencoderConfig(latent_channels=channels, mixed=mixed)),
        lambda: AutoencoderKL(
            latent_channels=channels,
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            use_quant_conv=mixed,
            use_post_quant_conv=mixed,
        ),
        {
            "folder": Layout(ldm_autoencoder.DIFFUSERS, {}),
            "file": Layout(ldm_autoencoder.original(4), {}, _autoencoder),
        },
    )


_POSITIONS: Shapes = {"text_model.embeddings.position_ids": (1, 77)}
_RESBLOCK: Shapes = {
    "ln_1.weight": (1024,),
    "ln_1.bias": (1024,),
    "attn.in_proj_weight": (3072, 1024),
    "attn.in_proj_bias": (3072,),
    "attn.out_proj.weight": (1024, 1024),
    "attn.out_proj.bias": (1024,),
    "ln_2.weight": (1024,),
    "ln_2.bias": (1024,),
    "mlp.c_fc.weight": (4096, 1024),
    "mlp.c_fc.bias": (4096,),
    "mlp.c_proj.weight": (1024, 4096),
    "mlp.c_proj.bias": (1024,),
}
_UNUSED_H: Shapes = {
    **{f"transformer.resblocks.23.{name}": shape for name, shape in _RESBLOCK.items()},
    "text_projection": (1024, 1024),
    "logit_scale": (),
}


def _of_clip(config: our_clip.ClipTextConfig, files: dict[str, Layout]) -> Release:
    kind = CLIPTextModelWithProjection if config.projection else CLIPTextModel
    folder = SD1.folder.tables["text"]
    return Release(
        lambda: our_clip.ClipText(config),
        lambda: kind(
            CLIPTextConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                projection_dim=config.projection or config.width,
            )
        ),
        {"folder": Layout(folder, {}), **files},
    )


def _of_sd3(config: MMDiTConfig) -> Release:
    return Release(
        lambda: MMDiT(config),
        lambda: SD3Transformer2DModel(
            sample_size=128,
            num_layers=config.depth,
            attention_head_dim=64,
            num_attention_heads=config.heads,
            joint_attention_dim=4096,
            caption_projection_dim=config.width,
            pooled_projection_dim=2048,
            pos_embed_max_size=config.positions,
            dual_attention_layers=tuple(range(config.dual)),
            qk_norm="rms_norm" if config.normalized else None,
        ),
        {
            "folder": Layout(mmdit.diffusers(config.depth), {}),
            "file": Layout(mmdit.original(), {}, _sd3),
        },
    )


def _of_flux(guided: bool) -> Release:
    return Release(
        lambda: Flux(FluxConfig(guided=guided)),
        lambda: FluxTransformer2DModel(out_channels=64, guidance_embeds=guided),
        {"folder": Layout(flux.DIFFUSERS, {}), "file": Layout(flux.ORIGINAL, {}, _flux)},
    )


_L = our_clip.ClipTextConfig(projection=0)
_SD2: dict[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
_SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
RELEASES: dict[str, Release] = {
    "sd1 U-Net": _of_unet(SD1, cross_attention_dim=768),
    "sd2 U-Net": _of_unet(SD2, **_SD2),
    "sdxl U-Net": _of_unet(SDXL, **_SDXL),
    "sd3 medium": _of_sd3(MMDiTConfig()),
    "sd3.5 medium": _of_sd3(MMDiTConfig(positions=384, normalized=True, dual=13)),
    "sd3.5 large": _of_sd3(MMDiTConfig(depth=38, heads=38, normalized=True)),
    "flux dev": _of_flux(True),
    "flux schnell": _of_flux(False),
    "autoencoder 4": _of_autoencoder(4, True),
    "autoencoder 16": _of_autoencoder(16, False),
    "CLIP-L": _of_clip(_L, {"file": Layout(SD1.file.tables["text"], _POSITIONS)}),
    "CLIP-L projected": _of_clip(replace(_L, projection=768), {}),
    "OpenCLIP-H": _of_clip(
        SD2.texts["text"].encoder,
        {"file": Layout(SD2.file.tables["text"], _UNUSED_H, _open_clip("cond_stage_model.model."))},
    ),
    "OpenCLIP-bigG": _of_clip(
        SDXL.texts["text2"].encoder,
        {
            "file": Layout(
                clip.TEXT_OPEN, {"logit_scale": ()}, _open_clip("conditioner.embedders.1.model.")
            )
        },
    ),
    "T5-XXL": Release(
        lambda: our_t5.T5Encoder(our_t5.T5Config()),
        lambda: T5EncoderModel(
            T5Config(
                vocab_size=32_128,
                d_model=4096,
                d_kv=64,
                d_ff=10_240,
                num_layers=24,
                num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        ),
        {"folder": Layout(t5.T5, {"encoder.embed_tokens.weight": (32_128, 4096)})},
    ),
}


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def shapes(state: dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def folder_names(state: State) -> State:
    """Older releases, all of these, have a prefix that `transformers` now leaves out."""
    if "final_layer_norm.weight" not in state or "embeddings.token_embedding.weight" not in state:
        return state
    bare = ("embeddings.", "encoder.", "final_layer_norm.")
    return {("text_model." if k.startswith(bare) else "") + k: v for k, v in state.items()}


# --- the lists as text ------------------------------------------------------------------------

Box = tuple[range, ...]


def _ranges(numbers: Iterable[int]) -> Iterator[range]:
    """Neighbours as ranges."""
    run: list[int] = []
    for number in sorted(numbers):
        if run and number != run[-1] + 1:
            yield range(run[0], run[-1] + 1)
            run = []
        run.append(number)
    if run:
        yield range(run[0], run[-1] + 1)


def _boxes(indices: set[tuple[int, ...]]) -> list[Box]:
    """Tuples of numbers as products of ranges."""
    if indices == {()}:
        return [()]
    rests: dict[int, frozenset[tuple[int, ...]]] = {}
    for first in {index[0] for index in indices}:
        rests[first] = frozenset(index[1:] for index in indices if index[0] == first)
    found: list[Box] = []
    for rest in sorted(set(rests.values()), key=sorted):
        alike = [first for first, other in rests.items() if other == rest]
        found += [(run, *box) for run in _ranges(alike) for box in _boxes(set(rest))]
    return found


def lines(listed: Shapes) -> Iterator[str]:
    """``name{0-3}.{1-2}.weight 320x4``, a line for tensors of one shape and equal names."""
    rows: dict[tuple[tuple[str, ...], tuple[int, ...]], set[tuple[int, ...]]] = {}
    for name, shape in listed.items():
        pieces = re.split(r"(?<=\.)(\d+)(?=\.)", name)
        index = tuple(map(int, pieces[1::2]))
        rows.setdefault((tuple(pieces[::2]), shape), set()).add(index)
    for (texts, shape), indices in rows.items():
        for box in _boxes(indices):
            shown = [f"{{{r[0]}-{r[-1]}}}" if len(r) > 1 else str(r[0]) for r in box]
            name = texts[0] + "".join(n + text for n, text in zip(shown, texts[1:], strict=True))
            yield f"{name} {'x'.join(map(str, shape)) or 'scalar'}"


def expand(line: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A line's tensors."""
    pattern, sizes = line.split()
    shape = () if sizes == "scalar" else tuple(map(int, sizes.split("x")))
    pieces = re.split(r"\{(\d+-\d+)\}", pattern)
    spans = [range(int(a), int(b) + 1) for a, b in (span.split("-") for span in pieces[1::2])]
    for numbers in product(*spans):
        pairs = zip(map(str, numbers), pieces[2::2], strict=True)
        yield pieces[0] + "".join(number + text for number, text in pairs), shape


def read() -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """The lists by "release: layout"; a name that stands there twice comes twice."""
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    current = ""
    for line in lzma.decompress(DATA.read_bytes()).decode().splitlines():
        if line.startswith("# "):
            continue
        if line.startswith("["):
            current = line.strip("[]")
            found[current] = []
        elif line:
            found[current] += expand(line)
    return found


def _write() -> None:
    text = ["# tensors of the releases, as tests/checkpoints/releases.py says"]
    for name, release in RELEASES.items():
        for place, layout in release.layouts.items():
            if place == "folder":
                listed = shapes(folder_names(on_meta(release.theirs).state_dict()))
            else:
                ours = on_meta(release.ours).state_dict()
                listed = {**shapes(to_theirs(ours, layout.table)), **layout.unused}
            text += ["", f"[{name}: {place}]", *lines(listed)]
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_bytes(lzma.compress(("\n".join(text) + "\n").encode()))


if __name__ == "__main__":
    _write()
