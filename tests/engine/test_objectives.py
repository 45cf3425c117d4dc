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
from mezzotint.engine.config import TrainConfig
from mezzotint.engine.config_file import parse_config
from mezzotint.engine.data_order import DataOrder, Streams
from mezzotint.engine.objectives import Batch, Objective, reconstruction_loss
from mezzotint.engine.pictures import latent_statistics
from mezzotint.families.model import Model
from mezzotint.families.native import NativeConfig, build
from mezzotint.modalities.dataset import Item
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.dual_encoder import DualEncoder, DualEncoderConfig

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
AUTOENCODER = "[autoencoder]\nmultipliers = [1, 2]\nattention = false\n"
HERE = Path("/")


@dataclass(frozen=True)
class Items:
    """The part of a data set that an objective reads."""

    items: tuple[Item, ...]
    classes: tuple[str, ...] = ("a", "b")


ITEMS = Items(tuple(Item(f"{n}", (f"cap {n}",), "ab"[n % 2], 1.0) for n in range(6)))


def _pixels(indices: Sequence[int]) -> Tensor:
    return torch.stack([torch.full((1, 4, 4), float(index)) for index in indices])


def _diffusion(prediction: str = "v") -> tuple[Objective, Model]:
    config = parse_config(CONFIG.replace('"v"', f'"{prediction}"'), HERE)
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


def test_below_a_time_the_error_in_features_counts_too() -> None:
    """Of a fresh network's ``v = 0`` the estimate of x0 is ``alpha x``; features that are twice
    x0 see four times its mean square error."""
    plain, model = _diffusion()
    config = parse_config(CONFIG, HERE)
    config = replace(
        config, train=replace(config.train, perceptual_weight=0.5, perceptual_time=0.6)
    )
    found = objectives.diffusion(
        config,
        ITEMS,  # type: ignore[arg-type]
        model,
        _pixels,
        model.conditioner,
        features=lambda z: [2 * z],
    )
    batch = found.draw(range(16))
    assert batch.level is not None
    alpha, sigma = (part.float().view(-1, 1, 1, 1) for part in batch.level)
    estimate = alpha * (alpha * batch.x0 + sigma * batch.eps)
    error = 4 * (estimate - batch.x0).square().flatten(1).mean(1) / (batch.level.sigma**2 + 0.05)
    low = batch.time < 0.6
    assert 0 < low.sum() < 16
    expected = plain.losses(batch) + 0.5 * (error * low).float()
    torch.testing.assert_close(found.losses(batch), expected)
    halves = [found.losses(found.draw(part)) for part in (range(8), range(8, 16))]
    torch.testing.assert_close(torch.cat(halves), expected)


def test_the_error_in_features_teaches_the_estimate_alone() -> None:
    estimate, x0 = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    level = Level(torch.tensor([0.8, 0.6]), torch.tensor([0.6, 0.8]))
    for part in (estimate, x0):
        part.requires_grad_()
    found = objectives.perceptual_error(lambda z: [1 * z, z.square()], estimate, x0, level)
    a, b = estimate.detach(), x0.detach()
    first, second = a - b, a.square() - b.square()
    mean = (first.square() + second.square()).flatten(1).mean(1) / 2
    torch.testing.assert_close(found, mean / torch.tensor([0.41, 0.69]))
    found.sum().backward()
    assert x0.grad is None and estimate.grad is not None and bool(estimate.grad.any())
    assert not objectives.perceptual_error(lambda z: [z], x0, x0, level).any()


def test_a_perfect_network_has_no_loss() -> None:
    objective, model = _diffusion("eps")
    batch = objective.draw(range(4))

    def perfect(x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        assert batch.level is not None
        alpha, sigma = batch.level.to(x)
        torch.testing.assert_close(time.double(), batch.time, atol=1e-6, rtol=0)
        return (x - alpha * batch.x0) / sigma

    config = parse_config(CONFIG.replace('"v"', '"eps"'), HERE)
    perfect_model = replace(model, call=perfect)  # type: ignore[arg-type]
    found = objectives.diffusion(  # type: ignore[arg-type]
        config, ITEMS, perfect_model, _pixels, model.conditioner
    )
    assert found.losses(batch).abs().max() < 1e-6


def test_the_named_levels_and_weights() -> None:
    config = parse_config(CONFIG, HERE)
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


FOLDS = AutoencoderConfig(1, 4, 16, 16, multipliers=(1, 2), decoder_blocks=1, attention=False)


def _squares(train: str, table: str) -> TrainConfig:
    """A run on squares of 4 of 8 pixels."""
    text = CONFIG[: CONFIG.index("[network]")] + CONFIG[CONFIG.index("[train]") :]
    text = text.replace("size = 4", "size = 8\ncrop = 4")
    return parse_config(text + train + table, HERE)


def _ramps(indices: Sequence[int]) -> Tensor:
    """Pictures of which each corner tells where it was."""
    return torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(len(indices), 1, 1, 1)


def test_reconstruction_loss_is_its_formula() -> None:
    x = torch.zeros(2, 1, 2, 2)
    y = torch.tensor([[[[1.0, 0], [0, 0]]], [[[1.0, 1], [1, 1]]]])
    found = reconstruction_loss(y, x, edge_weight=0.5)
    torch.testing.assert_close(found, torch.tensor([0.25 + 0.5 * 0.5, 1.0]))


def test_an_autoencoder_pays_for_its_code() -> None:
    network = Autoencoder(FOLDS)
    with torch.no_grad():  # the code is N(1, 1) everywhere, and black comes out
        for head in (network.encoder.head, network.decoder.head):
            head.weight.zero_()
            head.bias.zero_()  # type: ignore[union-attr]
        network.encoder.head.bias[: FOLDS.latent_channels] = 1  # type: ignore[index]
    config = _squares("kl_weight = 0.8\nedge_weight = 0\n", AUTOENCODER)
    objective = objectives.autoencoder(config, ITEMS, network, _ramps)  # type: ignore[arg-type]
    batch = objective.draw(range(3))
    kl = 0.5 * 4 / 16  # of N(1, 1) from N(0, 1) it is 1/2; four numbers of code for 16 pixels
    expected = batch.x0.abs().mean((1, 2, 3)) + 0.8 * kl
    torch.testing.assert_close(objective.losses(batch), expected)


def test_a_decoder_learns_from_noisy_codes() -> None:
    network = Autoencoder(FOLDS)
    config = _squares("edge_weight = 0.5\n", '[decoder]\nof = "a"\nnoise = 0.6\n')
    spread = torch.tensor([1.0, 2.0, 3.0, 4.0])
    objective = objectives.decoder(config, ITEMS, network, _ramps, spread)  # type: ignore[arg-type]
    assert objective.network is network.decoder
    batch = objective.draw(range(4000))
    # s z with s uniform below 0.6: its variance is 0.6^2 / 3, its fourth moment 3 * 0.6^4 / 5
    z = batch.eps / spread.view(-1, 1, 1)
    torch.testing.assert_close(z.square().mean((0, 2, 3)), torch.full((4,), 0.12), rtol=0.1, atol=0)
    torch.testing.assert_close(z.pow(4).mean(), torch.tensor(0.6**4 * 3 / 5), rtol=0.1, atol=0)
    few = objective.draw(range(5, 8))
    assert torch.equal(few.eps, batch.eps[5:8])
    y = network.decode(network.encode(few.x0)[0] + few.eps)
    torch.testing.assert_close(objective.losses(few), reconstruction_loss(y, few.x0, 0.5))
    objective.losses(few).sum().backward()
    assert all(weight.grad is None for weight in network.encoder.parameters())
    assert all(weight.grad is not None for weight in network.decoder.parameters())


def test_autoencoder_samples_are_crops() -> None:
    config = _squares("", AUTOENCODER)
    objective = objectives.autoencoder(config, ITEMS, Autoencoder(FOLDS), _ramps)  # type: ignore[arg-type]
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


# --- ranker -----------------------------------------------------------------------------------


def _ranking() -> tuple[Objective, DualEncoder, Tensor]:
    text = CONFIG[: CONFIG.index("[network]")] + CONFIG[CONFIG.index("[train]") :]
    text = text.replace("flip = true\n", 'embeddings = "e"\n') + '[ranker]\nof = "prior"\n'
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = DualEncoder(DualEncoderConfig(4, 3, hidden=8))
        table = torch.randn(len(ITEMS.items), 4)

    def told(prompts: Sequence[str]) -> Conditioning:
        assert len(set(prompts)) == len(prompts)
        return Conditioning(torch.tensor([[1.0, float(p[-1]), float(p[-1]) ** 2] for p in prompts]))

    config = parse_config(text, HERE)
    return objectives.ranker(config, ITEMS, network, table, told, "text"), network, table  # type: ignore[arg-type]


def test_a_ranker_tells_a_pictures_prompt_from_those_of_its_step() -> None:
    objective, network, table = _ranking()
    batch = objective.draw(range(8, 16))
    items = [DataOrder([1.0] * 6, 5).item(n) for n in range(8, 16)]
    assert torch.equal(batch.x0, table[items])
    prompts = list(dict.fromkeys(items))  # an item's number is its prompt here
    vectors = torch.tensor([[1.0, float(n), float(n) ** 2] for n in prompts])
    logits = network(table[items], vectors)
    own = logits[torch.arange(8), [prompts.index(item) for item in items]]
    torch.testing.assert_close(objective.losses(batch), logits.logsumexp(1) - own)
    # A part of the step is told the whole step's prompts, so the losses are the same.
    parts = [objective.draw(range(8, 11)), objective.draw(range(11, 16))]
    found = torch.cat([objective.losses(part) for part in parts])
    torch.testing.assert_close(found, objective.losses(batch))
    assert not torch.equal(_ranking()[0].draw(range(16, 24)).x0, batch.x0)
