"""The reader of codes out of spoiled pictures: its file, whose it is, and that it reads better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.engine.detect import cut_out
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families.catalogue import load
from mezzotint.families.code_readers import load_reader, reader_for, save_reader
from mezzotint.families.native import LatentCodec, PixelCodec
from mezzotint.networks.code_reader import CodeReader, CodeReaderConfig

CONFIG = CodeReaderConfig(4, 3, 16, 1, 16, 1, patch=2)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_an_untrained_reader_leaves_the_encoders_code_as_it_is() -> None:
    code = drawn(2, 3, 4, 4)
    assert torch.equal(CodeReader(CONFIG)(drawn(2, 3, 16, 16), drawn(2, 4, 16, 16), code), code)


def test_a_reader_comes_back_from_its_file_and_says_whose_it_is(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reader = CodeReader(CONFIG)
        torch.nn.init.normal_(reader.head.weight, std=0.1)
    save_reader(tmp_path / "a.safetensors", reader, (0.1, 1 / 3))
    back, units = load_reader(tmp_path / "a.safetensors")
    assert units == (0.1, 1 / 3) and back.config == CONFIG
    reader.requires_grad_(False)
    given = drawn(1, 3, 16, 16), drawn(1, 4, 16, 16), drawn(1, 3, 4, 4)
    moved = reader(*given) - given[2]
    assert float((back(*given) - reader(*given)).norm() / moved.norm()) < 0.03


def test_another_file_is_no_reader(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="no reader"):
        load_reader(tmp_path / "a.safetensors")
    assert reader_for(PixelCodec(4)) is None


def test_the_packaged_reader_reads_a_code_from_white_better_than_the_encoder() -> None:
    model, codes = load("icons", "cpu"), list[Tensor]()
    codec = model.codec

    class Watched(LatentCodec):
        def decode(self, x0: Tensor) -> Tensor:
            codes.append(x0)
            return super().decode(x0)

    assert isinstance(codec, LatentCodec)
    watched = Watched(codec.autoencoder, codec.mean, codec.std, codec.channels, codec.multiple)
    wish = Request("heart, emoji, glossy 3D style", (1,), steps=8)
    (picture,) = generate(replace(model, codec=watched), wish)
    reader = reader_for(model.codec)
    assert reader is not None
    with torch.inference_mode():
        sent = codes[-1]
        flat = picture[:3] - picture[3:] + 1
        cut = cut_out(flat)[None]
        plain = model.codec.encode(cut)
        found = reader(flat[None], cut, plain)
    assert float((found - sent).norm()) < 0.8 * float((plain - sent).norm())
