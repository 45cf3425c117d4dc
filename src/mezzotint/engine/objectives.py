"""What is learnt: the samples of a step, and the loss of each.

A sample is a pure function of the run's seed and the sample's number over the whole run: which
picture, caption, level and noise.  So a batch may be split over micro-batches, processes and
restarts, and stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mezzotint.diffusion import losses
from mezzotint.diffusion.level import Conditioning, Level, Tokens, mix
from mezzotint.diffusion.noise import draws
from mezzotint.diffusion.prediction import solve
from mezzotint.diffusion.schedules import Schedule
from mezzotint.engine.config import StepsConfig, TrainConfig
from mezzotint.engine.data_order import BLOCK, DataOrder, Streams, in_blocks
from mezzotint.engine.pictures import Reader, to_float
from mezzotint.families.model import Conditioner, Model
from mezzotint.modalities.dataset import Dataset, Item
from mezzotint.networks.autoencoder import Autoencoder, kl_divergence
from mezzotint.networks.dual_encoder import DualEncoder


class Batch(NamedTuple):
    """Samples of a step.

    x0: ``(B, C, *spatial)`` what is learnt; eps: its noise (an autoencoder's: of the code; a
        ranker's: the row of its prompt among those of the conditioning).
    level: ``(B,)`` float64 on the CPU, None for an autoencoder; time: the schedule's, ``(B,)``.
    """

    x0: Tensor
    eps: Tensor
    level: Level | None
    time: Tensor
    conditioning: Conditioning

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """With the tensors that the network reads moved; levels stay where they are."""
        vector, _, tokens, _, _ = self.conditioning
        return self._replace(
            x0=move(self.x0),
            eps=move(self.eps),
            conditioning=Conditioning(
                vector=None if vector is None else move(vector),
                tokens=None
                if tokens is None
                else Tokens(*(None if part is None else move(part) for part in tokens)),  # type: ignore[arg-type]
            ),
        )

    def pinned(self) -> Batch:
        """In memory that a GPU reads by itself, so that :meth:`to` need not wait."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """The tensors that the network reads, on its device; levels stay on the CPU."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Objective:
    """network: what learns; draw: sample numbers → their batch, a pure function, on the CPU;
    losses: a batch on the network's device → ``(B,)`` float32; frozen: what the losses need there
    beside the network."""

    network: nn.Module
    draw: Callable[[Sequence[int]], Batch]
    losses: Callable[[Batch], Tensor]
    frozen: nn.Module | None = None


def prompt_of(item: Item, condition: str, choice: float) -> str:
    """What the model is told of an item; ``choice`` in (0, 1) picks one of its captions."""
    if condition == "class":
        return item.label or ""
    if condition == "text":
        return item.captions[int(choice * len(item.captions))]
    return ""


# --- diffusion --------------------------------------------------------------------------------


def level_sampler(train: StepsConfig, schedule: Schedule) -> losses.LevelSampler:
    """Uniform numbers → levels, as the configuration names them."""
    if train.levels == "logit_normal":
        return losses.logit_normal(schedule, train.level_mean, train.level_std)
    if train.levels == "edm_lognormal":
        return losses.edm_lognormal(schedule, train.level_mean, train.level_std)
    return losses.uniform(schedule)


def numbered_levels(
    train: StepsConfig, schedule: Schedule, streams: Streams
) -> Callable[[Sequence[int]], tuple[Level, Tensor]]:
    """Sample numbers → their levels and times.

    Stratified: each step sees the levels evenly, one sample a stratum.  Computed in whole blocks,
    since the last bit of a vectorized sine depends on where in a tensor its argument stands.
    """
    sample = level_sampler(train, schedule)

    @lru_cache(maxsize=8)
    def block(number: int) -> Tensor:
        index = torch.arange(number * BLOCK, (number + 1) * BLOCK)
        level = sample(losses.stratified(streams.block("level", number), index, train.batch))
        return torch.stack([level.alpha, level.sigma, schedule.time(level)], dim=1)

    def levels(numbers: Sequence[int]) -> tuple[Level, Tensor]:
        alpha, sigma, time = in_blocks(numbers, block).T.contiguous()
        return Level(alpha, sigma), time

    return levels


def level_weight(train: StepsConfig) -> losses.Weight:
    """The weight of the levels, as the configuration names it."""
    weights: dict[str, losses.Weight] = {
        "plain": losses.unweighted,
        "min_snr": losses.min_snr(),
        "p2": losses.p2(),
        "edm": losses.edm(),
        "flow": losses.flow_space(),
    }
    return weights[train.loss]


def told_embeddings(
    config: TrainConfig, embeddings: Tensor, streams: Streams
) -> Callable[[Sequence[int], Sequence[int], Tensor], Tensor]:
    """How to tell samples their pictures' embeddings: zeros where the condition is dropped.

    ``sqrt(1 − s^2) embedding + s z`` with ``s`` uniform below ``train.embedding_noise``.
    """
    most = config.train.embedding_noise

    def told(numbers: Sequence[int], items: Sequence[int], dropped: Tensor) -> Tensor:
        rows = embeddings[torch.as_tensor(items)]
        if most:
            s = most * streams("embedding", numbers)[:, None].float()
            z = draws(config.seed, "train/embedding", numbers, rows.shape[1:])
            rows = (1 - s.square()).sqrt() * rows + s * z
        return rows.masked_fill(dropped[:, None], 0.0)

    return told


Features = Callable[[Tensor], Sequence[Tensor]]
"""``x0 (B, …)`` → what a decoder makes of it, each ``(B, …)`` and about of unit size."""


def perceptual_error(features: Features, estimate: Tensor, x0: Tensor, level: Level) -> Tensor:
    """``mean |f(estimate) − f(x0)|^2 / (s + 0.05)``, one a sample, over all features f.

    The error that a decoder sees (Berrada et al. 2024, "Boosting Latent Diffusion with Perceptual
    Objectives").  ``s = sigma^2 / (alpha^2 + sigma^2)`` makes that of x0 one of v, so that all
    levels count alike.
    """
    with torch.no_grad():
        wanted = features(x0)
    pairs = zip(features(estimate), wanted, strict=True)
    errors = [(a.float() - b.float()).square().flatten(1).mean(1) for a, b in pairs]
    s = level.sigma**2 / (level.alpha**2 + level.sigma**2)
    return torch.stack(errors).mean(0) / (s + 0.05).to(errors[0])


def diffusion(
    config: TrainConfig,
    dataset: Dataset,
    model: Model,
    x0_of: Reader,
    conditioner: Conditioner,
    embeddings: Tensor | None = None,
    features: Features | None = None,
) -> Objective:
    """A denoiser's objective: ``w(level) |F − (p x0 + q eps)|^2`` (see ``diffusion.losses``), and
    the :func:`perceptual_error` below ``train.perceptual_time``.

    Args:
        x0_of: item numbers, those of mirrored items shifted by ``len(dataset)``, → ``x0``.
        conditioner: what the network is told of a prompt.
        embeddings: ``(items, K)``, told beside it.
        features: of the latent model's decoder; None leaves the perceptual error out.
    """
    assert config.model is not None
    train, condition = config.train, config.model.condition
    order = DataOrder([item.weight for item in dataset.items], config.seed)
    streams, count = Streams(config.seed), len(dataset.items)
    levels = numbered_levels(train, model.schedule, streams)
    weight = level_weight(train)
    row = model.parameterization.row
    told = None if embeddings is None else told_embeddings(config, embeddings, streams)

    def draw(numbers: Sequence[int]) -> Batch:
        items = [order.item(n) for n in numbers]
        mirrored = streams("flip", numbers) < 0.5 if config.data.flip else [False] * len(items)
        x0 = x0_of([i + count * bool(m) for i, m in zip(items, mirrored, strict=True)])
        level, time = levels(numbers)
        dropped = streams("drop", numbers) < train.drop_condition
        prompts = [
            "" if drop else prompt_of(dataset.items[item], condition, float(choice))
            for item, choice, drop in zip(items, streams("caption", numbers), dropped, strict=True)
        ]
        eps = draws(config.seed, "train/noise", numbers, x0.shape[1:])
        conditioning = conditioner(prompts)
        if told is not None:
            assert conditioning.vector is not None  # a class or a text has one
            vector = torch.cat([conditioning.vector, told(numbers, items, dropped)], dim=1)
            conditioning = conditioning._replace(vector=vector)
        return Batch(x0, eps, level, time, conditioning)

    def per_sample(batch: Batch) -> Tensor:
        level = batch.level
        assert level is not None
        x = mix(batch.x0, batch.eps, level)
        scale = Level(model.parameterization.c_in(level), level.sigma).to(x).alpha
        time = model.parameterization.c_noise(level).to(x)
        output = model.call(x * scale, time, batch.conditioning)
        error = losses.loss(row, level, output, batch.x0, batch.eps, weight)
        if features is None:
            return error
        low = (batch.time < train.perceptual_time).nonzero()[:, 0]
        if not len(low):
            return error
        part, rows = Level(level.alpha[low], level.sigma[low]), low.to(x.device)
        estimate = solve(row, x[rows], output[rows].to(x.dtype), part).x0
        seen = perceptual_error(features, estimate, batch.x0[rows], part)
        return error.index_add(0, rows, train.perceptual_weight * seen)

    return Objective(model.network, draw, per_sample)


# --- autoencoder ------------------------------------------------------------------------------


def slopes(x: Tensor) -> list[Tensor]:
    """Differences of neighbouring pixels along each spatial dimension."""
    return [x.diff(dim=dim) for dim in range(2, x.ndim)]


def reconstruction_loss(reconstruction: Tensor, x: Tensor, edge_weight: float) -> Tensor:
    """``|y − x| + edge_weight |grad y − grad x|``, one a sample: ``(B,)``.

    L1 errors are means over elements; the gradients' term keeps edges sharp, where an icon is.
    """
    error = (reconstruction - x).abs().flatten(1).mean(1)
    pairs = zip(slopes(reconstruction), slopes(x), strict=True)
    edges = torch.stack([(a - b).abs().flatten(1).mean(1) for a, b in pairs]).mean(0)
    return error + edge_weight * edges


def _squares(
    config: TrainConfig, dataset: Dataset, network: Autoencoder, read: Reader
) -> Callable[[Sequence[int]], Batch]:
    """Whole pictures or random squares of ``data.crop``, and noise of their codes' shape."""
    data = config.data
    order = DataOrder([item.weight for item in dataset.items], config.seed)
    streams, edge = Streams(config.seed), data.crop or data.size
    side = edge // network.config.stride
    code = (network.config.latent_channels, side, side)

    def draw(numbers: Sequence[int]) -> Batch:
        whole = read([order.item(n) for n in numbers])
        places = data.size - edge + 1
        tops = (streams("top", numbers) * places).long().tolist()
        lefts = (streams("left", numbers) * places).long().tolist()
        flips = (streams("flip", numbers) < 0.5).tolist()
        squares = [
            picture[:, top : top + edge, left : left + edge]
            for picture, top, left in zip(whole, tops, lefts, strict=True)
        ]
        turned = [
            square.flip(-1) if flip and data.flip else square
            for square, flip in zip(squares, flips, strict=True)
        ]
        eps = draws(config.seed, "train/code", numbers, code)
        none = torch.zeros(len(numbers), dtype=torch.float64)
        return Batch(to_float(torch.stack(turned)), eps, None, none, Conditioning())

    return draw


def autoencoder(
    config: TrainConfig, dataset: Dataset, network: Autoencoder, read: Reader
) -> Objective:
    """An autoencoder's objective: the reconstruction's loss ``+ kl_weight KL / dim(x)``.

    KL is the code's from N(0, I), in nats, for each element of the data (Rombach et al. 2022,
    appendix G).
    """
    train = config.train

    def per_sample(batch: Batch) -> Tensor:
        y, mean, log_variance = network(batch.x0, batch.eps)
        kl = kl_divergence(mean.float(), log_variance.float()) / batch.x0[0].numel()
        return reconstruction_loss(y.float(), batch.x0, train.edge_weight) + train.kl_weight * kl

    return Objective(network, _squares(config, dataset, network, read), per_sample)


def decoder(
    config: TrainConfig, dataset: Dataset, network: Autoencoder, read: Reader, spread: Tensor
) -> Objective:
    """A decoder's objective: the reconstruction's loss from the code ``mean + s spread eps``.

    ``s`` is uniform below ``decoder.noise``.

    Args:
        network: its encoder stays as it is.
        spread: standard deviation ``(C,)`` of each channel of the code.
    """
    assert config.decoder is not None
    most, weight = config.decoder.noise, config.train.edge_weight
    streams, squares = Streams(config.seed), _squares(config, dataset, network, read)

    def draw(numbers: Sequence[int]) -> Batch:
        batch = squares(numbers)
        scale = most * streams("decoder", numbers)[:, None].float() * spread  # (B, C)
        return batch._replace(eps=scale.view(*scale.shape, 1, 1) * batch.eps)

    def per_sample(batch: Batch) -> Tensor:
        with torch.no_grad():
            mean, _ = network.encode(batch.x0)
        return reconstruction_loss(network.decode(mean + batch.eps).float(), batch.x0, weight)

    return Objective(network.decoder, draw, per_sample, network.encoder)


# --- ranker -----------------------------------------------------------------------------------


def ranker(
    config: TrainConfig,
    dataset: Dataset,
    network: DualEncoder,
    embeddings: Tensor,
    conditioner: Conditioner,
    condition: str,
) -> Objective:
    """A ranker's objective: ``−log softmax_j logit(picture, prompt_j)`` at the picture's prompt.

    The prompts are those of the whole step (InfoNCE, van den Oord et al. 2018, eq. 4), whatever
    part of it a process or a micro-batch has; prompts that are the same count once.

    Args:
        embeddings: ``(items, K)`` of the pictures.
        condition: "class" or "text", what the prompts are.
    """
    order = DataOrder([item.weight for item in dataset.items], config.seed)
    streams, size = Streams(config.seed), config.train.batch

    @lru_cache(maxsize=2)
    def step(number: int) -> tuple[list[int], Tensor, Tensor]:
        """The items of a step, the rows of their prompts, and all prompts' vectors."""
        numbers = range(number * size, (number + 1) * size)
        items = [order.item(n) for n in numbers]
        prompts = [
            prompt_of(dataset.items[item], condition, float(choice))
            for item, choice in zip(items, streams("caption", numbers), strict=True)
        ]
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        vectors = conditioner(list(rows)).vector
        assert vectors is not None  # a class or a text has one
        return items, torch.tensor([rows[prompt] for prompt in prompts]), vectors

    def draw(numbers: Sequence[int]) -> Batch:
        items, rows, vectors = step(numbers[0] // size)
        places = [n % size for n in numbers]
        x0 = embeddings[[items[place] for place in places]]
        none = torch.zeros(len(numbers), dtype=torch.float64)
        return Batch(x0, rows[places], None, none, Conditioning(vectors))

    def per_sample(batch: Batch) -> Tensor:
        assert batch.conditioning.vector is not None
        logits = network(batch.x0, batch.conditioning.vector).float()
        return nn.functional.cross_entropy(logits, batch.eps, reduction="none")

    return Objective(network, draw, per_sample)
