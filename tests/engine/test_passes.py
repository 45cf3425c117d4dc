"""The masked area alone, and a second pass: what is worked on, and where it comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_generate import make, seeded  # noqa: F401
from torch import Tensor

from mezzotint.engine.generate import generate
from mezzotint.engine.passes import area_of, narrowed, put_back, resized
from mezzotint.engine.request import Enlarge, Known, Progress, Request, RequestError, Start


def media(height: int, width: int, channels: int = 4) -> Tensor:
    return torch.rand(channels, height, width) * 2 - 1


def box(height: int, width: int) -> Tensor:
    made = torch.zeros(1, height, width)
    made[:, 10:20, 30:44] = 1
    return made


def test_the_area_of_a_mask() -> None:
    mask = box(48, 64)
    assert area_of(mask, 0) == (10, 20, 30, 44)
    assert area_of(mask, 4) == (6, 24, 26, 48)
    assert area_of(mask, 40) == (0, 48, 0, 64)
    assert area_of(mask * 0.01, 0) == (10, 20, 30, 44)
    with pytest.raises(RequestError, match="the mask is black everywhere"):
        area_of(mask * 0, 4)


def test_the_area_is_cut_out_at_the_models_size_and_aspect() -> None:
    model = make()
    known = Known(media(48, 64), box(48, 64), 4)
    narrow, _ = narrowed(model, Request("a", (1,), known=known, start=Start(known.media, 0.5)))
    assert narrow.size == (16, 16) and narrow.known is not None and narrow.start is not None
    assert narrow.known.around is None
    assert torch.equal(narrow.start.media, narrow.known.media)
    wide, _ = narrowed(model, Request("a", (1,), known=known, size=(18, 22)))
    assert wide.known is not None  # as large as the area: nothing is resized
    assert torch.equal(wide.known.media, known.media[:, 6:24, 26:48])
    assert torch.equal(wide.known.mask, known.mask[:, 6:24, 26:48])


def test_what_was_made_comes_back_in_its_place() -> None:
    """Exactly known outside, exactly new well inside, and between them it fades inside the edge."""
    known = Known(media(48, 64), box(48, 64), 4)
    area = area_of(known.mask, 4)
    new = media(*area.size)
    found = put_back(known, new, area)
    outside = known.mask.expand_as(found) == 0
    assert torch.equal(found[outside], known.media[outside])
    assert torch.equal(found[:, 14:16, 34:40], new[:, 8:10, 8:14])
    edge = (found[:, 10, 30:44] - known.media[:, 10, 30:44]) / (
        new[:, 4, 4:18] - known.media[:, 10, 30:44]
    )
    torch.testing.assert_close(edge, torch.full_like(edge, 0.25), rtol=1e-3, atol=1e-3)
    soft = replace(known, mask=known.mask * 0.5)
    half = put_back(soft, new, area)
    middle = torch.lerp(known.media[:, 15, 36], new[:, 9, 10], 0.5)
    torch.testing.assert_close(half[:, 15, 36], middle)


def test_generating_the_masked_area() -> None:
    model = make()
    known = Known(media(48, 64), box(48, 64), 4)
    wish = Request("a", (1, 2), known=known)
    both = generate(model, wish)
    for seed, made in zip((1, 2), both, strict=True):
        assert made.shape == (4, 48, 64)
        outside = known.mask.expand_as(made) == 0
        assert torch.equal(made[outside], known.media[outside])
        assert torch.equal(generate(model, replace(wish, seeds=(seed,)))[0], made)
    assert not torch.equal(*both)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"enlarge": Enlarge(2)}, "put back at its own size: enlarge the whole picture"),
        ({"known": Known(media(8, 8), box(48, 64), 4)}, "make them the same size"),
        ({"known": Known(media(48, 64), box(48, 64), -1)}, "0 or more around it, not -1"),
        ({"tiled": frozenset({0})}, "its ends need not fit together"),
        ({"reference": media(48, 64)}, "told the whole of its reference"),
    ],
)
def test_what_cannot_be_narrowed(wish: dict[str, object], message: str) -> None:
    whole = Request("a", (1,), known=Known(media(48, 64), box(48, 64), 4))
    with pytest.raises(RequestError, match=message):
        generate(make(), replace(whole, **wish))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pixels", "latent"])
@pytest.mark.parametrize("coded", [False, True])
def test_the_second_pass_is_image_to_image_of_the_first(name: str, coded: bool) -> None:
    model = make(name)
    wish = Request("a", (1, 2), size=(8, 16), steps=4)
    first = generate(model, wish)
    told: list[Progress] = []
    found = generate(model, replace(wish, enlarge=Enlarge(2, 0.5, coded)), told.append)
    for seed, small, large in zip((1, 2), first, found, strict=True):
        with torch.no_grad():
            before = model.codec.encode(small[None])[0] if coded else small
        shape = model.codec.shape((16, 32)) if coded else (4, 16, 32)
        start = Start(resized(before, shape[1:]), 0.5, coded)
        alone = replace(wish, seeds=(seed,), size=(16, 32), start=start)
        assert large.shape == (4, 16, 32)
        assert torch.equal(generate(model, alone)[0], large)
    assert [one.step for one in told] == [1, 2, 3, 4, 5, 6] * 2
    assert {one.steps for one in told} == {6}
    assert [one.sample for one in told] == [0] * 6 + [1] * 6


def test_what_is_known_is_known_in_the_second_pass_too() -> None:
    model = make()
    mask = torch.zeros(1, 8, 16)
    mask[:, :, 8:] = 1
    known = Known(media(8, 16), mask)
    (made,) = generate(model, Request("a", (1,), size=(8, 16), known=known, enlarge=Enlarge(2)))
    large = resized(known.media, (16, 32))
    assert torch.equal(made[:, :, :13], large[:, :, :13])  # the mask's edge is soft, enlarged
    assert not torch.equal(made[:, :, 18:], large[:, :, 18:])


def test_a_code_of_another_shape_is_refused() -> None:
    start = Start(torch.zeros(4, 8, 8), 0.5, coded=True)
    with pytest.raises(
        RequestError, match=r"code has shape \(4, 8, 8\), this request needs \(4, 2, 2"
    ):
        generate(make("latent"), Request("a", (1,), size=(8, 8), start=start))
