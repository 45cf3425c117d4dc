"""The captions' cache: the same features as the encoder's own, from memory or from a file."""

from pathlib import Path

import pytest
import torch

from mezzotint.diffusion.level import Conditioning
from mezzotint.engine.captions import caption_features
from mezzotint.families.model import Conditioner
from mezzotint.families.text import load_text_encoder

CAPTIONS = ["", "a red fox", "a blue fox, emoji, flat style", "house", "car"]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder()


def features(encoder, folder: Path | None, writes: bool = True) -> Conditioner:
    ids = {caption: encoder.ids(caption) for caption in CAPTIONS}
    return caption_features(ids, encoder, folder, writes, lambda line: None)


def parts(conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vector, tokens = conditioning.vector, conditioning.tokens
    assert vector is not None and tokens is not None and tokens.mask is not None
    return vector, tokens.values, tokens.mask


def test_they_are_the_encoders_features_up_to_half_precision(encoder):
    asked = ["house", "a blue fox, emoji, flat style", "", "house"]
    vector, values, mask = parts(features(encoder, None)(asked))
    true_values, true_mask = encoder.tokens(asked)
    assert torch.equal(mask, true_mask)
    torch.testing.assert_close(values, true_values, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(vector, encoder.pooled(asked), rtol=2e-3, atol=1e-3)


def test_without_tokens_it_tells_the_same_pooled_vector(encoder, tmp_path):
    ids = {caption: encoder.ids(caption) for caption in CAPTIONS}
    whole = features(encoder, tmp_path)(CAPTIONS)
    pooled = caption_features(ids, encoder, tmp_path, False, lambda line: None, tokens=False)
    told = pooled(CAPTIONS)
    assert told.tokens is None and torch.equal(told.vector, whole.vector)


def test_a_file_gives_the_bits_that_memory_gives(encoder, tmp_path):
    memory, written = features(encoder, None), features(encoder, tmp_path)
    reopened = features(encoder, tmp_path, writes=False)
    for conditioner in (written, reopened):
        for a, b in zip(parts(memory(CAPTIONS)), parts(conditioner(CAPTIONS)), strict=True):
            assert torch.equal(a, b)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_other_captions_have_another_file(encoder, tmp_path):
    features(encoder, tmp_path)
    ids = {caption: encoder.ids(caption) for caption in [*CAPTIONS, "boat"]}
    caption_features(ids, encoder, tmp_path, True, lambda line: None)
    assert len(list(tmp_path.iterdir())) == 2
