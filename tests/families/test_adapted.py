"""The names that trainers give weights, at the full sizes of the releases, without weights."""

from __future__ import annotations

import pytest

from mezzotint.checkpoints.keys import to_theirs
from mezzotint.families import catalogue
from mezzotint.families.adapted import targets

FAMILIES = {family.name: family for family in catalogue.FAMILIES}
CLIP = "text_model_encoder_layers_0_self_attn_q_proj"
KNOWN: dict[str, dict[str, str]] = {
    "sd1": {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": "network",
        "lora_unet_mid_block_attentions_0_proj_in": "network",
        "unet.up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj": "network",
        f"lora_te_{CLIP}": "text",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1": "text",
        "text_encoder.encoder.layers.0.mlp.fc1": "text",
    },
    "sdxl": {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": "network",
        "lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj": "network",
        f"lora_te1_{CLIP}": "text",
        "lora_te2_text_model_encoder_layers_31_self_attn_out_proj": "text2",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.k_proj": "text2",
    },
    "sd3": {
        "lora_unet_joint_blocks_0_x_block_attn_qkv": "network",
        "transformer.transformer_blocks.0.attn.add_q_proj": "network",
        "diffusion_model.joint_blocks.0.context_block.mlp.fc1": "network",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q": "t5",
    },
    "flux-dev": {
        "lora_unet_double_blocks_0_img_attn_qkv": "network",
        "lora_unet_single_blocks_37_linear1": "network",
        "transformer.single_transformer_blocks.0.proj_mlp": "network",
        "transformer.transformer_blocks.18.ff_context.net.2": "network",
        "double_blocks.0.img_mod.lin": "network",
        f"lora_te1_{CLIP}": "text",
    },
}
"""Modules as files of kohya, of diffusers and of others name them, and the part they are in."""


@pytest.mark.parametrize("name", KNOWN)
def test_names_of_released_adapters(name: str) -> None:
    family = FAMILIES[name]
    found = targets(catalogue.parts(family), family.file, family.folder)
    for module, part in KNOWN[name].items():
        assert found[module].network == part, module


@pytest.mark.parametrize("name", FAMILIES)
def test_every_matrix_has_its_name_in_every_style(name: str) -> None:
    """Once each, and no two names lead to one place in one style."""
    family = FAMILIES[name]
    parts = catalogue.parts(family)
    found = targets(parts, family.file, family.folder)
    for layout, styles in (
        (family.folder, ("lora_unet_", "unet.", "transformer.", "base_model.model.")),
        (family.file, ("lora_unet_", "diffusion_model.", "")),
    ):
        names = to_theirs(parts["network"].state_dict(), layout.tables["network"])
        modules = [n.removesuffix(".weight") for n in names if n.endswith(".weight")]
        for style in styles:
            keys = [style + m.replace(".", "_" if style == "lora_unet_" else ".") for m in modules]
            places = [found[key] for key in keys]
            assert all(place.network == "network" for place in places)
            spots = {(p.part.name, p.part.index, len(p.part.shares)) for p in places}
            assert len(spots) == len(modules)
