"""T5's encoder: equal to `transformers` on a small random network."""

from __future__ import annotations

import pytest
import torch
from parity import assert_named_once, take
from transformers.models.t5.configuration_t5 import T5Config as TheirConfig
from transformers.models.t5.modeling_t5 import T5EncoderModel

from mezzotint.checkpoints.tables.t5 import T5
from mezzotint.networks.t5 import T5Config, T5Encoder

SMALL = T5Config(vocabulary=99, width=32, depth=3, heads=4, head_width=6, hidden=48)


def _pair() -> tuple[T5EncoderModel, T5Encoder]:
    torch.manual_seed(0)
    theirs = T5EncoderModel(
        TheirConfig(
            vocab_size=99,
            d_model=32,
            d_kv=6,
            d_ff=48,
            num_layers=3,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    ours = T5Encoder(SMALL).eval()
    take(ours, theirs.state_dict(), T5)
    return theirs, ours


@pytest.mark.parametrize("count", [7, 300])  # beyond the longest distance that is told apart
@torch.no_grad()
def test_equals_transformers(count: int) -> None:
    theirs, ours = _pair()
    ids = torch.randint(0, 99, (2, count))
    expected = theirs(ids).last_hidden_state
    torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_no_real_token() -> None:
    theirs, ours = _pair()
    ids = torch.randint(0, 99, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 4:] = False
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    found = ours(ids, mask)
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0, :4], ours(ids[:1, :4])[0], atol=1e-5, rtol=1e-4)


def test_the_layout_names_every_weight_once() -> None:
    assert_named_once(T5Encoder(SMALL).state_dict(), T5)
