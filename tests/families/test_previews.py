"""The colours of codes at a glance, and other things that need no checkpoint."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mezzotint.checkpoints.layout import Beside
from mezzotint.checkpoints.tables import tiny_autoencoder as tables
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Progress, Refiner, Request
from mezzotint.families import catalogue, ldm, memory, tiny
from mezzotint.families.codec import ScaledCodec
from mezzotint.families.edm import PLAYGROUND
from mezzotint.families.instructed import SD1_INSTRUCTED
from mezzotint.families.linear import Linear
from mezzotint.families.sd1 import SD1
from mezzotint.families.separate import AUTOENCODER, TINY
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder
from pipelines import small

WHOLE = Beside(Path("taesd.safetensors"), tables.DIFFUSERS)
DECODER = replace(WHOLE, ignored=("encoder.*",))


def test_families_have_the_colours_of_their_channels() -> None:
    coloured = [family for family in catalogue.FAMILIES if family.linear is not None]
    known = {
        "sd1",
        "sd2",
        "sdxl",
        "sdxl-refiner",
        "playground-v2.5",
        "sd3",
        "sd35-large",
        "flux-dev",
    }
    assert known <= {family.name for family in coloured}
    for family in coloured:
        assert family.linear is not None
        assert len(family.linear.factors) == family.autoencoder.latent_channels, family.name
        x0 = torch.randn(2, family.autoencoder.latent_channels, 3, 5)
        seen = family.linear(x0)
        assert seen.shape == (2, 3, 3, 5)
        expected = sum(
            torch.tensor(row) * float(value)
            for row, value in zip(family.linear.factors, x0[1, :, 2, 4], strict=True)
        )
        torch.testing.assert_close(seen[1, :, 2, 4], expected + torch.tensor(family.linear.bias))


def test_a_refiners_steps_are_shown_as_those_before() -> None:
    base = ldm.build(replace(small("sd1"), linear=Linear(((0.0,) * 3,) * 4, (0.5, 0.25, 0.0))))
    other = ldm.build(small("sd1"))
    seen: list[torch.Tensor] = []

    def listen(told: Progress) -> None:
        seen.append(told.preview())

    wish = Request("a fox", (1,), size=(64, 64), steps=4, refiner=Refiner(other, 0.5))
    generate(base, wish, listen)
    assert len(seen) == 4
    assert all(one[:, 0, 0].tolist() == [0.5, 0.25, 0.0] for one in seen)


@torch.inference_mode()
def test_a_code_that_is_normed_is_shown_as_what_it_was_made_of() -> None:
    """Playground's codes are SDXL's, normed otherwise: TAESDXL is given them as SDXL has them."""
    family = tiny.fitted(replace(PLAYGROUND, unet=small("sdxl").unet), {TINY: DECODER})
    with torch.device("meta"):
        assert set(ldm.build(family).parts) >= {TINY, AUTOENCODER}
    assert family.tiny is not None and family.tiny.scale == 0.13025
    plain = TinyAutoencoder(replace(family.tiny, scale=1.0))
    normed = TinyAutoencoder(family.tiny)
    normed.load_state_dict(plain.state_dict())
    mean, std = (torch.tensor(row)[:, None, None] for row in (family.mean, family.std))
    raw = 5 * torch.randn(1, 4, 2, 2)
    codec = ScaledCodec(normed, family.scale / std, mean)
    seen = codec.decode((raw - mean) * family.scale / std)
    torch.testing.assert_close(seen, plain.decode(raw * 0.13025), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_an_edit_is_told_a_code_that_is_not_scaled() -> None:
    """InstructPix2Pix is told the mean as the large autoencoder has it, whoever encodes."""
    few = replace(SD1_INSTRUCTED, unet=small("sd1").unet, texts=small("sd1").texts)
    model = ldm.build(tiny.fitted(few, {AUTOENCODER: WHOLE}))
    own = model.parts[AUTOENCODER]
    assert isinstance(own, TinyAutoencoder) and model.joined is not None and own.encoder is not None
    media = torch.rand(1, 3, 16, 16) * 2 - 1
    told = model.joined.tell(media, torch.ones(1, 1, 16, 16)).concat
    torch.testing.assert_close(told, own.encoder((media + 1) / 2) / few.scale)


def test_what_a_tiny_one_takes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the model's own, and in its place, where decoding takes less too."""
    family = replace(SD1, unet=small("sd1").unet, texts=small("sd1").texts)
    shadows = {
        "none": catalogue.shadow(family),
        "seen": catalogue.shadow(tiny.fitted(family, {TINY: DECODER})),
        "whole": catalogue.shadow(tiny.fitted(family, {AUTOENCODER: WHOLE})),
    }
    code = torch.empty(1, 4, 64, 64, device="meta")
    decoding = {
        what: memory.most(shadow, partial(shadow.codec.decode, code))
        for what, shadow in shadows.items()
    }
    assert decoding["seen"] == decoding["none"] > 2 * decoding["whole"]
    monkeypatch.setattr(memory, "needs", lambda *_: memory.Needs(10_000_000, 10_000_000))
    monkeypatch.setattr(memory, "resident", lambda: 0)

    def least(what: str) -> int:
        """Bytes with which everything stays, to half a megabyte."""
        low, high = 500_000_000, 700_000_000
        while high - low > 500_000:
            middle = (low + high) // 2
            try:
                room = memory.plan(shadows[what], (64, 64), torch.float32, middle).room
            except memory.TooLittleError:
                room = {"all": 0}
            low, high = (middle, high) if room else (low, middle)
        return high

    decoder = 1_222_531 * 4
    none = least("none")
    assert abs(least("seen") - none - decoder) < 1_000_000
    assert not memory.plan(shadows["whole"], (64, 64), torch.float32, none - 300_000_000).room
    room, said = memory.plan(shadows["seen"], (64, 64), torch.float32, none - 10**8)
    assert [*room][-2:] == [AUTOENCODER, TINY] and "% of the tiny" in said
