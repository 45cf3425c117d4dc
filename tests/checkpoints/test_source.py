"""One way into every kind of file: the same tensors come out of each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import pytest
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.source import Entry, describe, open_folder, read, weights_in
from pipelines import stable_diffusion


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (3, 2, 1, 1), "conv.bias": (3,), "norm.weight": (4,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def in_shards(folder: Path, **changes: str) -> Path:
    """Two shards and their index; ``changes`` say for tensors what the index says wrongly."""
    state = tensors()
    places = dict.fromkeys(state, "model-00001-of-00002.safetensors")
    places["norm.weight"] = "model-00002-of-00002.safetensors"
    for shard in set(places.values()):
        save(folder / shard, {n: state[n] for n, place in places.items() if place == shard}, {})
    path = folder / "model.safetensors.index.json"
    named = {name.replace("_", "."): place for name, place in changes.items()}
    path.write_text(json.dumps({"metadata": {}, "weight_map": places | named}))
    return path


def written(folder: Path, kind: str) -> Path:
    path = folder / "model.bin"
    if kind == "safetensors":
        save(path, tensors(), {"title": "a fox"})
    elif kind == "shards":
        path = in_shards(folder)
    elif kind == "pickle":
        torch.save(tensors(), path)
    else:
        writer = gguf.GGUFWriter(path, "x")
        for name, value in tensors().items():
            writer.add_tensor(name, value.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "called"),
    [
        ("safetensors", "safetensors"),
        ("shards", "safetensors in 2 shards"),
        ("pickle", "PyTorch pickle"),
        ("gguf", "GGUF"),
    ],
)
def test_each_kind_gives_the_same_tensors(kind: str, called: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind)
    found = describe(path)
    assert found.format == called
    assert found.tensors == {n: Entry("F32", tuple(t.shape)) for n, t in tensors().items()}
    assert sum(entry.count for entry in found.tensors.values()) == 13
    assert found.metadata.get("title") == ("a fox" if kind == "safetensors" else None)
    assert found.size >= 4 * 13
    state = read(path)
    assert state.keys() == tensors().keys()
    for name, value in tensors().items():
        given = state[name]
        assert isinstance(given, Tensor) and torch.equal(given, value)


def test_what_an_index_says_must_be_true(tmp_path: Path) -> None:
    def error(path: Path) -> str:
        for action in (describe, read):
            with pytest.raises(CheckpointError) as caught:
                action(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    assert "1 tensors are not in their shards, the first is 'lost'" in error(
        in_shards(tmp_path, lost=first)
    )
    assert "holds 'conv.bias', its index says otherwise" in error(
        in_shards(tmp_path, conv_bias=second)
    )
    assert "places 'conv.bias' outside its folder" in error(
        in_shards(tmp_path, conv_bias=f"../{first}")
    )
    for shard in ("", "..", "model.safetensors.index.json"):
        assert (
            "folder" in (told := error(in_shards(tmp_path, conv_bias=shard))) or "no file" in told
        )
    assert "outside its folder" in error(in_shards(tmp_path, conv_bias="a\0b"))
    path = in_shards(tmp_path)
    path.write_text(path.read_text().replace('"conv.bias"', '"conv.weight"'))
    assert "'conv.weight' comes twice" in error(path)
    path = in_shards(tmp_path)
    (tmp_path / second).unlink()
    assert f"{second}: no such file" in error(path)
    path.write_text("[" * 100_000)
    assert "is not valid JSON" in error(path)
    path.write_text('{"weight_map": []}')
    assert "has no weight_map" in error(path)
    path.write_text("[]")
    assert "is not a JSON object" in error(path)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="a device or a pipe"):
        describe(tmp_path / "model.safetensors")


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"safe_serialization": False}, {"variant": "fp16"}])
def test_a_folder_that_diffusers_wrote(how: dict[str, object], tmp_path: Path) -> None:
    made = stable_diffusion()
    made.save_pretrained(tmp_path / "model", **how)
    folder = open_folder(tmp_path / "model")
    assert folder.kind == "StableDiffusionPipeline"
    assert folder.configs.keys() == {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    assert folder.configs["unet"]["cross_attention_dim"] == 8
    assert set(folder.networks) == {"vae", "text_encoder", "unet"} and not folder.lacking
    for part in ("vae", "text_encoder", "unet"):
        state = getattr(made, part).state_dict()
        found = read(folder.weights(part))
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_shards_that_diffusers_wrote(tmp_path: Path) -> None:
    unet = stable_diffusion().unet
    unet.save_pretrained(tmp_path / "unet", max_shard_size="100KB")
    path = weights_in(tmp_path / "unet")
    found = describe(path)
    assert "shards" in found.format
    assert found.tensors == {n: Entry("F32", tuple(t.shape)) for n, t in unet.state_dict().items()}


def test_what_is_no_folder_of_diffusers(tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    with pytest.raises(CheckpointError, match="a folder without model_index.json"):
        open_folder(tmp_path)
    for text, message in (
        ("{}", "does not say which pipeline"),
        ('{"_class_name": "../x"}', "does not say which pipeline"),
        ('{"_class_name": "X", "../unet": ["a", "b"]}', "a part with the odd name '../unet'"),
    ):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            open_folder(tmp_path)
    index.write_text('{"_class_name": "X", "unet": ["a", "b"], "vae": ["a", "b"]}')
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/config.json").write_text("{}")
    folder = open_folder(tmp_path)
    assert (folder.networks, folder.lacking) == (("unet",), ("vae",))
    with pytest.raises(CheckpointError, match=r"has no network 'unets' \(nearest: unet\)"):
        folder.weights("unets")
    with pytest.raises(CheckpointError, match="no file of weights"):
        folder.weights("unet")
    for variant in ("fp16", "non_ema"):
        save(tmp_path / f"unet/model.{variant}.safetensors", tensors(), {})
    with pytest.raises(CheckpointError, match=r"several variants \(model.fp16.safetensors, "):
        folder.weights("unet")
    save(tmp_path / "unet/model.safetensors", tensors(), {})
    assert folder.weights("unet").name == "model.safetensors"
