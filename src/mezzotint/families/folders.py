"""What a folder of `diffusers` says of its parts: their classes and configurations, as a table.

One row a type of network: the library and class that read it there, its file's name, and its
``config.json``.  With it `convert` writes folders that `diffusers` itself loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

from torch import nn

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.marks import EDM, NAMES
from mezzotint.diffusion.schedules import VarianceExploding
from mezzotint.families import clip_tokens, flow, ldm, t5_tokens
from mezzotint.networks.clip import ClipText, ClipTextConfig
from mezzotint.networks.flux import Flux, FluxConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import GUIDANCE_WIDTH, LdmUNet, LdmUNetConfig
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig
from mezzotint.networks.t5 import T5Config, T5Encoder

Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors that are written, by their names there."""


class Tokens(NamedTuple):
    """The tokenizer of a text encoder: the class that reads it, and its files' texts by name."""

    name: str
    files: Callable[[], dict[str, str]]


@dataclass(frozen=True)
class Facts:
    """What a folder says of a family beside its networks.

    pipeline: the class in ``model_index.json``; told: that file's other fields.
    size: the edge of a usual latent; scale, shift: a code is diffused as ``scale (z − shift)``;
        mean, std: of its channels, by which it is normed before, if there are any.
    tokenizers: of the part of each text encoder; scheduler: its ``scheduler_config.json``.
    """

    pipeline: str
    told: Config
    size: int
    scale: float
    shift: float | None
    tokenizers: Mapping[str, Tokens]
    scheduler: Config
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Row(NamedTuple):
    """How a network stands in a folder.

    names: the library, and the class that reads it; file: with its weights.
    config: from our configuration, the family's facts and the tensors' shapes.
    """

    names: tuple[str, str]
    file: str
    config: Callable[[Any, Facts, Shapes], Config]


# --- the networks -----------------------------------------------------------------------------


def _unet(config: LdmUNetConfig, facts: Facts, shapes: Shapes) -> Config:
    depths, widths = config.depths, [config.width * m for m in config.multipliers]
    if depths[-1] not in (0, config.middle_depth):
        raise CheckpointError("diffusers has no U-Net whose middle is of another depth than above")
    kinds = ["CrossAttn" if depth else "" for depth in depths]
    layers = [*(depth or 1 for depth in depths[:-1]), config.middle_depth]
    convolutions = any(len(s) == 4 for name, s in shapes.items() if name.endswith("proj_in.weight"))
    made: Config = {
        "sample_size": facts.size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": widths,
        "layers_per_block": config.blocks,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "cross_attention_dim": config.context_width,
        "transformer_layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "attention_head_dim": [config.heads_of(width) for width in widths],  # heads, sic
        "use_linear_projection": not convolutions,
        # Stable Diffusion 2's attention overflows half precision otherwise
        "upcast_attention": config.context_width == 1024,
    }
    if config.guided:
        made["time_cond_proj_dim"] = GUIDANCE_WIDTH
    if config.heads:
        made["attention_head_dim"] = config.heads
    if config.vector_width:
        made |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.vector_width,
        }
    return made


def _autoencoder(config: LdmAutoencoderConfig, facts: Facts, shapes: Shapes) -> Config:
    levels = len(config.multipliers)
    normed = {"latents_mean": list(facts.mean), "latents_std": list(facts.std)}
    return {
        **(normed if facts.std else {}),
        "sample_size": facts.size * config.stride,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": [config.width * m for m in config.multipliers],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": config.blocks,
        "scaling_factor": facts.scale,
        "shift_factor": facts.shift,
        "use_quant_conv": config.mixed,
        "use_post_quant_conv": config.mixed,
    }


def _clip(config: ClipTextConfig, facts: Facts, shapes: Shapes) -> Config:
    return {
        "architectures": ["CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "projection_dim": config.projection or config.width,
        "hidden_act": config.activation,
        "bos_token_id": clip_tokens.START,
        "eos_token_id": config.end,
        "pad_token_id": 1,
    }


def _t5(config: T5Config, facts: Facts, shapes: Shapes) -> Config:
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.hidden,
        "num_layers": config.depth,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.distance,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
    }


def _mmdit(config: MMDiTConfig, facts: Facts, shapes: Shapes) -> Config:
    return {
        "sample_size": facts.size,
        "patch_size": config.patch,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "attention_head_dim": config.head_width,
        "num_attention_heads": config.heads,
        "joint_attention_dim": config.context_width,
        "caption_projection_dim": config.width,
        "pooled_projection_dim": config.vector_width,
        "pos_embed_max_size": config.positions,
        "dual_attention_layers": list(range(config.dual)),
        "qk_norm": "rms_norm" if config.normalized else None,
    }


def _flux(config: FluxConfig, facts: Facts, shapes: Shapes) -> Config:
    return {
        "patch_size": 1,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "num_single_layers": config.single,
        "attention_head_dim": config.head_width,
        "num_attention_heads": config.heads,
        "joint_attention_dim": config.context_width,
        "pooled_projection_dim": config.vector_width,
        "guidance_embeds": config.guided,
        "axes_dims_rope": list(config.axes),
    }


_THEIRS, _TEXTS = "diffusion_pytorch_model.safetensors", "model.safetensors"
ROWS: dict[type[nn.Module], Row] = {
    LdmUNet: Row(("diffusers", "UNet2DConditionModel"), _THEIRS, _unet),
    MMDiT: Row(("diffusers", "SD3Transformer2DModel"), _THEIRS, _mmdit),
    Flux: Row(("diffusers", "FluxTransformer2DModel"), _THEIRS, _flux),
    LdmAutoencoder: Row(("diffusers", "AutoencoderKL"), _THEIRS, _autoencoder),
    ClipText: Row(("transformers", "CLIPTextModel"), _TEXTS, _clip),
    T5Encoder: Row(("transformers", "T5EncoderModel"), _TEXTS, _t5),
}


class Described(NamedTuple):
    """A part of a folder: ``names`` for ``model_index.json``, its weights' file, its config."""

    names: tuple[str, str]
    file: str
    config: Config


def describe(network: nn.Module, facts: Facts, shapes: Shapes) -> Described:
    """What a folder says of a network.

    Raises:
        CheckpointError: `diffusers` has no such network.
    """
    row = ROWS[type(network)]
    made = row.config(cast(Any, network).config, facts, shapes)
    library, name = row.names
    (name,) = made.get("architectures", [name])
    head: Config = {"_class_name": name} if library == "diffusers" else {}
    return Described((library, name), row.file, head | made)


# --- the families -----------------------------------------------------------------------------

_NONE = [None, None]
_SAFE: Config = {
    "safety_checker": _NONE,
    "feature_extractor": _NONE,
    "image_encoder": _NONE,
    "requires_safety_checker": False,
}
_XL: Config = {
    "feature_extractor": _NONE,
    "image_encoder": _NONE,
    "force_zeros_for_empty_prompt": True,
}
_EDITS = "StableDiffusionXLInstructPix2PixPipeline"
_PIPELINES: dict[str, Config] = {
    "StableDiffusionPipeline": _SAFE,
    "LatentConsistencyModelPipeline": _SAFE,
    "StableDiffusionInpaintPipeline": _SAFE,
    "StableDiffusionInstructPix2PixPipeline": _SAFE,
    "StableDiffusionXLPipeline": _XL,
    "StableDiffusionXLInpaintPipeline": _XL,
    "StableDiffusionXLImg2ImgPipeline": {
        **_XL,
        "text_encoder": _NONE,
        "tokenizer": _NONE,
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
    },
    _EDITS: {"force_zeros_for_empty_prompt": True},
    "StableDiffusion3Pipeline": {
        "text_encoder_3": _NONE,  # where there is none
        "tokenizer_3": _NONE,
        "feature_extractor": _NONE,
        "image_encoder": _NONE,
    },
    "StableDiffusionDepth2ImgPipeline": {"depth_estimator": _NONE, "feature_extractor": _NONE},
    "FluxPipeline": {"feature_extractor": _NONE, "image_encoder": _NONE},
    "FluxKontextPipeline": {"feature_extractor": _NONE, "image_encoder": _NONE},
    "FluxFillPipeline": {},
    "FluxControlPipeline": {},
}
"""What ``model_index.json`` says beside the parts."""


_SCHEDULERS = {"lcm": "LCMScheduler", "euler_ancestral": "EulerAncestralDiscreteScheduler"}
"""By our sampler, where a variant of few steps needs its own."""


def _discrete(family: ldm.Family) -> Config:
    """The scheduler of a network that was trained on a table of noise levels."""
    if isinstance(family.schedule, VarianceExploding):
        ends = {"sigma_min": family.schedule.sigma_min, "sigma_max": family.schedule.sigma_max}
        return {**EDM[family.prediction], **ends}
    zero = float(family.schedule.alphas_cumprod[-1]) == 0
    from_noise = zero or family.defaults.spacing == "trailing"
    return {
        "_class_name": _SCHEDULERS.get(family.defaults.sampler, "EulerDiscreteScheduler"),
        "num_train_timesteps": family.schedule.knots,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": NAMES[family.prediction],
        "rescale_betas_zero_snr": zero,
        "timestep_spacing": "trailing" if from_noise else "leading",  # from its end, or near it
        "steps_offset": 1,
    }


def _flowing(family: flow.Family) -> Config:
    """The scheduler of a flow: how its time is shifted."""
    head: Config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    shift = family.shift
    if not isinstance(shift, flow.ByTokens):
        return {**head, "shift": shift, "use_dynamic_shifting": False}
    return {
        **head,
        "use_dynamic_shifting": True,
        "base_image_seq_len": shift.base_tokens,
        "max_image_seq_len": shift.max_tokens,
        "base_shift": shift.base_shift,
        "max_shift": shift.max_shift,
    }


def facts(family: ldm.Family | flow.Family) -> Facts:
    """What a folder says of a family."""
    pipeline = family.folder.pipeline
    clip = {
        part: Tokens("CLIPTokenizer", partial(clip_tokens.folder, text.pad))
        for part, text in family.texts.items()
    }
    flows = isinstance(family, flow.Family)
    edm = isinstance(family, ldm.Family) and family.prediction in EDM
    scaled = edm and pipeline == _EDITS
    return Facts(
        pipeline=pipeline,
        told={**_PIPELINES[pipeline], **({"is_cosxl_edit": True} if scaled else {})},
        size=family.defaults.size[0] // family.autoencoder.stride,
        scale=family.scale,
        shift=family.offset if flows else None,
        tokenizers={**clip, flow.T5: Tokens("T5TokenizerFast", t5_tokens.folder)},
        scheduler=_flowing(family) if flows else _discrete(family),
        mean=() if flows else family.mean,
        std=() if flows else family.std,
    )
