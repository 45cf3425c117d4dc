"""Generating: what a request promises, on tiny random models of every prediction and codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mezzotint.diffusion import samplers
from mezzotint.engine.edit import expand, sides_to
from mezzotint.engine.generate import generate
from mezzotint.engine.request import (
    Guidance,
    Known,
    Progress,
    Request,
    RequestError,
    Start,
    Vary,
)
from mezzotint.families.model import Defaults, Model
from mezzotint.families.native import LatentConfig, NativeConfig, build
from mezzotint.networks.autoencoder import AutoencoderConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.unet import UNetConfig

DIT = DiTConfig(4, 4, patch=2, width=24, depth=2, heads=2, vector_width=3)
UNET = UNetConfig(4, 4, 16, (1, 2), 1, (False, True), 16, vector_width=3)
CODE = AutoencoderConfig(4, 4, 16, 16, (1, 2), 1, 1, attention=False)
CONFIG = NativeConfig(
    name="tiny",
    network=DIT,
    channels="rgba",
    condition="class",
    prediction="x0",
    schedule="flow",
    defaults=Defaults((8, 8), 4, 2.0, "dpmpp_2m", "linspace"),
    classes=("a", "b", "c"),
)
CONFIGS = {
    "pixels": CONFIG,
    "unet": replace(CONFIG, network=UNET, prediction="v", schedule="cosine"),
    "edm": replace(CONFIG, prediction="edm", schedule="edm"),
    "eps": replace(CONFIG, prediction="eps", schedule="linear"),
    "latent": replace(CONFIG, latent=LatentConfig(CODE, (0.1,) * 4, (0.5,) * 4)),
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(name: str = "pixels") -> Model:
    model = build(CONFIGS[name])
    parts = nn.ModuleDict(model.parts)
    for weight in parts.parameters():  # a fresh network ends in zeros
        nn.init.normal_(weight, std=0.1)
    parts.eval().requires_grad_(False)
    return model


def picture(size: tuple[int, int] = (8, 8)) -> Tensor:
    return torch.rand(4, *size) * 2 - 1


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_a_seed_gives_the_same_bits_in_any_batch_and_order(name: str, sampler: str) -> None:
    model = make(name)
    seeds = (7, 1, 4, 3, 9, 2, 8, 5)
    whole = dict(zip(seeds, generate(model, Request("a", seeds, sampler=sampler)), strict=True))
    three = (4, 9, 7)
    for seed, made in zip(
        three, generate(model, Request("a", three, sampler=sampler)), strict=True
    ):
        assert torch.equal(made, whole[seed])
    for seed in (1, 5):
        assert torch.equal(generate(model, Request("a", (seed,), sampler=sampler))[0], whole[seed])
    assert len({tuple(made.flatten().tolist()) for made in whole.values()}) == len(seeds)


@pytest.mark.parametrize("name", CONFIGS)
def test_shape_range_and_default_size(name: str) -> None:
    (made,) = generate(make(name), Request("b", (1,)))
    assert made.shape == (4, 8, 8)
    assert made.dtype == torch.float32 and bool((made.abs() <= 1).all())
    (wide,) = generate(make(name), Request("b", (1,), size=(8, 16)))
    assert wide.shape == (4, 8, 16)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_runs_a_flow_model_from_pure_noise(sampler: str) -> None:
    (made,) = generate(make(), Request("a", (1,), sampler=sampler))
    assert bool(made.isfinite().all()) and float(made.std()) > 0


def test_prompts_and_negatives_and_scales_matter() -> None:
    model = make()
    plain = Request("a", (1,))
    wishes = [
        plain,
        replace(plain, prompt="b"),
        replace(plain, negative="c"),
        replace(plain, guidance=Guidance(1.0)),
        replace(plain, guidance=Guidance(rescale=0.7)),
        replace(plain, guidance=Guidance(apg=True)),
        replace(plain, guidance=Guidance(cfg_zero_star=True)),
        replace(plain, guidance=Guidance(interval=(0.2, 0.6))),
        replace(plain, guidance=Guidance(perturb=frozenset({0}))),
        replace(plain, guidance=Guidance(skip=frozenset({1}), skip_scale=0.5)),
        replace(plain, guidance=Guidance(3.0, (0.1, 0.9), 0.3, perturb=frozenset({1}))),
    ]
    made = [generate(model, wish)[0] for wish in wishes]
    for i, one in enumerate(made):
        assert all(not torch.equal(one, other) for other in made[:i])


def test_an_interval_over_the_whole_path_is_no_interval() -> None:
    model = make()
    wish = Request("a", (1,))
    whole = replace(wish, guidance=Guidance(interval=(0.0, 1.0)))
    assert torch.equal(generate(model, wish)[0], generate(model, whole)[0])


def test_a_models_own_interval_is_what_a_request_takes_when_it_does_not_say() -> None:
    plain = make()
    model = replace(plain, defaults=replace(plain.defaults, interval=(0.4, 1.0)))
    said = Request("a", (1,), guidance=Guidance(interval=(0.4, 1.0)))
    everywhere = Request("a", (1,), guidance=Guidance(interval=(0.0, 1.0)))
    assert torch.equal(generate(model, Request("a", (1,)))[0], generate(plain, said)[0])
    assert torch.equal(generate(model, everywhere)[0], generate(plain, Request("a", (1,)))[0])
    assert not torch.equal(generate(model, everywhere)[0], generate(plain, said)[0])


def test_progress_is_told_after_every_step_and_previews_what_is_believed() -> None:
    told: list[Progress] = []
    shown: list[Tensor] = []

    def listen(now: Progress) -> None:
        told.append(now)
        shown.append(now.preview())

    made = generate(make(), Request("a", (1, 2)), listen)
    assert [(p.sample, p.samples, p.step, p.steps) for p in told] == [
        (sample, 2, step, 4) for sample in (0, 1) for step in (1, 2, 3, 4)
    ]
    assert torch.equal(shown[3], made[0]) and torch.equal(shown[7], made[1])


def test_a_listener_can_cancel() -> None:
    calls: list[int] = []

    def stop(now: Progress) -> None:
        calls.append(now.step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(make(), Request("a", (1, 2)), stop)
    assert calls == [1]


@pytest.mark.parametrize("name", ["pixels", "unet", "eps"])
def test_less_strength_stays_nearer_to_the_picture(name: str) -> None:
    model, start = make(name), picture()
    far = [
        float((generate(model, Request("a", (1,), start=Start(start, s)))[0] - start).norm())
        for s in (0.25, 0.5, 1.0)
    ]
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("name", ["pixels", "latent"])
def test_inpainting_keeps_what_is_known_to_the_bit(name: str) -> None:
    model, start = make(name), picture()
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    mask[:, 2, 2] = 0.5
    (made,) = generate(model, Request("a", (1,), known=Known(start, mask)))
    outside = (mask == 0).expand_as(made)
    assert torch.equal(made[outside], start[outside])
    assert not torch.allclose(made[:, 3:5, 3:5], start[:, 3:5, 3:5])


def test_the_known_part_steers_the_new_one() -> None:
    model = make()
    mask = torch.zeros(1, 8, 8)
    mask[..., 4:] = 1
    dark, light = (
        generate(model, Request("a", (1,), known=Known(torch.full((4, 8, 8), value), mask)))[0]
        for value in (-1.0, 1.0)
    )
    assert not torch.allclose(dark[..., 4:], light[..., 4:])


def test_outpainting() -> None:
    start = picture()
    known = expand(start, 2, 0, 4, 6)
    assert known.media.shape == (4, 14, 14) and known.mask.shape == (1, 14, 14)
    assert int((known.mask == 0).sum()) == 64
    (made,) = generate(make(), Request("a", (1,), size=(14, 14), known=known))
    assert torch.equal(made[:, :8, 2:10], start)
    for sides in ((0, 0, 0, 0), (-1, 2, 0, 0)):
        with pytest.raises(RequestError, match="expand by 0 or more"):
            expand(start, *sides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 8)}, "impossible size 8x0"),
        ({"size": (1 << 14, 1 << 14)}, "impossible size 16384x16384"),
        ({"seeds": ()}, "no seed"),
        ({"steps": 0}, "steps must lie in"),
        ({"guidance": Guidance(float("nan"))}, "guidance must be a number"),
        ({"guidance": Guidance(-1.0)}, "guidance must be a number"),
        ({"guidance": Guidance(interval=(0.6, 0.4))}, "a guidance interval is two times"),
        ({"guidance": Guidance(apg=True, cfg_zero_star=True)}, "choose one of them"),
        ({"start": Start(torch.zeros(4, 8, 8), 0.0)}, "strength must lie in"),
        ({"start": Start(torch.zeros(3, 8, 8), 0.5)}, "the start image has shape"),
        ({"known": Known(torch.zeros(4, 8, 8), torch.zeros(1, 8, 9))}, "the mask has shape"),
        ({"sampler": "eular"}, "unknown sampler 'eular': did you mean euler"),
        ({"spacing": "karas"}, "did you mean karras"),
        ({"prompt": "d"}, "this model knows classes"),
    ],
)
def test_impossible_requests(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        generate(make(), replace(Request("a", (1,)), **change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_latent_model_names_the_nearest_size() -> None:
    with pytest.raises(RequestError, match="multiples of 4; nearest 12x8"):
        generate(make("latent"), Request("a", (1,), size=(8, 11)))


def test_numbers_that_are_not_finite_are_refused() -> None:
    model = make()
    for weight in model.network.parameters():
        weight.fill_(float("nan"))
    with pytest.raises(RequestError, match="seed 5 gave numbers that are not finite"):
        generate(model, Request("a", (5,)))


def test_a_variation_is_between_two_seeds() -> None:
    """Of its start and of its noise on the way: by nothing it is that seed's sample, by all its
    own; and a variation of a variation begins at that."""
    model = make()
    for sampler in ("euler", "euler_ancestral"):
        wish = Request("a", (7,), sampler=sampler)
        own = generate(model, wish)[0]
        same = generate(model, replace(wish, seeds=(1, 2), vary=Vary(7, 0.0)))
        assert all(torch.equal(made, own) for made in same)
        little, much = (
            generate(model, replace(wish, seeds=(1,), vary=Vary(7, amount)))[0]
            for amount in (0.05, 0.9)
        )
        assert 0 < float((little - own).square().mean()) < float((much - own).square().mean())
        whole = generate(model, replace(wish, seeds=(1,), vary=Vary(7, 1.0)))[0]
        assert torch.equal(whole, generate(model, replace(wish, seeds=(1,)))[0])
        far = Vary(1, 0.0, of=Vary(7, 0.9))
        assert torch.equal(generate(model, replace(wish, seeds=(5,), vary=far))[0], much)
        further = generate(model, replace(wish, seeds=(5,), vary=far._replace(amount=0.4)))[0]
        assert not torch.equal(further, much)
    with pytest.raises(RequestError, match="a variation goes from 0 to 1, not 2"):
        generate(model, replace(wish, vary=Vary(7, 0.1, of=Vary(3, 2.0))))


def test_what_to_add_for_an_aspect() -> None:
    assert sides_to((512, 512), (16, 9), 8) == (200, 0, 200, 0)
    assert sides_to((512, 512), (1, 2), 8) == (0, 256, 0, 256)
    assert sides_to((100, 200), (1, 1), 1) == (0, 50, 0, 50)
    assert sides_to((101, 200), (2, 1), 8) == (0, 1, 0, 2)
    with pytest.raises(RequestError, match="has the aspect 1:1 already"):
        sides_to((512, 512), (1, 1), 8)
