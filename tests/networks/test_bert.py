"""The BERT encoder: closed forms, `transformers` on random and on the shipped weights, padding."""

from __future__ import annotations

import pytest
import torch
from parity import take
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig as ReferenceConfig
from transformers import BertModel as Reference

from mezzotint.checkpoints.files import load, load_into
from mezzotint.checkpoints.keys import BERT, to_theirs
from mezzotint.families.text import DATA, WEIGHTS, dequantize
from mezzotint.networks.bert import Bert, BertConfig, mean_pool

SMALL = BertConfig(vocabulary=99, width=32, depth=3, heads=4, hidden=48, positions=40)


def reference(config: BertConfig) -> Reference:
    return Reference(
        ReferenceConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.hidden,
            max_position_embeddings=config.positions,
            type_vocab_size=config.segments,
            layer_norm_eps=config.eps,
            attn_implementation="eager",
        )
    ).eval()


def ids_and_mask(vocabulary: int, lengths: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@torch.no_grad()
def small(seed: int = 0) -> Bert:
    """A small network with weights large enough that every part of it matters."""
    network = Bert(SMALL).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.normal_(std=0.3, generator=generator)
    return network


@torch.no_grad()
def test_without_layers_it_is_the_norm_of_the_summed_embeddings() -> None:
    network = Bert(BertConfig(vocabulary=9, width=8, depth=0, heads=2, hidden=8, positions=5))
    ids = torch.tensor([[3, 1, 3]])
    table = network.embedding
    total = table.word.weight[ids] + table.position.weight[:3] + table.segment.weight[0]
    expected = (total - total.mean(-1, keepdim=True)) / total.std(-1, correction=0, keepdim=True)
    actual = network(ids, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_with_equal_keys_attention_is_the_mean_of_the_real_values() -> None:
    network = small()
    layer = network.layers[0]
    assert isinstance(layer.key, nn.Linear)
    layer.key.weight.zero_()
    layer.mlp_out.weight.zero_()
    layer.mlp_out.bias.zero_()
    h = torch.randn(1, 5, SMALL.width, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([True, True, True, False, False])
    mean = layer.value(h)[:, :3].mean(dim=1, keepdim=True)
    expected = layer.mlp_norm(layer.attention_norm(h + layer.attention_out(mean)))
    torch.testing.assert_close(layer(h, mask[None, None, None]), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_equals_transformers_on_random_weights() -> None:
    other, ours = reference(SMALL), Bert(SMALL).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        parameter.normal_(std=0.3, generator=generator)
    take(ours, other.state_dict(), BERT)
    ids, mask = ids_and_mask(SMALL.vocabulary, [17, 1, 9, 40])
    expected = other(ids, attention_mask=mask.long()).last_hidden_state
    assert (ours(ids, mask) - expected)[mask].abs().max() < 1e-5


@torch.no_grad()
def test_equals_transformers_on_the_shipped_weights() -> None:
    config = BertConfig()
    other, ours = reference(config), Bert(config).eval()
    state = dequantize(load(DATA / WEIGHTS)[0])
    load_into(ours, state, WEIGHTS)
    lacking, extra = other.load_state_dict(to_theirs(state, BERT), strict=False)
    assert not extra
    assert all("pooler" in name or "position_ids" in name for name in lacking)
    ids, mask = ids_and_mask(config.vocabulary, [20, 3, 11, 64])
    expected = other(ids, attention_mask=mask.long()).last_hidden_state
    assert (ours(ids, mask) - expected)[mask].abs().max() < 1e-5


@torch.no_grad()
def test_padding_changes_no_real_token() -> None:
    network = small()
    ids, mask = ids_and_mask(SMALL.vocabulary, [7, 12])
    padded = network(ids, mask)
    alone = network(ids[:1, :7], mask[:1, :7])
    torch.testing.assert_close(padded[:1, :7], alone, atol=1e-5, rtol=0)
    ids[0, 7:] = 5  # what stands under the padding must not matter at all
    assert torch.equal(network(ids, mask)[mask], padded[mask])


def test_mean_pool_is_that_of_sentence_transformers() -> None:
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6) < torch.tensor([6, 1, 4])[:, None]
    for i, length in enumerate((6, 1, 4)):  # the mean over the real tokens, of length 1
        mean = hidden[i, :length].mean(dim=0)
        torch.testing.assert_close(mean_pool(hidden, mask)[i], mean / mean.norm())
    spread = mask.unsqueeze(-1).expand(hidden.shape).float()  # their formula, clamp included
    theirs = (hidden * spread).sum(1) / torch.clamp(spread.sum(1), min=1e-9)
    torch.testing.assert_close(mean_pool(hidden, mask), functional.normalize(theirs, p=2, dim=1))


def test_misuse_is_an_error() -> None:
    network = small()
    ids, mask = ids_and_mask(SMALL.vocabulary, [4, 2])
    with pytest.raises(ValueError, match="41 tokens are more than the 40 positions"):
        network(torch.zeros(1, 41, dtype=torch.long), torch.ones(1, 41, dtype=torch.bool))
    with pytest.raises(ValueError, match="one bool a token"):
        network(ids, mask.long())
    with pytest.raises(ValueError, match="one bool a token"):
        network(ids, mask[:, :2])
    with pytest.raises(ValueError, match="without a real token"):
        network(ids, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="does not divide into 5 heads"):
        BertConfig(width=384, heads=5)
