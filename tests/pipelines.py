"""Pipelines of `diffusers` with small random networks, to be stored, read and equalled."""

from __future__ import annotations

import json

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mezzotint.families.clip_tokens import tokenizer


def stable_diffusion(name: str = "sd1", width: int = 8, **noise: object) -> StableDiffusionPipeline:
    """Stable Diffusion: CLIP of a width, a U-Net of (32, 64), an autoencoder of stride 8.

    name: "sd1" or "sd2"; noise: for the scheduler.
    """
    two = name == "sd2"
    torch.manual_seed(0)
    own = tokenizer()
    merges = [tuple(pair) for pair in json.loads(own.to_str())["model"]["merges"]]
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 32, 32, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=width,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                vocab_size=49_408,
                eos_token_id=49_407,
                hidden_act="gelu" if two else "quick_gelu",
            )
        ),
        tokenizer=CLIPTokenizer(
            vocab=own.get_vocab(),
            merges=merges,
            model_max_length=77,
            pad_token="!" if two else "<|endoftext|>",
        ),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=width,
            attention_head_dim=(4, 8) if two else 8,  # the number of heads, in truth
            use_linear_projection=two,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            steps_offset=1,
            timestep_spacing="trailing",
            **{"beta_schedule": "scaled_linear", **noise},
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
