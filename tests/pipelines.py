"""Pipelines of `diffusers` with small random networks, to be stored, read and equalled."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from mezzotint.checkpoints.tables import ldm_autoencoder, ldm_unet, mmdit
from mezzotint.checkpoints.tables.clip import text_open_without
from mezzotint.families import t5_tokens
from mezzotint.families.clip_tokens import tokenizer
from mezzotint.families.flow import Family as FlowFamily
from mezzotint.families.flux1 import FLUX_DEV, FLUX_SCHNELL
from mezzotint.families.ldm import Family
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2_BASE
from mezzotint.families.sd3 import SD3, SD35_LARGE, SD35_MEDIUM
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.mmdit import MMDiTConfig
from mezzotint.networks.t5 import T5Config as OurT5Config

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline
FlowPipeline = StableDiffusion3Pipeline | FluxPipeline


def _text_config(width: int, openclip: bool) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=49_408,
        eos_token_id=49_407,
        projection_dim=8,
        hidden_act="gelu" if openclip else "quick_gelu",
    )


@lru_cache
def _tokenizer(openclip: bool) -> CLIPTokenizer:
    own = tokenizer()
    merges = [tuple(pair) for pair in json.loads(own.to_str())["model"]["merges"]]
    pad = "!" if openclip else "<|endoftext|>"
    return CLIPTokenizer(vocab=own.get_vocab(), merges=merges, model_max_length=77, pad_token=pad)


def _autoencoder(scale: float, **more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        scaling_factor=scale,
        **more,
    )


def _unet(attends: tuple[bool, bool], width: int, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        cross_attention_dim=width,
        **more,
    )


_MATRICES = {"attention_head_dim": (4, 8), "use_linear_projection": True}  # numbers of heads, sic


def _scheduler(**noise: object) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="trailing",
        **{"beta_schedule": "scaled_linear", **noise},
    )


def stable_diffusion(name: str = "sd1", width: int = 8, **noise: object) -> Pipeline:
    """Stable Diffusion: CLIP of a width, a U-Net of (32, 64), an autoencoder of stride 8.

    name: "sd1", "sd2" or "sdxl"; noise: for the scheduler.
    """
    torch.manual_seed(0)
    two = name == "sd2"
    if name == "sdxl":
        return StableDiffusionXLPipeline(
            vae=_autoencoder(0.13025),
            text_encoder=CLIPTextModel(_text_config(width, False)),
            text_encoder_2=CLIPTextModelWithProjection(_text_config(width, True)),
            tokenizer=_tokenizer(False),
            tokenizer_2=_tokenizer(True),
            unet=_unet(
                (False, True),
                2 * width,
                transformer_layers_per_block=(1, 2),
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=8 + 6 * 256,
                **_MATRICES,
            ),
            scheduler=_scheduler(**noise),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        vae=_autoencoder(0.18215),
        text_encoder=CLIPTextModel(_text_config(width, two)),
        tokenizer=_tokenizer(two),
        unet=_unet((True, False), width, **(_MATRICES if two else {"attention_head_dim": 8})),
        scheduler=_scheduler(**noise),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


AUTOENCODER = LdmAutoencoderConfig(width=32, multipliers=(1, 1, 1, 2), blocks=1)


def small(name: str, width: int = 8) -> Family:
    """A family with few weights; SD2 as a base release has it."""
    family = {"sd1": SD1, "sd2": SD2_BASE, "sdxl": SDXL}[name]
    attends = {"depths": (1, 0)}
    if name == "sdxl":
        attends = {"depths": (0, 2), "middle_depth": 2, "vector_width": 8 + 6 * 256}
    heads = {"heads": 8} if name == "sd1" else {"head_width": 8}
    context = width * len(family.texts)
    unet = replace(
        family.unet, width=32, multipliers=(1, 2), context_width=context, **attends, **heads
    )
    tables = {
        **family.file.tables,
        "network": ldm_unet.original(unet.depths, unet.blocks, convolutions=name == "sd1"),
        "autoencoder": ldm_autoencoder.original(4),
    }
    if name == "sd2":
        tables["text"] = text_open_without(2)
    few = {"width": width, "depth": 2, "heads": 2, "hidden": 16}
    texts = {
        part: replace(
            text, encoder=replace(text.encoder, projection=8 if text.pooled else 0, **few)
        )
        for part, text in family.texts.items()
    }
    return replace(
        family,
        unet=unet,
        autoencoder=AUTOENCODER,
        texts=texts,
        file=replace(family.file, tables=tables),
    )


def _deep_autoencoder(scale: float, offset: float) -> AutoencoderKL:
    mixed = {"use_quant_conv": False, "use_post_quant_conv": False}
    return _autoencoder(scale, shift_factor=offset, latent_channels=16, **mixed)


def tiny_autoencoder(channels: int) -> AutoencoderTiny:
    """TAESD at its true size.  Its weights are such that what it makes does not die away in it."""
    torch.manual_seed(0)
    made = AutoencoderTiny(latent_channels=channels)
    for weight in made.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
            weight.data *= 0.7
    return made.eval()


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=32_128,
            d_model=24,
            d_kv=4,
            d_ff=16,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
        )
    ).eval()


@lru_cache
def _t5_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(t5_tokens.tokenizer().to_str()),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=512,
    )


def _nonzero(network: Any) -> Any:
    """Norms' gains and other constants made random, so that a place mixed up is seen."""
    for weight in network.parameters():
        if weight.ndim == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    return network


def stable_diffusion_3(name: str = "sd3", t5: bool = True, **flow: object) -> FlowPipeline:
    """SD3 with a transformer of 2 heads and 3 blocks.

    name: "sd3", "sd35-medium" or "sd35-large"; flow: for the scheduler.
    """
    torch.manual_seed(0)
    texts = [CLIPTextModelWithProjection(_text_config(8, wide)) for wide in (False, True)]
    torch.nn.init.eye_(texts[0].text_projection.weight)  # as the release has it
    return StableDiffusion3Pipeline(
        transformer=_nonzero(
            SD3Transformer2DModel(
                sample_size=8,
                num_layers=3,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=24,
                caption_projection_dim=16,
                pooled_projection_dim=16,
                pos_embed_max_size=12,
                qk_norm=None if name == "sd3" else "rms_norm",
                dual_attention_layers=(0, 1) if name == "sd35-medium" else (),
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **flow}),
        vae=_deep_autoencoder(1.5305, 0.0609),
        text_encoder=texts[0],
        tokenizer=_tokenizer(False),
        text_encoder_2=texts[1],
        tokenizer_2=_tokenizer(True),
        text_encoder_3=_nonzero(_t5()) if t5 else None,
        tokenizer_3=_t5_tokenizer() if t5 else None,
    )


def flux(name: str = "flux-dev", **flow: object) -> FlowPipeline:
    """FLUX.1 with 2 blocks of each kind; name: "flux-dev" or "flux-schnell"."""
    torch.manual_seed(0)
    guided = name == "flux-dev"
    return FluxPipeline(
        transformer=_nonzero(
            FluxTransformer2DModel(
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                pooled_projection_dim=8,
                guidance_embeds=guided,
                axes_dims_rope=(4, 6, 6),
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            **{"shift": 3.0 if guided else 1.0, "use_dynamic_shifting": guided, **flow}
        ),
        vae=_deep_autoencoder(0.3611, 0.1159),
        text_encoder=CLIPTextModel(_text_config(8, False)),
        tokenizer=_tokenizer(False),
        text_encoder_2=_nonzero(_t5()),
        tokenizer_2=_t5_tokenizer(),
    )


FLOWS = {f.name: f for f in (SD3, SD35_MEDIUM, SD35_LARGE, FLUX_DEV, FLUX_SCHNELL)}
DEEP_AUTOENCODER = replace(AUTOENCODER, latent_channels=16, mixed=False)


def small_flow(name: str) -> FlowFamily:
    """A family of flow transformers with few weights."""
    family, theirs = FLOWS[name], "network"
    few = {"width": 8, "depth": 2, "heads": 2, "hidden": 16}
    texts = {
        part: replace(
            text, encoder=replace(text.encoder, projection=8 * bool(text.encoder.projection), **few)
        )
        for part, text in family.texts.items()
    }
    sizes = {"heads": 2, "context_width": 24}
    tables = dict(family.folder.tables)
    network = family.network
    if isinstance(network, MMDiTConfig):
        more = {"positions": 12, "depth": 3, "head_width": 8, "vector_width": 16}
        network = replace(network, dual=2 * bool(network.dual), **sizes, **more)
        tables[theirs] = mmdit.diffusers(3)
    else:
        network = replace(network, axes=(4, 6, 6), depth=2, single=2, vector_width=8, **sizes)
    t5 = OurT5Config(width=24, depth=2, heads=3, head_width=4, hidden=16)
    return replace(
        family,
        network=network,
        autoencoder=DEEP_AUTOENCODER,
        texts=texts,
        t5=replace(family.t5, encoder=t5),
        folder=replace(family.folder, tables=tables),
        file=replace(
            family.file,
            tables={**family.file.tables, "autoencoder": ldm_autoencoder.original(4)},
        ),
    )
