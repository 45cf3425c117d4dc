"""The U-Net: shapes, conditioning, ports and switches, each against what it promises."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from mezzotint.networks import unet
from mezzotint.networks.unet import UNet, UNetConfig

TINY = UNetConfig(
    in_channels=3,
    out_channels=2,
    width=16,
    multipliers=(1, 2),
    blocks=2,
    attention=(False, True),
    head_width=8,
    group_width=4,
    vector_width=5,
    context_width=6,
)


def config(**changes: object) -> UNetConfig:
    return UNetConfig(**(asdict(TINY) | changes))  # type: ignore[arg-type]


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Leave no parameter at its zero initialization."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(generator=generator)
            parameter.mul_(0.2).add_(1 if "gain" in name or "norm" in name else 0)


def build(settings: UNetConfig = TINY, dtype: torch.dtype = torch.float64) -> UNet:
    torch.manual_seed(0)
    network = UNet(settings).to(dtype).eval()
    randomize(network)
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def inputs(batch: int = 3, size: tuple[int, ...] = (8, 8)) -> dict[str, Tensor]:
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])[:batch]
    return {
        "x": normal(batch, 3, *size),
        "time": torch.linspace(0.1, 0.9, batch, dtype=torch.float64),
        "vector": normal(batch, 5, seed=2),
        "context": normal(batch, 4, 6, seed=3),
        "context_mask": mask,
    }


def close(a: Tensor, b: Tensor, tolerance: float = 1e-11) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.mark.parametrize(
    ("dims", "patch", "size"),
    [
        (1, 1, (16,)),
        (1, 4, (37,)),
        (2, 1, (8, 8)),
        (2, 1, (7, 12)),
        (2, 2, (5, 18)),
        (2, 4, (1, 9)),
        (3, 1, (4, 6, 2)),
        (3, 2, (3, 9, 5)),
    ],
)
def test_any_size_and_number_of_dimensions(dims: int, patch: int, size: tuple[int, ...]) -> None:
    network = build(config(dims=dims, patch=patch))
    y = network(**inputs(size=size))
    assert y.shape == (3, 2, *size)
    assert y.isfinite().all()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_depth_to_space_undoes_space_to_depth(dims: int, patch: int) -> None:
    x = normal(2, 3, *(patch * n for n in (2, 3, 4)[:dims]))
    folded = unet.space_to_depth(x, patch)
    assert folded.shape == (2, 3 * patch**dims, *(2, 3, 4)[:dims])
    assert torch.equal(unet.depth_to_space(folded, patch), x)
    if dims == 2:
        assert torch.equal(folded, nn.functional.pixel_unshuffle(x, patch))


def test_padding_repeats_the_edge_and_is_cropped() -> None:
    """A size that is no multiple of the stride is the padded picture's output, cropped."""
    network = build()
    given = inputs(size=(5, 7))
    padded = given | {"x": nn.functional.pad(given["x"], (0, 1, 0, 1), mode="replicate")}
    assert torch.equal(network(**given), network(**padded)[..., :5, :7])


def test_a_sample_in_a_batch_is_the_sample_alone() -> None:
    network, given = build(), inputs(size=(6, 8))
    together = network(**given)
    for i in range(3):
        alone = network(**{name: value[i : i + 1] for name, value in given.items()})
        assert close(alone[0], together[i], 1e-12)


def test_the_new_network_outputs_zero_and_its_blocks_are_identities() -> None:
    torch.manual_seed(0)
    network, given = UNet(TINY).double(), inputs()
    assert torch.equal(network(**given), torch.zeros(3, 2, 8, 8, dtype=torch.float64))
    for block in (network.down[2], network.middle[0], network.up[0]):
        x = normal(3, 32, 4, 4)
        y = block(x, normal(3, 64), given["context"], given["context_mask"], False)
        assert torch.equal(y, x)


def test_gradient_reaches_every_parameter() -> None:
    network = build(config(patch=2))
    network(**inputs()).square().sum().backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]
    assert silent == []


def test_dropout_acts_in_training_only() -> None:
    network, given = build(config(dropout=0.5)), inputs()
    assert torch.equal(network(**given), build()(**given))
    network.train()
    assert not close(network(**given), build()(**given), 1e-3)


def test_time_and_vector_matter() -> None:
    network, given = build(), inputs()
    y = network(**given)
    for name in ("time", "vector"):
        changed = network(**(given | {name: given[name] + 0.05}))
        assert (changed - y).abs().max() > 1e-3 * y.abs().max(), name


def test_time_embedding_is_cosines_and_sines_at_geometric_frequencies() -> None:
    time = torch.tensor([0.0, 0.25, -3.0])
    embedding = unet.embed_time(time, 6, (0.5, 50.0))
    frequencies = torch.tensor([0.5, 5.0, 50.0])
    wanted = torch.cat([f(time[:, None] * frequencies) for f in (torch.cos, torch.sin)], dim=1)
    assert torch.allclose(embedding, wanted, atol=1e-5)
    assert unet.embed_time(time.bfloat16(), 6, (0.5, 50.0)).dtype == torch.float32


def test_padding_tokens_change_nothing() -> None:
    network, given = build(), inputs()
    y = network(**given)
    garbage = given["context"] + 100 * (~given["context_mask"])[..., None]
    assert torch.equal(network(**(given | {"context": garbage})), y)
    longer = torch.cat((given["context"], normal(3, 5, 6)), dim=1)
    mask = nn.functional.pad(given["context_mask"], (0, 5), value=False)
    assert close(network(**(given | {"context": longer, "context_mask": mask})), y)
    real = network(**(given | {"context_mask": None}))
    assert close(real[0], y[0])
    assert not close(real[1], y[1], 1e-3)


def test_no_real_token_is_no_context() -> None:
    network, given = build(), inputs()
    without = network(given["x"], given["time"], given["vector"])
    assert close(network(**given)[2], without[2])
    empty = network(given["x"], given["time"], given["vector"], given["context"][:, :0])
    assert close(empty, without)


def test_the_order_of_tokens_does_not_matter() -> None:
    network, given = build(), inputs()
    flipped = {name: given[name].flip(1) for name in ("context", "context_mask")}
    assert close(network(**(given | flipped)), network(**given))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """One query, one head, one sample at a time."""
    batch, heads, queries, width = q.shape
    out = torch.zeros(batch, queries, heads * width, dtype=q.dtype)
    for b in range(batch):
        keep = slice(None) if mask is None else mask[b]
        for h in range(heads):
            for n in range(queries):
                weight = ((k[b, h, keep] @ q[b, h, n]) / width**0.5).exp()
                y = (weight[:, None] * v[b, h, keep]).sum(0) / weight.sum()
                out[b, n, h * width : (h + 1) * width] = y
    return out


@pytest.mark.parametrize("written_out", [0, 10**6])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_a_softmax(
    written_out: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "WRITTEN_OUT", written_out)
    q, k, v = normal(2, 3, 5, 4, seed=4), normal(2, 3, 7, 4, seed=5), normal(2, 3, 7, 4, seed=6)
    mask = torch.rand(2, 7, generator=torch.Generator().manual_seed(0)) > 0.4
    wide = mask[:, None, None] if masked else None
    wanted = softmax_attention(q, k, v, mask if masked else None)
    assert close(unet.attend(q, k, v, wide), wanted, 1e-12)


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def unit(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def test_self_attention_against_the_formula() -> None:
    layer = unet.SelfAttention(TINY, 32).double()
    randomize(layer)
    x = normal(2, 32, 3, 2)
    tokens = layer.norm(x).flatten(2).mT
    q, k, v = (heads(part, 4) for part in layer.qkv(tokens).chunk(3, dim=-1))
    y = softmax_attention(unit(q, layer.q_gain), unit(k, layer.k_gain), v, None)
    assert close(layer(x), x + layer.out(y).mT.reshape(x.shape), 1e-12)
    alone = tokens @ layer.qkv.weight[64:].mT + layer.qkv.bias[64:]
    assert close(layer(x, identity=True), x + layer.out(alone).mT.reshape(x.shape), 1e-12)


def test_cross_attention_against_the_formula() -> None:
    layer = unet.CrossAttention(TINY, 32).double()
    randomize(layer)
    x, context = normal(2, 32, 3, 2), normal(2, 4, 6, seed=2)
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    q = unit(heads(layer.q(layer.norm(x).flatten(2).mT), 4), layer.q_gain)
    k, v = (heads(part, 4) for part in layer.kv(context).chunk(2, dim=-1))
    k = unit(k, layer.k_gain)
    weight = (q @ k.mT / 8**0.5).exp() * mask[:, None, None]
    y = (weight / (1 + weight.sum(-1, keepdim=True)) @ v).transpose(1, 2).flatten(2)
    wanted = x + (y @ layer.out.weight.mT).mT.reshape(x.shape)
    assert close(layer(x, context, mask), wanted, 1e-12)
    assert torch.equal(layer(x, context, mask)[1], x[1])


def group_norm(x: Tensor, width: int) -> Tensor:
    """Zero mean and unit variance over each group of channels and the picture."""
    groups = x.unflatten(1, (-1, width))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = groups.var((2, 3, 4), keepdim=True, correction=0)
    return ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)


def test_residual_block_against_the_formula() -> None:
    block = build().down[0]
    x, embedding = normal(3, 16, 8, 8), normal(3, 64, seed=2)
    gain, bias = (p[:, None, None] for p in (block.norm1.weight, block.norm1.bias))
    y = block.conv1(nn.functional.silu(group_norm(x, 4) * gain + bias))
    scale, shift = block.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
    y = block.conv2(nn.functional.silu(group_norm(y, 4) * (1 + scale) + shift))
    assert close(block(x, embedding, None, None, False), x + y, 1e-12)


def recorded(network: UNet, **given: object) -> tuple[Tensor, list[Tensor]]:
    """The output, and the output of every block that ran, in order."""
    seen: list[Tensor] = []
    blocks = [*network.down, *network.middle, *network.up]
    hooks = [b.register_forward_hook(lambda _m, _i, y: seen.append(y)) for b in blocks]
    y = network(**given)
    for hook in hooks:
        hook.remove()
    return y, seen


def test_skip_leaves_one_block_out_and_nothing_else() -> None:
    network, given = build(), inputs()
    blocks = [*network.down, *network.middle, *network.up]
    assert network.block_count == len(blocks) == 10
    y, before = recorded(network, **given)
    for n, block in enumerate(blocks):
        skipped, after = recorded(network, **given, skip=frozenset({n}))
        assert len(after) == 9
        assert all(torch.equal(a, b) for a, b in zip(after[:n], before[:n], strict=True))
        assert not close(skipped, y, 1e-3)
        saved, block.forward = block.forward, lambda x, *_: x
        assert torch.equal(network(**given), skipped)
        block.forward = saved
    assert torch.equal(network(**given), y)


def test_every_level_may_have_its_own_number_of_blocks() -> None:
    network, given = build(config(blocks=(3, 1))), inputs()
    _, seen = recorded(network, **given)
    edges = [8, 8, 8, 4, 4, 4, 4, 8, 8, 8]  # down, middle, up
    assert [tuple(y.shape) for y in seen] == [(3, 16 if n == 8 else 32, n, n) for n in edges]
    assert network.ports == (16, 16, 16, 32, 32)
    assert network.attending == (3, 4, 6)
    one_each = build(config(blocks=(2, 2)))
    assert torch.equal(one_each(**given), build()(**given))


def test_perturb_turns_one_self_attention_into_the_identity() -> None:
    network, given = build(), inputs()
    assert network.attending == (2, 3, 4, 6, 7)
    blocks = [*network.down, *network.middle, *network.up]
    y, before = recorded(network, **given)
    for number, n in enumerate(network.attending):
        perturbed, after = recorded(network, **given, perturb=frozenset({number}))
        assert all(torch.equal(a, b) for a, b in zip(after[:n], before[:n], strict=True))
        assert not close(perturbed, y, 1e-6)
        attention = blocks[n].attention
        saved = attention.forward
        attention.forward = lambda x, _identity, saved=saved: saved(x, True)
        assert torch.equal(network(**given), perturbed)
        attention.forward = saved


def test_residuals_are_added_at_their_ports() -> None:
    network, given = build(), inputs()
    _, seen = recorded(network, **given)
    assert network.ports == (16, 16, 32, 32, 32)
    shapes = [(3, w, n, n) for w, n in zip(network.ports, (8, 8, 4, 4, 4), strict=True)]
    residuals = tuple(normal(*shape, seed=10 + i) for i, shape in enumerate(shapes))
    entered: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda _m, i, _y: entered.append(i[0])) for m in network.merge]
    network(**given, residuals=residuals)
    for hook in hooks:
        hook.remove()
    middle = entered[0][:, :32]
    assert close(middle, seen[5] + residuals[4], 1e-13)
    for x, n in zip(entered, (3, 2, 1, 0), strict=True):
        assert close(x[:, x.shape[1] // 2 :], seen[n] + residuals[n], 1e-13)


def test_zero_residuals_change_nothing() -> None:
    network, given = build(), inputs()
    _, seen = recorded(network, **given)
    zeros = tuple(torch.zeros_like(seen[n]) for n in (0, 1, 2, 3, 5))
    assert torch.equal(network(**given, residuals=zeros), network(**given))


def test_skip_scale_keeps_the_variance_of_equal_parts() -> None:
    plain, scaled = build(), build(config(skip_scale=0.5**0.5))
    block, other = plain.down[0], scaled.down[0]
    arguments = (normal(3, 16, 8, 8), normal(3, 64), None, None, False)
    assert close(other(*arguments), block(*arguments) * 0.5**0.5, 1e-13)


def test_names_of_the_parameters() -> None:
    names = set(UNet(TINY).state_dict())
    assert {name.split(".")[0] for name in names} == {
        "time", "vector", "stem", "down", "downsample", "middle", "merge", "up", "upsample",
        "norm", "head",
    }  # fmt: skip
    assert {name.removeprefix("down.2.") for name in names if name.startswith("down.2.")} == {
        "norm1.weight", "norm1.bias", "conv1.weight", "conv1.bias",
        "modulation.weight", "modulation.bias", "conv2.weight", "conv2.bias",
        "attention.norm.weight", "attention.norm.bias",
        "attention.qkv.weight", "attention.qkv.bias",
        "attention.q_gain", "attention.k_gain", "attention.out.weight", "attention.out.bias",
        "cross_attention.norm.weight", "cross_attention.norm.bias",
        "cross_attention.q.weight", "cross_attention.q.bias",
        "cross_attention.kv.weight", "cross_attention.kv.bias",
        "cross_attention.q_gain", "cross_attention.k_gain", "cross_attention.out.weight",
    }  # fmt: skip


def test_autocast_agrees_with_float32() -> None:
    network = build(dtype=torch.float32)
    given = {n: v if v.dtype == torch.bool else v.float() for n, v in inputs().items()}
    y = network(**given)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(**given)
    assert 0 < (low.float() - y).std() < 0.05 * y.std()


def test_group_statistics_are_wider_than_bfloat16() -> None:
    """Values of spread 1 around 300: bfloat16 sums of them would lose the spread."""
    x = (300 + 4 * normal(1, 16, 32, 32)).bfloat16()
    norm = build(dtype=torch.float32).down[0].norm2
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert (y.double() - norm.double()(x.double())).abs().max() < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": 4}, "dims is 4"),
        ({"width": 0}, "width is 0"),
        ({"blocks": 0}, "blocks is 0"),
        ({"blocks": (2, 0)}, "blocks is 0"),
        ({"blocks": (2, 2, 2)}, "blocks 3: one entry of each a level"),
        ({"attention": (True,)}, "one entry of each a level"),
        ({"multipliers": (), "attention": ()}, "one entry of each a level"),
        ({"width": 18}, "group_width 4"),
        ({"multipliers": (1, 0)}, "a level of 0 channels"),
        ({"head_width": 24}, "head_width 24"),
        ({"time_frequencies": (2.0, 1.0)}, "time_frequencies"),
    ],
)
def test_an_impossible_configuration_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": normal(3, 4, 8, 8)}, "3 channels over 2 dimensions"),
        ({"x": normal(3, 3, 8)}, "3 channels over 2 dimensions"),
        ({"x": normal(3, 3, 8, 0)}, "3 channels over 2 dimensions"),
        ({"time": torch.tensor(0.5)}, "one a sample"),
        ({"vector": None}, "vector has shape None"),
        ({"vector": normal(3, 4)}, "this U-Net takes"),
        ({"context": normal(3, 4, 5)}, "the context has shape"),
        ({"context": None}, "context_mask"),
        ({"context_mask": torch.ones(3, 4)}, "context_mask must be bool"),
        ({"context_mask": torch.ones(3, 5, dtype=torch.bool)}, "context_mask"),
        ({"residuals": (normal(3, 16, 8, 8),)}, "the ports take"),
        ({"residuals": tuple(normal(3, w, 1, 1) for w in (16, 16, 32, 32, 32))}, "the ports take"),
        ({"perturb": frozenset({5})}, r"perturb \[5\] is out of range"),
        ({"skip": frozenset({-1})}, r"skip \[-1\] is out of range"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(**(inputs() | changes))


def test_context_for_a_network_without_cross_attention_is_refused() -> None:
    given = inputs()
    network = build(config(context_width=0))
    with pytest.raises(ValueError, match="without cross-attention"):
        network(**given)
    with pytest.raises(ValueError, match="this U-Net takes None"):
        build(config(vector_width=0))(given["x"], given["time"], given["vector"])


# --- the canvas -------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_canvas_is_input_drawn_from_the_vector(dims: int) -> None:
    settings = config(dims=dims, canvas=2, canvas_edge=2)
    network = build(settings)
    given = inputs(size=(4,) * dims)

    # The same network without a canvas, given the enlarged map as input channels of its own.
    plain = UNet(config(dims=dims, in_channels=5)).double().eval()
    plain.load_state_dict({n: w for n, w in network.state_dict().items() if "canvas" not in n})
    assert network.canvas is not None
    drawn = network.canvas(given["vector"]).view(3, 2, *(2,) * dims)
    for dim in range(2, 2 + dims):
        drawn = drawn.repeat_interleave(2, dim)
    wider = given | {"x": torch.cat([given["x"], drawn], dim=1)}
    assert torch.allclose(plain(**wider), network(**given), rtol=0, atol=1e-12)


def test_a_canvas_takes_any_size_and_refuses_what_cannot_be() -> None:
    assert build(config(canvas=1))(**inputs(size=(6, 10))).shape == (3, 2, 6, 10)
    with pytest.raises(ValueError, match="canvas is -1"):
        config(canvas=-1)
    with pytest.raises(ValueError, match="no vector to draw it from"):
        UNet(config(canvas=1, vector_width=0))
