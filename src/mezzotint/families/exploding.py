"""What schedulers of `diffusers` say of latent diffusion in EDM's terms (Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.limits import shown
from mezzotint.checkpoints.marks import EDM
from mezzotint.diffusion.schedules import VarianceExploding


def is_edm(config: Mapping[str, Any]) -> bool:
    """Whether a ``scheduler_config.json`` is of such a scheduler."""
    return str(config.get("_class_name", "")).startswith("EDM")


def exploding(config: Mapping[str, Any], where: str) -> tuple[str, VarianceExploding]:
    """The prediction, a row of :data:`mezzotint.diffusion.prediction.ROWS`, and the noise schedule.

    Raises:
        CheckpointError: it says what is not known, or a number that is none.
    """
    said = config.get("prediction_type", "epsilon")
    names = {str(row["prediction_type"]): name for name, row in EDM.items()}
    if not isinstance(said, str) or said not in names:
        raise CheckpointError(
            f"{where}: prediction_type is {shown(said)}; known of EDM are {', '.join(names)}"
        )
    usual = EDM[names[said]]

    def number(key: str, default: float) -> float:
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise CheckpointError(f"{where}: {key} is {shown(value)}: no number above 0")
        return float(value)

    if number("sigma_data", 0.5) != usual["sigma_data"]:
        raise CheckpointError(
            f"{where}: sigma_data is {shown(config.get('sigma_data', 0.5))}; known beside {said} "
            f"is {usual['sigma_data']}"
        )
    low, high = number("sigma_min", 0.002), number("sigma_max", 80.0)
    if low >= high:
        raise CheckpointError(f"{where}: sigma_min is {low}: not below sigma_max, {high}")
    return names[said], VarianceExploding(low, high)
