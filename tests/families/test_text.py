"""The text encoder in the package: bit-equal features in any batch, strict about length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from mezzotint.checkpoints.files import CheckpointError, read_header, save
from mezzotint.families.text import (
    DATA,
    TOKENIZER,
    WEIGHTS,
    TextEncoder,
    dequantize,
    load_text_encoder,
    quantize,
)

CAPTIONS = [
    "a red fox, flat style",
    "",
    "guitar, instrument, emoji, old Noto blob style",
    "x",
    "two small dogs playing with a ball under a very large green tree",
    "cloud with lightning and rain",
    "a blue fox, flat style",
    "Äpfel, 日本語, 🦊",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder()


def test_a_caption_has_the_same_bits_in_every_batch(encoder: TextEncoder) -> None:
    fresh = load_text_encoder(memo=0)
    alone = [fresh.tokens([caption])[0][0] for caption in CAPTIONS]
    pooled = [fresh.pooled([caption])[0] for caption in CAPTIONS]
    for size in (1, 3, 8):
        for start in range(0, len(CAPTIONS), size):
            part = list(range(start, min(start + size, len(CAPTIONS))))[::-1]  # in another order
            for one in (encoder, fresh):
                values, mask = one.tokens([CAPTIONS[i] for i in part])
                together = one.pooled([CAPTIONS[i] for i in part])
                for row, i in enumerate(part):
                    assert torch.equal(values[row][mask[row]], alone[i])
                    assert torch.equal(together[row], pooled[i])


def test_shapes_and_padding(encoder: TextEncoder) -> None:
    values, mask = encoder.tokens(["a red fox", "x"])
    assert values.shape == (2, 5, 384)
    assert values.dtype == torch.float32
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert values[~mask].eq(0).all()
    fixed, fixed_mask = encoder.tokens(["a red fox", "x"], max_tokens=9, fixed=True)
    assert fixed.shape == (2, 9, 384)
    assert torch.equal(fixed[:, :5], values)
    assert not fixed_mask[:, 5:].any()


def test_pooled_is_the_unit_mean_of_the_tokens(encoder: TextEncoder) -> None:
    values, mask = encoder.tokens(CAPTIONS)
    for row, pooled in enumerate(encoder.pooled(CAPTIONS)):
        mean = values[row][mask[row]].mean(dim=0)
        torch.testing.assert_close(pooled, mean / mean.norm())


def test_words_mean_something(encoder: TextEncoder) -> None:
    dog, puppy, plane = encoder.pooled(["a dog", "a puppy", "an airplane"])
    assert dog @ puppy > 0.7 > 0.5 > dog @ plane


def test_case_does_not_matter(encoder: TextEncoder) -> None:
    assert torch.equal(encoder.pooled(["A Red FOX"]), encoder.pooled(["a red fox"]))


def test_the_tokenizer_neither_cuts_nor_pads() -> None:
    tokenizer = Tokenizer.from_file(str(DATA / TOKENIZER))
    assert tokenizer.encode("a red fox").ids == [101, 1037, 2417, 4419, 102]
    assert len(tokenizer.encode("fox " * 700).ids) == 702


def test_features_do_not_depend_on_the_callers_autocast() -> None:
    expected = load_text_encoder(memo=0).tokens(CAPTIONS[:2])[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(load_text_encoder(memo=0).tokens(CAPTIONS[:2])[0], expected)


def test_what_is_remembered_was_encoded_on_as_many_threads() -> None:
    """Else the first of two requests would decide the last bits of the second."""
    encoder, calls = load_text_encoder(), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    encoder._network.register_forward_hook(count)
    threads = torch.get_num_threads()
    try:
        for number, seen in ((threads, 1), (threads, 1), (threads + 1, 2), (threads, 2)):
            torch.set_num_threads(number)
            encoder.tokens(["a red fox"])
            assert calls == seen
    finally:
        torch.set_num_threads(threads)


def test_what_is_returned_may_be_written_to(encoder: TextEncoder) -> None:
    before = encoder.tokens(["a red fox"])[0]
    encoder.tokens(["a red fox"])[0].zero_()
    encoder.pooled(["a red fox"]).zero_()
    assert torch.equal(encoder.tokens(["a red fox"])[0], before)
    assert not before.requires_grad


def test_too_long_is_an_error_that_counts(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match=r"'fox fox .*\.\.\.' has 72 tokens, the limit is 64"):
        encoder.tokens(["fox " * 70])
    with pytest.raises(ValueError, match="has 5 tokens, the limit is 4: shorten it"):
        encoder.pooled(["a red fox"], max_tokens=4)
    assert encoder.tokens(["fox " * 510], max_tokens=512)[0].shape == (1, 512, 384)
    with pytest.raises(ValueError, match="between 2 and 512, not 513"):
        encoder.tokens(["a"], max_tokens=513)


def test_misuse_is_an_error(encoder: TextEncoder) -> None:
    with pytest.raises(TypeError, match="write \\[caption\\]"):
        encoder.tokens("a red fox")
    with pytest.raises(ValueError, match="no captions"):
        encoder.tokens([])


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    load_text_encoder()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_damaged_or_foreign_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="install the package again"):
        load_text_encoder(tmp_path)
    (tmp_path / TOKENIZER).write_bytes((DATA / TOKENIZER).read_bytes())
    with pytest.raises(CheckpointError, match="no such file"):
        load_text_encoder(tmp_path)
    save(tmp_path / WEIGHTS, {"a": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match=r"is no text encoder: 'embedding\.word\.int8'"):
        load_text_encoder(tmp_path)
    (tmp_path / TOKENIZER).write_text("{}")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        load_text_encoder(tmp_path)


def test_quantized_words_are_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "embedding.word.weight": torch.randn(50, 16, generator=generator),
        "other": torch.randn(4, generator=generator),
    }
    state["embedding.word.weight"][7] = 0  # an unused row
    shipped = quantize(state, torch.float16)
    back = dequantize(shipped)
    step = state["embedding.word.weight"].abs().amax(dim=1, keepdim=True) / 127
    error = (back["embedding.word.weight"] - state["embedding.word.weight"]).abs()
    assert (error <= step * 0.501).all()
    assert shipped["embedding.word.int8"].dtype == torch.int8
    assert torch.equal(back["other"], state["other"].half().float())


def test_the_shipped_files_are_small_and_say_their_licence() -> None:
    header = read_header(DATA / WEIGHTS)
    about = json.loads(header.metadata["mezzotint"])
    assert about["license"] == "Apache-2.0"
    assert "all-MiniLM-L6-v2" in about["source"]
    assert header.size + (DATA / TOKENIZER).stat().st_size < 34.1e6
