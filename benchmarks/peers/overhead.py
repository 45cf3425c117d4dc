"""What the sampling loop costs beside the network that it calls."""

from __future__ import annotations

import functools
import time

from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.model import Model
from peers.models import Clock, Scale, icons_transformer
from peers.report import Bar, Row, Section
from peers.timing import in_turns, median

SAMPLERS = ("ddim", "dpmpp_2m", "euler", "unipc")
STEPS = 20


def _share(model: Model, clock: Clock, sampler: str) -> tuple[float, float]:
    """Seconds outside the network's calls and inside them, of one picture with guidance."""
    clock.restart()
    began = time.perf_counter()
    generate(model, Request("", (0,), steps=STEPS, sampler=sampler, guidance=Guidance(3.0)))
    return time.perf_counter() - began - clock.seconds, clock.seconds


def measure(scale: Scale) -> Section:
    model, clock = icons_transformer(scale)
    actions = [functools.partial(_share, model, clock, name) for name in SAMPLERS]
    found = in_turns(actions, scale.runs)
    rows: list[Row] = []
    for name, pairs in zip(SAMPLERS, found, strict=True):
        shares = tuple(outside / inside for outside, inside in pairs)
        rows.append(Row(f"{name}: loop ÷ network calls", shares, "%", Bar("below", 0.03)))
        each = tuple(1000 * outside / STEPS for outside, _ in pairs)
        rows.append(Row(f"{name}: loop, a step", each, "ms"))
    calls = median([1000 * inside / STEPS for pairs in found for _, inside in pairs])
    text = (
        f"A whole `generate()` of one picture at {STEPS} steps with guidance, on a transformer "
        f"shaped like `icons` (width {scale.width}, depth {scale.depth}, 64 picture and 16 text "
        "tokens, random weights); a clock around the network tells the calls from the rest. The "
        "rest is planning, noise, guidance, the solver and the check at the end. A call takes "
        f"{calls:.1f} ms."
    )
    return Section("overhead", "The sampling loop's own time", text, tuple(rows))
