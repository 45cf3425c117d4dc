"""The dual encoder: its formula, its start, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mezzotint.networks.dual_encoder import DualEncoder, DualEncoderConfig

CONFIG = DualEncoderConfig(5, 3, hidden=8, dropout=0.3)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_it_is_its_formula() -> None:
    network = DualEncoder(CONFIG).double().eval()
    for weight in network.parameters():
        nn.init.normal_(weight)
    pictures, texts = torch.randn(4, 5).double(), torch.randn(6, 3).double()
    w = network.state_dict()
    hidden = F.gelu(pictures @ w["picture.1.weight"].T + w["picture.1.bias"])
    a = hidden @ w["picture.4.weight"].T + w["picture.4.bias"]
    b = texts @ w["text.weight"].T + w["text.bias"]
    cosines = (a @ b.T) / (a.norm(dim=1)[:, None] * b.norm(dim=1)[None])
    torch.testing.assert_close(network(pictures, texts), w["scale"].exp() * cosines)
    with torch.no_grad():
        network.scale.fill_(20.0)
    torch.testing.assert_close(network(pictures, texts), 100 * cosines)  # no sharper than that


def test_texts_begin_where_they_were_and_pictures_drop_out_in_training_only() -> None:
    network = DualEncoder(CONFIG)
    texts, pictures = torch.randn(6, 3), torch.randn(4, 5)
    torch.testing.assert_close(network.text(texts), texts)
    assert not torch.equal(network(pictures, texts), network(pictures, texts))
    network.eval()
    assert torch.equal(network(pictures, texts), network(pictures, texts))


def test_what_does_not_fit_is_refused() -> None:
    network = DualEncoder(CONFIG)
    with pytest.raises(ValueError, match=r"takes vectors of \(5, 3\)"):
        network(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="hidden is 0"):
        DualEncoderConfig(5, 3, hidden=0)
    with pytest.raises(ValueError, match="dropout is 1"):
        DualEncoderConfig(5, 3, hidden=8, dropout=1)
