"""CLIP's encoders: equal to `transformers` on small random networks."""

from __future__ import annotations

import pytest
import torch
from parity import assert_named_once, take
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import (
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from mezzotint.checkpoints.tables import clip as tables
from mezzotint.networks.clip import (
    Activation,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
)

END = 98


def _text(activation: Activation) -> tuple[CLIPTextModelWithProjection, ClipText]:
    torch.manual_seed(0)
    theirs = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=99,
            hidden_size=32,
            intermediate_size=64,
            projection_dim=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=12,
            hidden_act=activation,
            bos_token_id=97,
            eos_token_id=END,
        )
    ).eval()
    ours = ClipText(ClipTextConfig(99, 12, 32, 3, 4, 64, 24, activation, END)).eval()
    state = theirs.state_dict()
    prefix = "text_model." if any(name.startswith("text_model.") for name in state) else ""
    take(ours, state, tables.text(prefix))
    return theirs, ours


def _ids() -> Tensor:
    ids = torch.randint(1, 97, (2, 12))
    ids[:, 0] = 97
    ids[0, 5:], ids[1, 11] = END, END  # the rest is padding, with the same token
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_text_equals_transformers(activation: Activation) -> None:
    theirs, ours = _text(activation)
    ids = _ids()
    expected = theirs(ids, output_hidden_states=True)
    hidden, pooled = ours(ids)
    torch.testing.assert_close(pooled, expected.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    for skip in (1, 2):
        found = ours(ids, skip, normalize=False)
        torch.testing.assert_close(found.pooled, pooled)
        aim = expected.hidden_states[-1 - skip]
        torch.testing.assert_close(found.hidden, aim, atol=1e-5, rtol=1e-5)
        normalized = ours(ids, skip).hidden
        torch.testing.assert_close(normalized, ours.norm(aim), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_words_may_be_given() -> None:
    _, ours = _text("gelu")
    ids = _ids()
    assert torch.equal(ours(ids, words=ours.words(ids)).hidden, ours(ids).hidden)
    assert not torch.equal(ours(ids, words=2 * ours.words(ids)).hidden, ours(ids).hidden)


def test_bad_texts() -> None:
    _, ours = _text("gelu")
    with pytest.raises(ValueError, match="13 tokens are more than the 12 positions"):
        ours(torch.full((1, 13), END))
    with pytest.raises(ValueError, match="without its end token"):
        ours(torch.ones(1, 4, dtype=torch.long))


def test_the_layouts_name_every_weight_once() -> None:
    _, ours = _text("gelu")
    assert_named_once(ours.state_dict(), tables.text(), tables.text(""), tables.TEXT_OPEN)


@torch.no_grad()
def test_vision_equals_transformers() -> None:
    torch.manual_seed(0)
    theirs = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=16,
            patch_size=4,
        )
    ).eval()
    ours = ClipVision(ClipVisionConfig(16, 4, 32, 3, 4, 64, 24)).eval()
    take(ours, theirs.state_dict(), tables.VISION)
    x = torch.randn(2, 3, 16, 16)
    expected = theirs(x, output_hidden_states=True)
    hidden, pooled = ours(x, skip=1)
    torch.testing.assert_close(pooled, expected.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, expected.hidden_states[-2], atol=1e-5, rtol=1e-5)
