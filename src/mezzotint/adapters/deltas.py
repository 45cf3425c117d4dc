"""Weight deltas: what LoRA and its kin add to a weight, each by its own equation.

A weight ``W`` has shape ``(O, I, ...)``: a matrix, or the kernel of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


class DeltaError(ValueError):
    """A delta does not fit the weight that it is for."""


def _matrix(x: Tensor) -> Tensor:
    return x.flatten(1).float()


def _rebuilt(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Tucker form: ``(r, s, ...) , (r, O), (s, I) -> (O, I, ...)``."""
    return torch.einsum("rs...,ro,si->oi...", core.float(), left.float(), right.float())


@dataclass(frozen=True)
class Delta:
    """What is added to a weight.

    kind: a row of :data:`KINDS`
    factors: by the names that files give them
    alpha: the numerator of the scale, whose denominator is the rank; None for a scale of one
    magnitude: of DoRA: the finished weight's norms by row ``(O, ...)`` or by column ``(1, I, ...)``
    """

    kind: str
    factors: Mapping[str, Tensor]
    alpha: float | None = None
    magnitude: Tensor | None = None

    def to(self, device: torch.device) -> Delta:
        """This delta on a device."""
        factors = {name: factor.to(device) for name, factor in self.factors.items()}
        magnitude = None if self.magnitude is None else self.magnitude.to(device)
        return replace(self, factors=factors, magnitude=magnitude)

    def rank(self) -> int:
        return KINDS[self.kind].rank(self.factors)

    def matrix(self, shape: tuple[int, ...]) -> Tensor:
        """The delta at full strength, float32 of the weight's shape.

        Raises:
            DeltaError: its factors do not give that shape.
        """
        rank = self.rank()
        scale = 1.0 if self.alpha is None or rank == 0 else self.alpha / rank
        try:
            return KINDS[self.kind].build(self.factors, shape).reshape(shape) * scale
        except RuntimeError as error:
            sizes = {name: tuple(value.shape) for name, value in self.factors.items()}
            raise DeltaError(f"factors {sizes} do not make a weight of {shape}") from error

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        """``W + strength * delta`` in float32; with a magnitude DoRA's (Liu et al. 2024, eq. 5)."""
        weight, delta = weight.float(), self.matrix(tuple(weight.shape))
        if self.magnitude is None:
            return weight + strength * delta
        changed = weight + delta
        return weight.lerp(changed * _ratio(changed, self.magnitude.float()), strength)


def _ratio(weight: Tensor, magnitude: Tensor) -> Tensor:
    """``m / |W|``, the norm over all that one entry of ``m`` stands for: a row, or a column."""
    ones = (1,) * (weight.ndim - 2)
    eps = torch.finfo(torch.float32).eps
    if magnitude.numel() == magnitude.shape[0] == weight.shape[0]:
        norm = weight.flatten(1).square().sum(dim=1).sqrt() + eps  # (O,)
        return (magnitude.flatten() / norm).view(-1, 1, *ones)
    if magnitude.numel() == weight.shape[1] and magnitude.shape[0] == 1:
        columns = weight.transpose(0, 1).flatten(1)
        norm = columns.square().sum(dim=1).sqrt() + eps  # (I,)
        return (magnitude.flatten() / norm).view(1, -1, *ones)
    raise DeltaError(
        f"a magnitude of shape {tuple(magnitude.shape)} does not fit a weight of "
        f"{tuple(weight.shape)}"
    )


# --- the kinds --------------------------------------------------------------------------------


def _lora(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """``B A`` (Hu et al. 2021, eq. 3); of a convolution, A is one and B a 1×1 one (LoCon)."""
    if "mid" in factors:  # in files: lora_mid
        return _rebuilt(factors["mid"], _matrix(factors["up"]).T, _matrix(factors["down"]))
    return _matrix(factors["up"]) @ _matrix(factors["down"])


def _loha(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """``(B1 A1) ∘ (B2 A2)`` (Hyeon-Woo et al. 2022, eq. 3)."""
    halves: list[Tensor] = []
    for n in ("1", "2"):
        left, right = factors[f"w{n}_a"], factors[f"w{n}_b"]
        core = factors.get(f"t{n}")
        halves.append(left.float() @ right.float() if core is None else _rebuilt(core, left, right))
    return halves[0] * halves[1]


def _lokr_side(factors: Mapping[str, Tensor], n: str) -> Tensor:
    if f"w{n}" in factors:
        return factors[f"w{n}"].float()
    left, right = factors[f"w{n}_a"], factors[f"w{n}_b"]
    if "t2" in factors and n == "2":
        return _rebuilt(factors["t2"], left, right)
    return left.float() @ right.float()


def _lokr(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """``C ⊗ (B A)`` (Edalati et al. 2022, eq. 4)."""
    small, large = _lokr_side(factors, "1"), _lokr_side(factors, "2")
    if large.ndim == 2 and len(shape) > 2:  # a kernel, flattened
        large = large.view(large.shape[0], -1, *shape[2:])
    return torch.kron(small.view(*small.shape, *(1,) * (large.ndim - 2)), large.contiguous())


def _full(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The difference itself."""
    return factors["diff"].float()


def _lokr_rank(factors: Mapping[str, Tensor]) -> int:
    for n in ("2", "1"):
        if f"w{n}_b" in factors:
            return factors[f"w{n}_b"].shape[0]
    return 0  # nothing is of low rank: no scale


@dataclass(frozen=True)
class Kind:
    """factors: their names, of which those in ``needed`` (any one of these sets) must be there."""

    build: Callable[[Mapping[str, Tensor], tuple[int, ...]], Tensor]
    rank: Callable[[Mapping[str, Tensor]], int]
    needed: tuple[frozenset[str], ...]


def _sets(*names: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(name.split()) for name in names)


KINDS: dict[str, Kind] = {
    "lora": Kind(_lora, lambda f: f["down"].shape[0], _sets("up down")),
    "loha": Kind(_loha, lambda f: f["w1_b"].shape[0], _sets("w1_a w1_b w2_a w2_b")),
    "lokr": Kind(
        _lokr,
        _lokr_rank,
        _sets("w1 w2", "w1 w2_a w2_b", "w1_a w1_b w2", "w1_a w1_b w2_a w2_b"),
    ),
    "full": Kind(_full, lambda f: 0, _sets("diff")),
}
"""Every kind of delta by name."""
