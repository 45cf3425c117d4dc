"""Samples are pure functions of their number; losses are what their formulas say."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Level
from mezzotint.diffusion.noise import noise
from mezzotint.diffusion.prediction import ROWS, target
from mezzotint.engine import objectives
from mezzotint.engine.config import parse_config
from mezzotint.engine.data_order import DataOrder, Streams
from mezzotint.engine.objectives import Batch, Objective, autoencoder_loss
from mezzotint.engine.pictures import latent_statistics
from mezzotint.families.model import Model
from mezzotint.families.native import NativeConfig, build
from mezzotint.modalities.dataset import Item
from mezzotint.networks.autoencoder import Autoencoder
from mezzotint.networks.dit import DiTConfig

CONFIG = """
name = "t"
seed = 5
[data]
source = "x"
size = 4
channels = "grey"
flip = true
[network]
kind = "dit"
patch = 2
width = 12
depth = 1
heads = 2
[model]
prediction = "v"
schedule = "cosine"
condition = "class"
[train]
pictures = 64
batch = 8
learning_rate = 1e-3
drop_condition = 0.25
"""


@dataclass(frozen=True)
class Items:
    """The part of a data set that an objective reads."""

    items: tuple[Item, ...]
    classes: tuple[str, ...] = ("a", "b")


ITEMS = Items(tuple(Item(f"{n}", (f"cap {n}",), "ab"[n % 2], 1.0) for n in range(6)))


def _pixels(indices: Sequence[int]) -> Tensor:
    return torch.stack([torch.full((1, 4, 4), float(index)) for index in indices])


def _diffusion(prediction: str = "v") -> tuple[Objective, Model]:
    config = parse_config(CONFIG.replace('"v"', f'"{prediction}"'), Path("/"))
    assert config.model is not None
    network = DiTConfig(1, 1, patch=2, width=12, depth=1, heads=2, vector_width=2)
    native = NativeConfig(
        "t", network, "grey", "class", prediction, "cosine", config.model.defaults(4), ("a", "b")
    )
    model = build(native)
    told = model.conditioner
    return objectives.diffusion(config, ITEMS, model, _pixels, told), model  # type: ignore[arg-type]


def _joined(batches: list[Batch]) -> list[Tensor]:
    parts = [(b.x0, b.eps, b.time, b.level.sigma, b.conditioning.vector) for b in batches]  # type: ignore[union-attr]
    return [torch.cat(column) for column in zip(*parts, strict=True)]  # type: ignore[arg-type]


def test_a_sample_does_not_know_its_batch() -> None:
    objective, _ = _diffusion()
    whole = _joined([objective.draw(range(8, 24))])
    split = _joined([objective.draw(range(8, 11)), objective.draw(range(11, 24))])
    fresh = _joined([_diffusion()[0].draw(range(8, 24))])
    for a, b, c in zip(whole, split, fresh, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert torch.equal(whole[1][0], noise(5, "train/noise", 8, (1, 4, 4)))


def test_flips_and_dropped_conditions_have_their_shares() -> None:
    objective, _ = _diffusion()
    x0, _, time, _, vector = _joined([objective.draw(range(800))])
    item = x0[:, 0, 0, 0].long()
    assert 0.45 < (item >= 6).double().mean() < 0.55  # mirrored ones
    told = vector.sum(1) > 0
    assert 0.70 < told.double().mean() < 0.80
    assert torch.equal(vector[told].argmax(1), (item % 6 % 2)[told])
    # Stratified: every eight samples in a row hold one level in each eighth.
    bins = (time * 8).long().view(-1, 8).sort(1).values
    assert torch.equal(bins, torch.arange(8).expand_as(bins))


def test_a_network_of_zeros_has_the_loss_of_its_target() -> None:
    """A fresh network gives 0, so its loss is the target's mean square."""
    objective, model = _diffusion()
    batch = objective.draw(range(5))
    assert batch.level is not None
    aim = target(ROWS["v"], batch.x0, batch.eps, batch.level)
    torch.testing.assert_close(objective.losses(batch), aim.square().flatten(1).mean(1))
    assert objective.network is model.network


def test_a_perfect_network_has_no_loss() -> None:
    objective, model = _diffusion("eps")
    batch = objective.draw(range(4))

    def perfect(x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        assert batch.level is not None
        alpha, sigma = batch.level.to(x)
        torch.testing.assert_close(time.double(), batch.time, atol=1e-6, rtol=0)
        return (x - alpha * batch.x0) / sigma

    config = parse_config(CONFIG.replace('"v"', '"eps"'), Path("/"))
    perfect_model = replace(model, call=perfect)  # type: ignore[arg-type]
    found = objectives.diffusion(  # type: ignore[arg-type]
        config, ITEMS, perfect_model, _pixels, model.conditioner
    )
    assert found.losses(batch).abs().max() < 1e-6


def test_the_named_levels_and_weights() -> None:
    config = parse_config(CONFIG, Path("/"))
    _, model = _diffusion()
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for levels in ("uniform", "logit_normal", "edm_lognormal"):
        train = replace(config.train, levels=levels, level_mean=0.3)
        level = objectives.level_sampler(train, model.schedule)(u)
        middle = {"uniform": 0.5, "logit_normal": torch.tensor(0.3).sigmoid().item()}
        if levels in middle:
            assert model.schedule.time(level)[1].item() == pytest.approx(middle[levels], abs=1e-6)
        else:
            assert (level.sigma / level.alpha)[1].log().item() == pytest.approx(0.3)
    level = Level(torch.tensor([0.6]), torch.tensor([0.8]))
    snr = (0.6 / 0.8) ** 2
    expected = {"plain": 1.0, "min_snr": snr, "p2": 1 / (1 + snr), "edm": 4 + snr, "flow": 1 / 0.64}
    scale = {"min_snr": 0.64, "p2": 0.36, "edm": 0.64, "flow": 0.64}  # of x0 or eps, on F = v
    for loss, value in expected.items():
        weight = objectives.level_weight(replace(config.train, loss=loss))
        assert weight(ROWS["v"], level).item() == pytest.approx(value * scale.get(loss, 1.0))


# --- conditions -------------------------------------------------------------------------------


def test_prompts() -> None:
    item = Item("x", ("one", "two"), "label", 1.0)
    assert objectives.prompt_of(item, "none", 0.9) == ""
    assert objectives.prompt_of(item, "class", 0.9) == "label"
    assert [objectives.prompt_of(item, "text", u) for u in (0.01, 0.49, 0.51, 0.999)] == [
        "one", "one", "two", "two",
    ]  # fmt: skip


# --- order ------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation() -> None:
    order = DataOrder([1.0] * 10, seed=1)
    epochs = [[order.item(n) for n in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    late = DataOrder([1.0] * 10, seed=1)  # asked out of order, as after a restart
    assert [late.item(n) for n in range(29, -1, -1)] == [n for e in epochs for n in e][::-1]
    assert [order.epoch(n) for n in (0, 9, 10, 29)] == [0, 0, 1, 2]


def test_weights_are_expected_repeats() -> None:
    order, epochs = DataOrder([2.0, 0.2, 1.5], seed=0), 400
    counts: Counter[int] = Counter()
    for n in itertools.count():
        if order.epoch(n) == epochs:
            break
        counts[order.item(n)] += 1
    assert counts[0] == 2 * epochs
    assert counts[1] == pytest.approx(0.2 * epochs, rel=0.2)
    assert counts[2] == pytest.approx(1.5 * epochs, rel=0.05)


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0], [float("nan")], [1.0, float("inf")]])
def test_orders_of_nothing(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="items, each with a finite weight above 0"):
        DataOrder(weights, 0)


def test_streams_do_not_depend_on_who_asks() -> None:
    streams = Streams(2)
    drawn = streams("level", range(4090, 4106))
    assert torch.equal(Streams(2)("level", [4100]), drawn[10:11])
    assert not torch.equal(streams("flip", range(4090, 4106)), drawn)
    assert bool((drawn > 0).all() and (drawn < 1).all()) and len(drawn.unique()) == 16


# --- autoencoder ------------------------------------------------------------------------------


def test_autoencoder_loss_is_its_formula() -> None:
    x = torch.zeros(2, 1, 2, 2)
    y = torch.tensor([[[[1.0, 0], [0, 0]]], [[[1.0, 1], [1, 1]]]])
    mean, log_variance = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    found = autoencoder_loss(y, x, mean, log_variance, kl_weight=0.8, edge_weight=0.5)
    kl = 0.8 * 0.5 / 4  # KL of N(1, 1) from N(0, 1) is 1/2
    expected = torch.tensor([0.25 + 0.5 * 0.5 + kl, 1.0 + kl])
    torch.testing.assert_close(found, expected)


def test_autoencoder_samples_are_crops() -> None:
    text = CONFIG[: CONFIG.index("[network]")] + CONFIG[CONFIG.index("[train]") :]
    text = text.replace("size = 4", "size = 8\ncrop = 4") + (
        "[autoencoder]\nwidth = 16\ndecoder_width = 16\nmultipliers = [1, 2]\nattention = false\n"
    )
    config = parse_config(text, Path("/"))
    assert config.autoencoder is not None
    ramp = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)  # each corner tells where it was
    objective = objectives.autoencoder(
        config,
        ITEMS,  # type: ignore[arg-type]
        Autoencoder(config.autoencoder),
        lambda indices: torch.stack([ramp] * len(indices)),
    )
    batch = objective.draw(range(300))
    assert batch.x0.shape == (300, 1, 4, 4) and batch.level is None
    pixels = ((batch.x0 + 1) * 127.5).round().long()
    mirrored = pixels[:, 0, 0, 0] > pixels[:, 0, 0, 3]
    assert 0.4 < mirrored.double().mean() < 0.6
    upright = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    corners = {(int(c) // 8, int(c) % 8) for c in upright[:, 0, 0, 0]}
    assert corners == {(top, left) for top in range(5) for left in range(5)}
    again = objective.draw(range(17, 20))
    assert torch.equal(again.x0, batch.x0[17:20]) and torch.equal(again.eps, batch.eps[17:20])
    assert objective.losses(again).shape == (3,)


def test_latent_statistics() -> None:
    stored = torch.randn(50, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    stored = stored * torch.tensor([1.0, 2, 3]).view(3, 1, 1) + 5
    mean, std = latent_statistics(stored.half())
    flat = stored.half().double().permute(2, 0, 1, 3, 4).flatten(1)
    torch.testing.assert_close(mean, flat.mean(1))
    torch.testing.assert_close(std, flat.std(1))
