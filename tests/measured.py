"""What parity tests measure: the worst error of each, noted for `docs/parity.md`.

A test of the matrix is marked ``@pytest.mark.parity(task, layout)``, with ``family=`` where it is
not its parameter; it compares by :func:`close` or :func:`same`.
"""

from __future__ import annotations

import torch
from torch import Tensor

noted: list[float] = []
"""Of the test that runs; `parity_matrix.py` empties it before each."""


def close(found: Tensor, expected: Tensor, bound: float) -> None:
    """Assert that two pictures in [0, 1] differ by less than ``bound`` anywhere."""
    assert found.shape == expected.shape
    noted.append(float((found - expected).abs().max()))
    assert noted[-1] < bound


def same(found: Tensor, expected: Tensor) -> None:
    """Assert that two pictures are the same bits."""
    noted.append(0.0)
    assert torch.equal(found, expected)
