"""What the files of known families look like: characteristic tensor names and sizes, as a table.

The first row that fits wins, so special cases stand before general ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from mezzotint.checkpoints import tables
from mezzotint.checkpoints.signature import Signature


def _of_tables() -> Iterator[Signature]:
    """Those that key tables bring with them: a family of its own needs no line here."""
    for found in pkgutil.iter_modules(tables.__path__, f"{tables.__name__}."):
        yield from getattr(importlib.import_module(found.name), "SIGNATURES", ())


_LDM = "*"  # "model.diffusion_model.", or nothing where the U-Net is alone
_IN = f"{_LDM}input_blocks.0.0.weight"
_TEXT_1 = f"{_LDM}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_TEXT_XL = f"{_LDM}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_UNET_1 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_UNET_XL = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_CONTROL_1 = "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_CONTROL_XL = "control_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_LOW_1 = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.down"
_LOW_XL = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down"
_ZERO = "control_model.zero_convs.0.0."
_UP = "up_blocks.1.resnets.0.conv1.weight"  # a control network has no way up
_CONTROLS = "controlnet_blocks.0.weight"
_HINT = "controlnet_cond_embedding.conv_in.weight"
_CONV_IN = "conv_in.weight"
_TOLD, _TOLD_PART = f"{_LDM}time_embed.cond_proj.weight", "time_embedding.cond_proj.weight"
_FLUX = "*double_blocks.0.img_attn.qkv.weight"
_FLUX_PART = "single_transformer_blocks.0.attn.to_q.weight"
_CLIP = "embeddings.token_embedding.weight"
_WORDS, _OPEN = "token_embedding.weight", "transformer.resblocks.0.ln_1.weight"
_CLIPS = (("CLIP-L", 768), ("OpenCLIP-H", 1024), ("OpenCLIP-bigG", 1280))
_SEEING = (("CLIP ViT-L/14", 1024), ("OpenCLIP ViT-H/14", 1280), ("OpenCLIP ViT-bigG/14", 1664))
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
_EPS_OR_V = "the weights do not say whether it predicts eps or v"

SIGNATURES: tuple[Signature, ...] = (
    *_of_tables(),
    # --- adapters -------------------------------------------------------------------------
    Signature("LoRA for FLUX (kohya)", ("lora_unet_double_blocks_*.lora_down.weight",)),
    Signature("LoRA for SD3 (kohya)", ("lora_unet_joint_blocks_*.lora_down.weight",)),
    Signature("LoRA for SDXL (kohya)", ("lora_te2_*.lora_down.weight",)),
    Signature(
        "LoRA for SDXL (kohya)",
        sizes=(("lora_unet_*_attn2_to_k.lora_down.weight", 1, 2048),),
    ),
    Signature("LoRA for SD1 (kohya)", sizes=(("lora_unet_*_attn2_to_k.lora_down.weight", 1, 768),)),
    Signature(
        "LoRA for SD2 (kohya)", sizes=(("lora_unet_*_attn2_to_k.lora_down.weight", 1, 1024),)
    ),
    Signature("LoHa (LyCORIS)", ("*.hada_w1_a",), note="the names do not tell the base model"),
    Signature("LoKr (LyCORIS)", ("*.lokr_w1*",), note="the names do not tell the base model"),
    Signature("LoRA (kohya)", ("*.lora_down.weight",), note="the names do not tell the base model"),
    Signature("LoRA for FLUX (PEFT)", ("*single_transformer_blocks.*.lora_A*weight",)),
    Signature("LoRA for SDXL (PEFT)", sizes=(("*attn2.to_k.lora_A*weight", 1, 2048),)),
    Signature("LoRA for SD1 (PEFT)", sizes=(("*attn2.to_k.lora_A*weight", 1, 768),)),
    Signature("LoRA for SD2 (PEFT)", sizes=(("*attn2.to_k.lora_A*weight", 1, 1024),)),
    Signature("LoRA (PEFT)", ("*.lora_A*weight",), note="the names do not tell the base model"),
    Signature("IP-Adapter", ("*ip_adapter.*.to_k_ip.weight",)),
    Signature("T2I-Adapter", ("body.0.block1.weight", "body.0.block2.weight")),
    Signature("T2I-Adapter, light", ("body.0.body.0.block1.weight", "body.0.out_conv.weight")),
    Signature("T2I-Adapter (diffusers)", ("adapter.body.0.resnets.0.block1.weight",)),
    Signature("textual inversion (SDXL)", ("clip_l", "clip_g")),
    Signature("textual inversion", ("emb_params",)),
    # --- control networks -----------------------------------------------------------------
    Signature("ControlNet as LoRA for SDXL", ("lora_controlnet",), ((_LOW_XL, 1, 2048),)),
    Signature("ControlNet as LoRA for SD1", ("lora_controlnet",), ((_LOW_1, 1, 768),)),
    Signature("ControlNet as LoRA", ("lora_controlnet",)),
    Signature("ControlNet for SD1", (f"{_ZERO}weight",), ((_CONTROL_1, 1, 768),)),
    Signature("ControlNet for SD2", (f"{_ZERO}weight",), ((_CONTROL_1, 1, 1024),)),
    Signature("ControlNet for SDXL", (f"{_ZERO}weight",), ((_CONTROL_XL, 1, 2048),)),
    Signature("ControlNet", (f"{_ZERO}weight",)),
    Signature("ControlNet", ("zero_convs.0.0.weight", "input_hint_block.0.weight")),
    Signature("ControlNet Union for SDXL (diffusers)", (_HINT, "task_embedding")),
    Signature("ControlNet for SDXL (diffusers)", (_HINT,), ((_UNET_XL, 1, 2048),)),
    Signature("ControlNet for SD1 (diffusers)", (_HINT,), ((_UNET_1, 1, 768),)),
    Signature("ControlNet for SD2 (diffusers)", (_HINT,), ((_UNET_1, 1, 1024),)),
    Signature("ControlNet (diffusers)", (_HINT,)),
    Signature(
        "ControlNet for SD3.5 large",
        (_CONTROLS, "pos_embed_input.proj.weight", "transformer_blocks.0.attn.qkv.weight"),
    ),
    Signature("ControlNet for SD3 (diffusers)", (_CONTROLS, "pos_embed_input.proj.weight")),
    Signature("ControlNet for FLUX (diffusers)", (_CONTROLS, "controlnet_x_embedder.weight")),
    Signature("ControlNet for FLUX", (_CONTROLS, "double_blocks.0.img_attn.qkv.weight")),
    Signature("ControlNet for a transformer", (_CONTROLS,)),
    # --- whole checkpoints in the original layout -----------------------------------------
    Signature("SD1 inpainting checkpoint", (), ((_IN, 1, 9), (_TEXT_1, 1, 768))),
    Signature("SD1 InstructPix2Pix checkpoint", (), ((_IN, 1, 8), (_TEXT_1, 1, 768))),
    Signature("SD1 LCM checkpoint", (_TOLD,), ((_TEXT_1, 1, 768),)),
    Signature("SDXL LCM checkpoint", (_TOLD,), ((_TEXT_XL, 1, 2048),)),
    Signature("SD1 checkpoint", (), ((_TEXT_1, 1, 768),)),
    Signature("SD2 inpainting checkpoint", (), ((_IN, 1, 9), (_TEXT_1, 1, 1024))),
    Signature("SD2 depth checkpoint", (), ((_IN, 1, 5), (_TEXT_1, 1, 1024))),
    Signature("SD2 unCLIP checkpoint", (f"{_LDM}label_emb.0.0.weight",), ((_TEXT_1, 1, 1024),)),
    Signature("SD2 checkpoint", (), ((_TEXT_1, 1, 1024),), note=_EPS_OR_V),
    Signature("SDXL inpainting checkpoint", (), ((_IN, 1, 9), (_TEXT_XL, 1, 2048))),
    Signature("SDXL InstructPix2Pix checkpoint", (), ((_IN, 1, 8), (_TEXT_XL, 1, 2048))),
    Signature("SDXL checkpoint, v prediction", ("v_pred",), ((_TEXT_XL, 1, 2048),)),
    Signature("SDXL checkpoint, EDM prediction", ("edm_mean",), ((_TEXT_XL, 1, 2048),)),
    Signature("SDXL checkpoint, EDM prediction", ("edm_vpred.sigma_max",), ((_TEXT_XL, 1, 2048),)),
    Signature("SDXL checkpoint", (), ((_TEXT_XL, 1, 2048),)),
    Signature("SDXL refiner checkpoint", (), ((_TEXT_XL, 1, 1280),)),
    Signature("SD3.5 medium checkpoint", ("*joint_blocks.0.x_block.attn2.qkv.weight",)),
    Signature("SD3.5 large checkpoint", ("*joint_blocks.0.x_block.attn.ln_q.weight",)),
    Signature("SD3 checkpoint", ("*joint_blocks.0.context_block.adaLN_modulation.1.weight",)),
    Signature("FLUX.2 model", ("*single_stream_modulation.lin.weight",)),
    Signature("FLUX.1 Fill model", (_FLUX,), (("*img_in.weight", 1, 384),)),
    Signature("FLUX.1 Canny or Depth model", (_FLUX,), (("*img_in.weight", 1, 128),)),
    Signature(
        "FLUX.1 model with guidance (dev)",
        (_FLUX, "*guidance_in.in_layer.weight"),
    ),
    Signature(
        "FLUX.1 model without guidance (schnell)",
        (_FLUX, "*single_blocks.0.linear1.weight"),
    ),
    # --- single parts as diffusers stores them --------------------------------------------
    Signature("FLUX Fill transformer (diffusers)", (_FLUX_PART,), (("x_embedder.weight", 1, 384),)),
    Signature(
        "FLUX Canny or Depth transformer (diffusers)",
        (_FLUX_PART,),
        (("x_embedder.weight", 1, 128),),
    ),
    Signature(
        "FLUX transformer with guidance (diffusers)",
        (_FLUX_PART, "time_text_embed.guidance_embedder.linear_1.weight"),
    ),
    Signature("FLUX transformer (diffusers)", (_FLUX_PART,)),
    Signature(
        "SD3.5 medium transformer (diffusers)",
        ("transformer_blocks.0.attn2.to_k.weight", "pos_embed.proj.weight"),
    ),
    Signature(
        "SD3.5 large transformer (diffusers)",
        ("transformer_blocks.0.attn.norm_added_q.weight", "pos_embed.proj.weight"),
    ),
    Signature(
        "SD3 transformer (diffusers)",
        ("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"),
    ),
    *(
        Signature(f"{family} {variant} U-Net (diffusers)", (_UP,), ((_CONV_IN, 1, n), text))
        for family, text in (
            ("SD1", (_UNET_1, 1, 768)),
            ("SD2", (_UNET_1, 1, 1024)),
            ("SDXL", (_UNET_XL, 1, 2048)),
        )
        for variant, n in (("inpainting", 9), ("InstructPix2Pix", 8), ("depth", 5))
    ),
    Signature("SDXL refiner U-Net (diffusers)", (_UP,), ((_CONV_IN, 0, 384), (_UNET_XL, 1, 1280))),
    Signature("SD1 LCM U-Net (diffusers)", (_UP, _TOLD_PART), ((_UNET_1, 1, 768),)),
    Signature("SDXL LCM U-Net (diffusers)", (_UP, _TOLD_PART), ((_UNET_XL, 1, 2048),)),
    Signature("SDXL U-Net (diffusers)", (_UP,), ((_UNET_XL, 1, 2048),)),
    Signature("SD1 U-Net (diffusers)", (_UP,), ((_UNET_1, 1, 768),)),
    Signature("SD2 U-Net (diffusers)", (_UP,), ((_UNET_1, 1, 1024),), note=_EPS_OR_V),
    # --- autoencoders ---------------------------------------------------------------------
    Signature(
        "VAE with 4 latent channels, as of SD1 and SDXL",
        ("encoder.down.0.block.0.norm1.weight",),
        (("decoder.conv_in.weight", 1, 4),),
        note="the weights do not tell SD's scale of latents from SDXL's",
    ),
    Signature(
        "VAE with 16 latent channels, as of SD3 and FLUX",
        ("encoder.down.0.block.0.norm1.weight",),
        (("decoder.conv_in.weight", 1, 16),),
        note="the weights do not tell SD3's scale of latents from FLUX's",
    ),
    Signature(
        "VAE with 4 latent channels, as of SD1 and SDXL (diffusers)",
        ("encoder.down_blocks.0.resnets.0.norm1.weight",),
        (("decoder.conv_in.weight", 1, 4),),
        note="the weights do not tell SD's scale of latents from SDXL's",
    ),
    Signature(
        "VAE with 16 latent channels, as of SD3 and FLUX (diffusers)",
        ("encoder.down_blocks.0.resnets.0.norm1.weight",),
        (("decoder.conv_in.weight", 1, 16),),
        note="the weights do not tell SD3's scale of latents from FLUX's",
    ),
    # --- text encoders --------------------------------------------------------------------
    *(
        Signature(f"text encoder {name}", (), ((f"{prefix}{_CLIP}", 1, width),))
        for prefix in ("text_model.", "", "transformer.text_model.", "transformer.")
        for name, width in _CLIPS
    ),
    *(
        Signature(f"text encoder {name}", (prefix + _OPEN,), ((prefix + _WORDS, 1, width),))
        for prefix in ("", "transformer.")
        for name, width in _CLIPS
    ),
    *(
        Signature(
            f"image encoder {name}",
            ("vision_model.embeddings.class_embedding", "visual_projection.weight"),
            (("vision_model.embeddings.patch_embedding.weight", 0, width),),
        )
        for name, width in _SEEING
    ),
    *(
        signature
        for prefix, first, words in (
            ("", _T5, "shared.weight"),
            ("transformer.", _T5, "shared.weight"),
            ("", "enc.blk.0.attn_q.weight", "token_embd.weight"),  # llama.cpp's
        )
        for signature in (
            Signature("text encoder T5-XXL", (prefix + first,), ((prefix + words, 1, 4096),)),
            Signature("text encoder T5", (prefix + first,)),
        )
    ),
    *(
        Signature(
            "text encoder BERT",
            (f"{prefix}word_embeddings.weight", f"{prefix}token_type_embeddings.weight"),
        )
        for prefix in ("embeddings.", "bert.embeddings.")
    ),
)

ADAPTER = "--ip-adapter"
OPTIONS: tuple[tuple[str, str], ...] = (
    ("LoRA", "--lora"),
    ("LoHa", "--lora"),
    ("LoKr", "--lora"),
    ("textual inversion", "--embedding"),
    ("ControlNet", "--control"),
    ("T2I-Adapter", "--control"),
    ("IP-Adapter", ADAPTER),
    ("Redux", ADAPTER),
    ("image encoder", "--image-encoder"),
    ("text encoder", "--part"),
    ("VAE", "--part"),
)
"""By which option `generate` is given what is no model by itself, by how its kind begins."""

ARCHITECTURES: tuple[tuple[str, str], ...] = (
    ("stable-diffusion-v1", "SD1"),
    ("stable-diffusion-v2", "SD2"),
    ("stable-diffusion-xl", "SDXL"),
    ("stable-diffusion-v3", "SD3"),
    ("stable-diffusion-3", "SD3"),
    ("flux-1", "FLUX.1"),
    ("flux-2", "FLUX.2"),
)
"""How ModelSpec names an architecture, by its start, and what a kind of file calls it."""

PARTS: tuple[tuple[str, str], ...] = (
    ("model.diffusion_model.", "denoiser"),
    ("first_stage_model.", "VAE"),
    ("vae.", "VAE"),
    ("cond_stage_model.", "text encoder"),
    ("conditioner.", "text encoders"),
    ("text_encoders.", "text encoders"),
    ("model_ema.", "EMA copy"),
    ("control_model.", "control network"),
)
"""What the tensors under a prefix are in a checkpoint that holds several networks."""

RANKS = ("*.lora_down.weight", "*.lora_A*weight", "*.lora_down")
"""Tensors whose first size is the rank of a LoRA."""
