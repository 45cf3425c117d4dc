"""One prompt a region: masks and shares, what is evaluated, and what it goes together with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_generate import CONFIGS, make, picture, seeded  # noqa: F401
from torch import Tensor

from mezzotint.engine.generate import generate
from mezzotint.engine.regions import box, feathered, shares
from mezzotint.engine.request import (
    Enlarge,
    Guidance,
    Known,
    Refiner,
    Region,
    Request,
    RequestError,
    Start,
    Vary,
)
from mezzotint.families.model import Model

ALL = torch.ones(1, 8, 8)
LEFT = box((8, 8), 0, 0, 0.5, 1)


def test_a_box_is_as_large_as_it_says() -> None:
    assert torch.equal(LEFT[0], torch.tensor([1.0] * 4 + [0.0] * 4).expand(8, 8))
    part = box((10, 7), 0.11, 0.23, 0.37, 0.84)
    assert part.mean().item() == pytest.approx(0.26 * 0.61, abs=1e-6)
    assert box((8, 8), 0, 0, 1, 1).min() == 1
    for sides in ((0.5, 0, 0.5, 1), (0, 0.2, 1, 0.1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1)):
        with pytest.raises(RequestError, match="0 <= left < right <= 1"):
            box((8, 8), *sides)


def test_a_feathered_edge_is_a_ramp() -> None:
    mask = box((40, 40), 0, 0, 0.5, 1)
    found = feathered(mask, 0.2)[0]  # 4 pixels on each side of the edge, and that of the middle
    ramp = 1 - (torch.arange(40) - 15).clamp(0, 9) / 9
    torch.testing.assert_close(found, ramp.expand(40, 40), atol=1e-6, rtol=0)
    assert torch.equal(feathered(mask, 0), mask)
    torch.testing.assert_close(feathered(ALL, 0.5), ALL)
    with pytest.raises(RequestError, match="0 to 1 of the shorter side"):
        feathered(mask, 1.5)


def test_shares_add_up_and_a_strength_is_what_is_taken_from_the_prompt() -> None:
    main, one = shares((Region("b", LEFT, 0.7),), (4, 2, 4))
    assert one.shape == (1, 1, 2, 4)
    torch.testing.assert_close(one[0, 0, 0], torch.tensor([0.7, 0.7, 0, 0]))
    torch.testing.assert_close(main, 1 - one)
    masks = [Region("b", torch.rand(1, 8, 8)) for _ in range(3)]
    found = shares(masks, (4, 3, 5))
    torch.testing.assert_close(sum(found), torch.ones(1, 1, 3, 5))
    assert min(float(share.min()) for share in found) >= 0
    main, one, two = shares((Region("b", LEFT), Region("c", ALL)), (4, 4, 4))
    assert not main.any() and torch.equal(one[..., :2], two[..., :2]) and two[..., 3].min() == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_a_region_over_all_is_its_prompt_bit_for_bit(name: str) -> None:
    model = make(name)
    for wish in (Guidance(2.0), Guidance(1.0), Guidance(3.0, rescale=0.5, apg=True)):
        plain = generate(model, Request("b", (1, 2), guidance=wish))
        found = generate(model, Request("a", (1, 2), guidance=wish, regions=(Region("b", ALL),)))
        assert all(torch.equal(*pair) for pair in zip(plain, found, strict=True))


def _counted(model: Model) -> tuple[Model, list[int]]:
    batches: list[int] = []
    call = model.call

    def counted(x: Tensor, *rest: object) -> Tensor:
        batches.append(len(x))
        return call(x, *rest)  # type: ignore[arg-type]

    return replace(model, call=counted), batches


def test_what_is_nowhere_is_not_evaluated() -> None:
    model, batches = _counted(make())
    wish = Request("a", (1,), steps=1, sampler="ddim", guidance=Guidance(2.0))
    right = Region("c", 1 - LEFT)
    for regions, expected in (
        ((), 2),
        ((Region("b", ALL),), 2),
        ((Region("b", LEFT),), 3),  # and the prompt, and the negative one
        ((Region("b", LEFT), right), 3),
        ((Region("b", LEFT), Region("c", LEFT)), 4),
    ):
        batches.clear()
        generate(model, replace(wish, regions=regions))
        assert sum(batches) == expected


def test_pixels_of_disjoint_regions_do_not_know_each_other_at_the_last_step() -> None:
    """From pure noise in one step, each half is what its prompt makes of it, to the last bit."""
    model = make()
    one = Request("a", (1,), steps=1, sampler="ddim", guidance=Guidance(1.0))
    both = generate(model, replace(one, regions=(Region("b", LEFT), Region("c", 1 - LEFT))))[0]
    b, c = (generate(model, replace(one, prompt=prompt))[0] for prompt in "bc")
    assert torch.equal(both[..., :4], b[..., :4]) and torch.equal(both[..., 4:], c[..., 4:])


@pytest.mark.parametrize("name", ["pixels", "latent"])
def test_it_goes_with_all_else(name: str) -> None:
    """Each alone gives another picture with a region than without."""
    model = make(name)
    known = Known(picture(), 1 - LEFT)
    options: list[dict[str, object]] = [
        {"start": Start(picture(), 0.5)},
        {"known": known},
        {"vary": Vary(5, 0.3)},
        {"enlarge": Enlarge(2.0)},
        {"refiner": Refiner(make(name), 0.5)},
        {"guidance": Guidance(2.0, apg=True, rescale=0.3, interval=(0.1, 0.9))},
        {"guidance": Guidance(2.0, cfg_zero_star=True)},
        {"guidance": Guidance(2.0, skip=frozenset({0}), skip_scale=2.0)},
    ]
    for more in options:
        plain = Request("a", (1,), **more)  # type: ignore[arg-type]
        for region in (Region("b", 1 - LEFT), Region("b", 1 - LEFT, 0.5)):
            found = generate(model, replace(plain, regions=(region,)))[0]
            assert not torch.equal(found, generate(model, plain)[0]), more
            if "known" in more:
                assert torch.equal(found[..., :4], known.media[..., :4])


def test_the_masked_area_alone_takes_its_part_of_the_mask() -> None:
    model = make()
    media, mask = picture((16, 24)), box((16, 24), 1 / 3, 0, 2 / 3, 0.5)
    request = Request("a", (1,), known=Known(media, mask, 0), size=(8, 8))
    outside = Region("b", box((16, 24), 0, 0, 0.2, 1))
    inside = Region("b", box((16, 24), 1 / 3, 0, 2 / 3, 1))
    plain = generate(model, request)[0]
    assert torch.equal(generate(model, replace(request, regions=(outside,)))[0], plain)
    found = generate(model, replace(request, regions=(inside,)))[0]
    assert torch.equal(found, generate(model, replace(request, prompt="b"))[0])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region("b", LEFT, 0.0), "strength of region 1 must lie in"),
        (Region("b", LEFT, 1.5), "strength of region 1 must lie in"),
        (Region("b", LEFT * 0), "region 1 is black everywhere: make white where 'b'"),
        (Region("b", LEFT * 2), "must lie in 0 to 1"),
        (Region("b", LEFT[:, :4]), "the mask of region 1 has shape"),
    ],
)
def test_errors_name_the_region(region: Region, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        generate(make(), Request("a", (1,), regions=(region,)))
