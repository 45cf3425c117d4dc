"""Pipelines of `diffusers` with small random networks, to be stored, read and equalled."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from mezzotint.checkpoints.tables import ldm_autoencoder, ldm_unet
from mezzotint.checkpoints.tables.clip import text_open_without
from mezzotint.families.clip_tokens import tokenizer
from mezzotint.families.ldm import Family
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2_BASE
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


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


def _tokenizer(openclip: bool) -> CLIPTokenizer:
    own = tokenizer()
    merges = [tuple(pair) for pair in json.loads(own.to_str())["model"]["merges"]]
    pad = "!" if openclip else "<|endoftext|>"
    return CLIPTokenizer(vocab=own.get_vocab(), merges=merges, model_max_length=77, pad_token=pad)


def _autoencoder(scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        scaling_factor=scale,
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
