"""Averages of the weights whose length is chosen afterwards (Karras et al. 2024, EDM2, §3).

The power-function average at step t weighs the past by ``tau^gamma``,

    mean_gamma(t) = (gamma + 1) / t^(gamma + 1) * integral_0^t tau^gamma theta(tau) d tau,

(eq. 3), kept by ``mean(t) = beta mean(t − 1) + (1 − beta) theta(t)`` with
``beta = (1 − 1/t)^(gamma + 1)`` (eq. 4), which for weights constant within a step is exact.  Its
relative width ``sigma_rel`` (eq. 5) names it.  From snapshots of a few such averages any other is
put together by least squares (eq. 6 and appendix C.2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load, save


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the average of relative width ``sigma_rel``.

    ``sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))``: the largest root of a cubic.

    Raises:
        ValueError: no average has this width (0 < sigma_rel < 0.28 with gamma >= 0).
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(f"an average's relative width lies between 0 and 0.28, not {sigma_rel}")
    target = sigma_rel**-2
    low, high = 0.0, target**0.5  # the right side falls in gamma, below 1 / (gamma + 2)^2
    for _ in range(200):
        middle = (low + high) / 2
        wider = (middle + 2) ** 2 * (middle + 3) / (middle + 1) < target
        low, high = (middle, high) if wider else (low, middle)
    return (low + high) / 2


def decay(step: int, gamma: float) -> float:
    """``beta = (1 − 1 / step)^(gamma + 1)``; 0 at step 1, so initial weights leave no trace."""
    return (1 - 1 / step) ** (gamma + 1)


@torch.no_grad()
def update(averages: Sequence[Tensor], weights: Sequence[Tensor], step: int, gamma: float) -> None:
    """``averages ← beta averages + (1 − beta) weights`` in place, after step ``step`` (from 1)."""
    factor = 1 - decay(step, gamma)
    torch._foreach_lerp_(list(averages), list(weights), factor)  # pyright: ignore[reportPrivateImportUsage]


def _products(times_a: Tensor, gammas_a: Tensor, times_b: Tensor, gammas_b: Tensor) -> Tensor:
    """Inner products of the averages' profiles (Karras et al. 2024, appendix C.2, eq. 121).

    ``integral of p_a p_b = (ga + 1)(gb + 1) min(ta, tb)^(ga + gb + 1) /
    ((ga + gb + 1) ta^(ga + 1) tb^(gb + 1))``; in the ratio ``min / max`` nothing overflows.
    Returns ``(A, B)`` float64.
    """
    ta, ga = times_a[:, None], gammas_a[:, None]
    tb, gb = times_b[None], gammas_b[None]
    ratio = torch.minimum(ta, tb) / torch.maximum(ta, tb)
    exponent = torch.where(ta < tb, gb, ga)  # of the later one
    scale = (ga + 1) * (gb + 1) / (ga + gb + 1) / torch.maximum(ta, tb)
    return scale * ratio**exponent


def solve(times: Sequence[int], gammas: Sequence[float], time: int, gamma: float) -> Tensor:
    """The factors ``(N,)`` float64 on N snapshots that come nearest to another average.

    Args:
        times, gammas: of each snapshot: the step it was taken after, and its exponent.
        time, gamma: of the average that is wanted.

    The factors minimize the distance of the profiles in L2 (appendix C.2, eq. 122–124).
    """
    own_t = torch.tensor(times, dtype=torch.float64)
    own_g = torch.tensor(gammas, dtype=torch.float64)
    aim_t = torch.tensor([time], dtype=torch.float64)
    aim_g = torch.tensor([gamma], dtype=torch.float64)
    gram = _products(own_t, own_g, own_t, own_g)
    side = _products(own_t, own_g, aim_t, aim_g)
    # Unit profiles first: early snapshots have huge norms and would spoil the conditioning.
    norm = gram.diagonal().sqrt()
    gram = gram / norm[:, None] / norm[None]
    factors = torch.linalg.lstsq(gram, side / norm[:, None], driver="gelsd", rcond=1e-13).solution
    return factors[:, 0] / norm


def combine(states: Sequence[dict[str, Tensor]], factors: Tensor) -> dict[str, Tensor]:
    """``sum_i factors_i states_i``, summed in float64 and given as float32."""
    total: dict[str, Tensor] = {}
    for state, factor in zip(states, factors.tolist(), strict=True):
        for name, value in state.items():
            term = value.double() * factor
            total[name] = total[name] + term if name in total else term
    return {name: value.float() for name, value in total.items()}


# --- snapshots: averages kept on the way, for any other length afterwards ----------------------


def _half(tensor: Tensor) -> Tensor:
    """float16, unless a value is too large for it."""
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor


def write_snapshot(
    run: Path, step: int, widths: Sequence[float], averages: Sequence[dict[str, Tensor]]
) -> Path:
    """``RUN/snapshots/step-…``: the averages of these widths after a step, in float16.

    float16 costs 2^-11 of each weight, some hundredth of what the lengths differ by; bfloat16
    would cost eight times that.

    Raises:
        mezzotint.files.WriteError: it cannot be written.
    """
    folder = run / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    tensors = {
        f"{number}/{name}": _half(value)
        for number, average in enumerate(averages)
        for name, value in average.items()
    }
    save(path, tensors, {"step": str(step), "widths": json.dumps(list(widths))})
    return path


def snapshots(run: Path) -> dict[int, Path]:
    """The snapshots of a run by step, in order."""
    found = sorted((run / "snapshots").glob("step-*.safetensors"))
    return {int(path.stem.removeprefix("step-")): path for path in found}


def reconstruct(run: Path, sigma_rel: float) -> dict[str, Tensor]:
    """The average of relative width ``sigma_rel`` at the run's last snapshot, float32.

    Raises:
        CheckpointError: there are no snapshots, or one is damaged.
        ValueError: no average has this width.
    """
    paths, gamma = snapshots(run), gamma_of(sigma_rel)
    if not paths:
        raise CheckpointError(
            f"{run}: no snapshots: train with train.snapshot_pictures to choose an average later"
        )
    times: list[int] = []
    gammas: list[float] = []
    states: list[dict[str, Tensor]] = []
    for step, path in paths.items():
        tensors, metadata = load(path)
        for number, width in enumerate(json.loads(metadata["widths"])):
            head = f"{number}/"
            part = {n.removeprefix(head): t for n, t in tensors.items() if n.startswith(head)}
            times.append(step)
            gammas.append(gamma_of(width))
            states.append(part)
    return combine(states, solve(times, gammas, times[-1], gamma))
