"""Eyes that are no network, which nothing has learnt from (`mezzotint.provenance.eyes`).

A model may have learnt from the very network that judges it; these eyes nothing has learnt from.
"""

from __future__ import annotations

from torch import Tensor

from mezzotint.provenance.eyes import EDGE, seen


def plain(unit: Tensor) -> Tensor:
    """Canonical pictures ``(N, 4, 64, 64)`` in [0, 1] → what is seen of them, ``(N, 1280)``."""
    assert unit.shape[-1] == EDGE
    return seen(unit)
