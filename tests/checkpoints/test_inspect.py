"""What a file is: models that diffusers and transformers build, original layouts, our own files."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
)

from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.inspect import inspect
from mezzotint.families.text import DATA, WEIGHTS

LDM = "model.diffusion_model."
TO_K = "transformer_blocks.0.attn2.to_k.weight"
UNET_1 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def written(path: Path, tensors: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    save(path, {name: torch.zeros(shape).half() for name, shape in tensors.items()}, metadata)
    return path


def kind(path: Path, tensors: dict[str, tuple[int, ...]]) -> str | None:
    return inspect(written(path, tensors)).kind


def unet(width: int, control: bool = False) -> nn.Module:
    first = "DownBlock2D" if width == 2048 else "CrossAttnDownBlock2D"  # SDXL: no text there
    sizes = {
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "cross_attention_dim": width,
        "attention_head_dim": 8,
        "down_block_types": (first, "CrossAttnDownBlock2D"),
    }
    if control:
        return ControlNetModel(**sizes, conditioning_embedding_out_channels=(16, 32))
    return UNet2DConditionModel(**sizes, up_block_types=("CrossAttnUpBlock2D",) * 2)


def vae(channels: int) -> nn.Module:
    return AutoencoderKL(latent_channels=channels, block_out_channels=(32,), norm_num_groups=8)


def flux() -> nn.Module:
    return FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def sd3() -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8,
    )  # fmt: skip


def clip(width: int) -> nn.Module:
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=9, hidden_size=width, intermediate_size=8, num_hidden_layers=1)
    )


BUILT = {
    "SD1 U-Net (diffusers)": lambda: unet(768),
    "SD2 U-Net (diffusers)": lambda: unet(1024),
    "SDXL U-Net (diffusers)": lambda: unet(2048),
    "ControlNet for SD1 (diffusers)": lambda: unet(768, control=True),
    "ControlNet for SDXL (diffusers)": lambda: unet(2048, control=True),
    "VAE with 4 latent channels, as of SD1 and SDXL (diffusers)": lambda: vae(4),
    "VAE with 16 latent channels, as of SD3 and FLUX (diffusers)": lambda: vae(16),
    "FLUX transformer (diffusers)": flux,
    "SD3 transformer (diffusers)": sd3,
    "text encoder CLIP-L": lambda: clip(768),
    "text encoder OpenCLIP-bigG": lambda: clip(1280),
    "text encoder T5": lambda: T5EncoderModel(
        T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1)
    ),
    "text encoder BERT": lambda: BertModel(
        BertConfig(
            vocab_size=9,
            hidden_size=8,
            num_attention_heads=2,
            num_hidden_layers=1,
            intermediate_size=8,
        )
    ),
}


@pytest.mark.parametrize("expected", BUILT)
def test_what_other_libraries_build_is_recognised(expected: str, tmp_path: Path) -> None:
    model = BUILT[expected]()
    path = tmp_path / "a.safetensors"
    save(path, {name: value.half() for name, value in model.state_dict().items()}, {})
    report = inspect(path)
    assert (report.kind, report.confidence) == (expected, "likely")
    assert report.parameters == sum(value.numel() for value in model.state_dict().values())


def test_original_layouts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    first, second = f"{LDM}input_blocks.1.1.{TO_K}", f"{LDM}input_blocks.4.1.{TO_K}"
    entry = f"{LDM}input_blocks.0.0.weight"
    flux_keys = {
        "double_blocks.0.img_attn.qkv.weight": (9, 3),
        "single_blocks.0.linear1.weight": (2, 2),
    }
    for expected, tensors in (
        ("SD1 checkpoint", {entry: (32, 4, 3, 3), first: (8, 768)}),
        ("SD1 inpainting checkpoint", {entry: (32, 9, 3, 3), first: (8, 768)}),
        ("SD1 InstructPix2Pix checkpoint", {entry: (32, 8, 3, 3), first: (8, 768)}),
        ("SD2 checkpoint", {entry: (32, 4, 3, 3), first: (8, 1024)}),
        ("SD2 depth checkpoint", {entry: (32, 5, 3, 3), first: (8, 1024)}),
        ("SDXL checkpoint", {entry: (32, 4, 3, 3), second: (8, 2048)}),
        ("SDXL checkpoint, v prediction", {"v_pred": (), second: (8, 2048)}),
        ("SDXL refiner checkpoint", {second: (8, 1280)}),
        (
            "SD3 checkpoint",
            {f"{LDM}joint_blocks.0.context_block.adaLN_modulation.1.weight": (6, 1)},
        ),
        ("SD3.5 medium checkpoint", {f"{LDM}joint_blocks.0.x_block.attn2.qkv.weight": (3, 1)}),
        ("SD3.5 large checkpoint", {f"{LDM}joint_blocks.0.x_block.attn.ln_q.weight": (1,)}),
        ("FLUX.1 Fill model", {**flux_keys, "img_in.weight": (2, 384)}),
        ("FLUX.1 Canny or Depth model", {**flux_keys, "img_in.weight": (2, 128)}),
        ("FLUX.1 model without guidance (schnell)", {**flux_keys, "img_in.weight": (2, 64)}),
        ("FLUX.1 model without guidance (schnell)", flux_keys),
        ("FLUX.1 model with guidance (dev)", {**flux_keys, "guidance_in.in_layer.weight": (2, 2)}),
        (
            "VAE with 4 latent channels, as of SD1 and SDXL",
            {"encoder.down.0.block.0.norm1.weight": (8,), "decoder.conv_in.weight": (8, 4, 3, 3)},
        ),
        ("text encoder OpenCLIP-H", {"text_model.embeddings.token_embedding.weight": (9, 1024)}),
        (
            "image encoder OpenCLIP ViT-H/14",
            {
                "vision_model.embeddings.class_embedding": (1280,),
                "vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14),
                "visual_projection.weight": (1024, 1280),
            },
        ),
        ("ControlNet", {"control_model.zero_convs.0.0.weight": (2, 2, 1, 1)}),
    ):
        assert kind(path, tensors) == expected  # type: ignore[arg-type]
    for name, expected in (("sd3", "SD3 checkpoint"), ("flux2", "FLUX.2 model")):
        keys = {key.replace(".bias", ".weight"): (2, 2) for key in CHECKPOINT_KEY_NAMES[name]}
        assert kind(path, keys) == expected


def test_adapters(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    block = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    for expected, tensors in (
        ("LoRA for SD1 (kohya)", {f"lora_unet_{block}.lora_down.weight": (4, 768)}),
        ("LoRA for SDXL (kohya)", {f"lora_unet_{block}.lora_down.weight": (4, 2048)}),
        (
            "LoRA for SDXL (kohya)",
            {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)},
        ),
        (
            "LoRA for FLUX (kohya)",
            {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)},
        ),
        (
            "LoRA for SD1 (PEFT)",
            {
                "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (
                    4,
                    768,
                )
            },
        ),
        (
            "LoRA for FLUX (PEFT)",
            {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)},
        ),
        ("LoHa (LyCORIS)", {"lora_unet_x.hada_w1_a": (4, 4)}),
        ("IP-Adapter", {"ip_adapter.1.to_k_ip.weight": (8, 768), "image_proj.proj.weight": (2, 2)}),
        ("textual inversion", {"emb_params": (3, 768)}),
        ("textual inversion (SDXL)", {"clip_l": (3, 768), "clip_g": (3, 1280)}),
    ):
        assert kind(path, tensors) == expected  # type: ignore[arg-type]
    written(path, {"a.lora_down.weight": (16, 8), "a.lora_up.weight": (8, 16)}, ss_network_dim="16")
    report = inspect(path)
    assert report.kind == "LoRA (kohya)"
    assert "the names do not tell the base model" in report.reason
    assert dict(report.details) == {"rank": "16", "ss_network_dim": "16"}


def test_an_unknown_file_says_so(tmp_path: Path) -> None:
    report = inspect(written(tmp_path / "a.safetensors", {"layer.weight": (2, 3)}))
    assert (report.kind, report.confidence) == (None, "unknown")
    assert "its first is 'layer.weight'" in report.reason
    assert "model    not recognised" in report.lines()


def test_lines_of_a_whole_checkpoint(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.safetensors",
        {
            f"{LDM}input_blocks.1.1.{TO_K}": (1000, 1024),
            "first_stage_model.decoder.conv_in.weight": (10, 4, 3, 3),
            "cond_stage_model.model.ln_final.weight": (1024,),
        },
        **{"modelspec.title": "Nice\x1b[2J model\nline", "modelspec.license": "CC0", "other": "x"},
    )
    lines = inspect(path).lines()
    assert "model              SD2 checkpoint (likely)" in lines
    assert any("do not say whether it predicts eps or v" in line for line in lines)
    assert "parts              denoiser 1.02 M, text encoder 1.02 k, VAE 360" in lines
    assert "types              F16 1.03 M" in lines
    assert "weights            1.03 M in 3 tensors" in lines
    assert "modelspec.title    Nice [2J model line" in lines
    assert "modelspec.license  CC0" in lines
    assert not any("other" in line.split("  ")[0] for line in lines)
    assert all(line.isprintable() for line in lines)


def test_our_own_files_describe_themselves(tmp_path: Path) -> None:
    report = inspect(DATA / WEIGHTS)
    assert (report.kind, report.confidence) == ("Mezzotint text encoder", "certain")
    assert dict(report.details)["license"] == "Apache-2.0"
    document = {
        "format": 1,
        "network": "dit",
        "config": {"name": "mine", "classes": [], "size": [3, 4]},
    }
    path = written(tmp_path / "a.safetensors", {"a": (2,)}, mezzotint=json.dumps(document))
    assert inspect(path).kind == "Mezzotint dit"
    details = dict(inspect(path).details)
    assert details == {
        "format": "1",
        "network": "dit",
        "config.name": "mine",
        "config.size": "3, 4",
    }
    written(path, {"a": (2,)}, mezzotint="{")
    with pytest.raises(CheckpointError, match="not a JSON object: the file is damaged"):
        inspect(path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the pickle was executed",))


def test_a_pickle_is_recognised_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    state = {f"{LDM}input_blocks.1.1.{TO_K}": torch.zeros(4, 768), "trap": Bomb()}
    torch.save({"state_dict": state}, path)
    report = inspect(path)
    assert (report.kind, report.format) == ("SD1 checkpoint", "PyTorch pickle")
    path.write_bytes(pickle.dumps(Bomb(), protocol=4))
    with pytest.raises(CheckpointError, match="a pickle, but not one of PyTorch's"):
        inspect(path)


def test_a_gguf_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "flux.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name in ("double_blocks.0.img_attn.qkv.weight", "guidance_in.in_layer.weight"):
        packed = gguf.quants.quantize(np.zeros((4, 64), dtype=np.float32), q8)
        writer.add_tensor(name, packed, raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    report = inspect(path)
    assert report.kind == "FLUX.1 model with guidance (dev)"
    assert (report.format, report.dtypes, report.parameters) == ("GGUF", (("Q8_0", 512),), 512)


def test_a_zip_archive_of_something_else_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "a zip archive" in inspect(tmp_path / "a.zip").format


def test_a_picture_is_named_from_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(56))
    assert inspect(path).lines()[1] == "format   a PNG picture, 64 bytes"


def test_a_folder_of_diffusers_is_recognised_part_by_part(tmp_path: Path) -> None:
    unet = tmp_path / "unet"
    unet.mkdir()
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],'
        ' "scheduler": ["diffusers", "DDIMScheduler"], "safety_checker": [null, null],'
        ' "vae": ["diffusers", "AutoencoderKL"]}'
    )
    (unet / "config.json").write_text("{}")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")
    shapes = {"up_blocks.1.resnets.0.conv1.weight": (3, 3), UNET_1: (4, 768)}
    written(unet / "diffusion_pytorch_model.safetensors", shapes)
    report = inspect(tmp_path)
    assert (report.kind, report.format) == ("StableDiffusionPipeline", "diffusers folder")
    assert report.parts == (("unet", 9 + 4 * 768),)
    assert report.details == (
        ("unet", "SD1 U-Net (diffusers), safetensors"),
        ("vae", "named in model_index.json, but not there"),
    )
    assert "model    StableDiffusionPipeline (certain)" in report.lines()


def test_errors_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        inspect(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        inspect(path)
    written(path, {"a": (100,)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short") as caught:
        inspect(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="a folder without model_index.json"):
        inspect(tmp_path)


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """What was read is kept as long as the file is as it was."""
    path = written(tmp_path / "a.safetensors", {"layer.weight": (2, 3)}, license="MIT")
    assert inspect(path) is inspect(path)
    written(path, {"layer.weight": (2, 3)}, license="BSD")  # as long, and at once
    assert dict(inspect(path).details)["license"] == "BSD"
