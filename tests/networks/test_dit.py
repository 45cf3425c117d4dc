"""The diffusion transformer: its pieces against closed forms, and what it promises as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.networks import dit
from mezzotint.networks.dit import DiT, DiTConfig

TINY = DiTConfig(3, 3, patch=2, width=48, depth=2, heads=2, vector_width=5, token_width=7)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def network(config: DiTConfig = TINY) -> DiT:
    """A network in float64 with random weights everywhere (fresh ones end in zeros)."""
    net = DiT(config).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net


def inputs(batch: int = 2, size: tuple[int, ...] = (6, 8), tokens: int = 4) -> dict[str, Tensor]:
    return {
        "x": torch.randn(batch, 3, *size).double(),
        "time": torch.rand(batch).double(),
        "vector": torch.randn(batch, 5).double(),
        "tokens": torch.randn(batch, tokens, 7).double(),
    }


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_patchify_and_back(dims: int) -> None:
    x = torch.randn(2, 3, *(4, 6, 8)[:dims])
    grid = [n // 2 for n in x.shape[2:]]
    patches = dit.patchify(x, 2)
    assert patches.shape == (2, torch.tensor(grid).prod(), 3 * 2**dims)
    assert torch.equal(dit.unpatchify(patches, grid, 2, 3), x)


def test_a_patch_is_a_square_of_the_picture() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert dit.patchify(x, 2)[0, 1].tolist() == [2, 3, 6, 7]


def test_rotary_scores_depend_on_differences_of_positions_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 24)

    def score(a: tuple[int, int, int], b: tuple[int, int, int]) -> Tensor:
        cos, sin = dit.rotary(torch.tensor([[a, b]]), 24)
        return (
            dit.rotate(q, cos[:, :, :1], sin[:, :, :1])
            * dit.rotate(k, cos[:, :, 1:], sin[:, :, 1:])
        ).sum()

    base = score((0, 3, 1), (2, 1, 1))
    torch.testing.assert_close(score((5, 10, 4), (7, 8, 4)), base)
    assert not torch.isclose(score((0, 3, 1), (2, 2, 1)), base)


def test_rotation_keeps_lengths_and_position_zero_turns_nothing() -> None:
    x = torch.randn(1, 2, 3, 24)
    cos, sin = dit.rotary(torch.tensor([[[0, 0], [3, 4], [9, 1]]]), 24)
    turned = dit.rotate(x, cos, sin)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_written_out_attention_is_the_fused_one() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 12).double()
    mask = (torch.rand(2, 1, 1, 9) > 0.3) | (torch.arange(9) == 0)
    for m in (None, mask):
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=m)
        torch.testing.assert_close(dit.attend(q, k, v, m), fused)


def test_rms_norm() -> None:
    x = torch.randn(2, 3, 8).double()
    torch.testing.assert_close(
        dit.normalise(x), x / x.square().mean(-1, keepdim=True).add(1e-6).sqrt()
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bottleneck", [0, 8])
def test_shapes(dims: int, bottleneck: int) -> None:
    net = network(replace(TINY, dims=dims, width=48 if dims != 3 else 64, bottleneck=bottleneck))
    given = inputs(size=(4, 6, 2)[:dims])
    assert net(**given).shape == given["x"].shape


@pytest.mark.parametrize("head", ["linear", "conv"])
@pytest.mark.parametrize("size", [(5, 7), (2, 11), (1, 1)])
def test_any_size_and_aspect(head: str, size: tuple[int, int]) -> None:
    net = network(replace(TINY, head=head))  # type: ignore[arg-type]
    assert net(**inputs(size=size)).shape == (2, 3, *size)


def test_a_fresh_network_gives_zero() -> None:
    given = {name: value.float() for name, value in inputs().items()}
    for head in ("linear", "conv"):
        assert not DiT(replace(TINY, head=head))(**given).any()  # type: ignore[arg-type]


def test_a_sample_does_not_know_its_batch() -> None:
    net, given = network(), inputs(batch=3)
    whole = net(**given)
    for i in range(3):
        alone = net(**{name: value[i : i + 1] for name, value in given.items()})
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-12, atol=1e-12)


def test_masked_tokens_change_nothing() -> None:
    net, given = network(), inputs()
    padded = F.pad(given["tokens"], (0, 0, 0, 3), value=9.0)
    mask = torch.arange(7) < 4
    masked = net(**{**given, "tokens": padded}, tokens_mask=mask.expand(2, -1))
    torch.testing.assert_close(masked, net(**given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["x", "time", "vector", "tokens"])
def test_every_input_matters(name: str) -> None:
    net, given = network(), inputs()
    changed = {**given, name: given[name] + 0.1}
    assert not torch.allclose(net(**changed), net(**given))


def test_the_order_of_tokens_matters_and_their_ids_say_it() -> None:
    net, given = network(), inputs()
    plain, turned = net(**given), {**given, "tokens": given["tokens"].flip(1)}
    assert not torch.allclose(net(**turned), plain)
    ids = dit.text_ids(4, 2, torch.device("cpu")).flip(1).expand(2, -1, -1)
    torch.testing.assert_close(net(**turned, tokens_ids=ids), plain, rtol=1e-12, atol=1e-12)


def test_neighbours_across_a_patch_border_talk_in_the_conv_head_only() -> None:
    for head, reach in (("linear", False), ("conv", True)):
        config = replace(TINY, patch=4, head=head)  # type: ignore[arg-type]
        head_module = network(config).head
        tokens = torch.randn(1, 2, 48).double().requires_grad_()
        picture = head_module(tokens, [1, 2])  # (1, 3, 4, 8)
        (gradient,) = torch.autograd.grad(picture[0, :, :, 3].sum(), tokens)
        assert bool(gradient[0, 1].any()) is reach


def test_perturbed_attention_sees_no_other_token() -> None:
    net, given = network(), inputs()
    both = frozenset({0, 1})
    plain, alone = net(**given), net(**given, perturb=both)
    assert not torch.allclose(plain, alone)
    other = {**given, "tokens": torch.randn_like(given["tokens"])}
    # With every attention the identity, the text tokens reach no patch.
    torch.testing.assert_close(net(**other, perturb=both), alone)
    assert not torch.allclose(net(**other, perturb=frozenset({0})), alone)


def test_a_skipped_block_is_left_out() -> None:
    net, given = network(), inputs()
    skipped = net(**given, skip=frozenset({1}))
    assert not torch.allclose(skipped, net(**given))
    net.blocks = net.blocks[:1]
    assert torch.equal(net(**given), skipped)


@pytest.mark.parametrize("name", ["perturb", "skip"])
def test_a_number_without_a_block_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} \[1, 2\] is out of range: there are 2, from 0"):
        network()(**inputs(), **{name: frozenset({1, 2})})


def test_gradients_reach_every_weight() -> None:
    for head, bottleneck in itertools.product(("linear", "conv"), (0, 8)):
        net = network(replace(TINY, head=head, bottleneck=bottleneck))  # type: ignore[arg-type]
        net(**inputs()).square().sum().backward()
        silent = [n for n, w in net.named_parameters() if w.grad is None or not w.grad.any()]
        assert not silent


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 rotary axes"):
        DiT(replace(TINY, width=40))
    with pytest.raises(ValueError, match="conv head needs two dimensions"):
        DiT(replace(TINY, dims=1, head="conv"))
    with pytest.raises(ValueError, match="without text tokens"):
        network(replace(TINY, token_width=0))(**inputs())
