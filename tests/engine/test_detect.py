"""Marked noise in the engine: what it changes and what not, and that the model finds it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mezzotint.diffusion.level import Conditioning
from mezzotint.diffusion.noise import noise
from mezzotint.engine.detect import Search, _sized, cut_out, detect, evidence, verify_mark
from mezzotint.engine.ends import noise_of
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Enlarge, Known, Request, RequestError, Start, Vary
from mezzotint.families.model import WHOLE, Defaults, Model, Weaker
from mezzotint.families.native import LatentConfig, NativeConfig, build
from mezzotint.networks.autoencoder import AutoencoderConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.provenance import keys
from mezzotint.provenance.noise_mark import Evidence, MarkError, NoiseMark, fits, marked, words

KEY, OTHER = b"k" * 32, b"o" * 32
OWNER = keys.of_secret(KEY)
MARK = NoiseMark(keys.payload(OWNER, keys.seed_hash(3)), KEY)  # of seed 3
CONFIG = NativeConfig(
    name="tiny",
    network=DiTConfig(4, 4, patch=2, width=24, depth=2, heads=2, vector_width=3),
    channels="rgba",
    condition="class",
    prediction="x0",
    schedule="flow",
    defaults=Defaults((8, 8), 4, 2.0, "dpmpp_2m", "linspace"),
    classes=("a", "b", "c"),
)
CODED = replace(
    CONFIG,
    latent=LatentConfig(
        AutoencoderConfig(4, 4, 16, 16, (1, 2), 1, 1, attention=False), (0.1,) * 4, (0.5,) * 4
    ),
)
VARIANCE = 0.04  # of the analytic model's data: its pictures are hardly ever cut off at ±1


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def tiny(config: NativeConfig = CONFIG) -> Model:
    model = build(config)
    parts = nn.ModuleDict(model.parts)
    for weight in parts.parameters():  # a fresh network ends in zeros
        nn.init.normal_(weight, std=0.1)
    parts.eval().requires_grad_(False)
    return model


def analytic() -> Model:
    """The exact denoiser of data ``N(0, VARIANCE I)`` in a rectified flow: x0 is linear in x."""

    def call(x: Tensor, time: Tensor, told: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        sigma = time.view(-1, 1, 1, 1)
        alpha = 1 - sigma
        return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x

    return replace(tiny(), call=call)


def made(model: Model, **changes: object) -> Tensor:
    return generate(model, replace(Request("a", (3,), mark=OWNER), **changes))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_a_marked_seed_gives_the_same_bits_in_any_batch(sampler: str) -> None:
    model = tiny()
    eight = generate(model, Request("a", tuple(range(8)), sampler=sampler, mark=OWNER))
    four = generate(model, Request("a", (0, 1, 2, 3), sampler=sampler, mark=OWNER))
    assert torch.equal(eight[3], four[3])
    (plain,) = generate(model, Request("a", (3,), sampler=sampler))
    assert not torch.equal(plain, four[3])


def test_a_seeds_noise_carries_the_seeds_payload_and_without_a_key_none() -> None:
    like = torch.empty(1, 4, 8, 8)
    own = noise_of(3, None, "step", like)(2)
    assert torch.equal(own[0], noise(3, "step", 2, (4, 8, 8)))
    carried = noise_of(3, None, "step", like, OWNER)(2)
    assert torch.equal(carried, marked(own, MARK, "step", 2))


def test_a_variation_that_goes_nowhere_carries_the_varied_seeds_mark() -> None:
    like = torch.empty(1, 4, 8, 8)
    still = noise_of(5, Vary(3, 0.0), "step", like, OWNER)(2)
    assert torch.equal(still, noise_of(3, None, "step", like, OWNER)(2))


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_a_start_image_is_left_without_a_mark(sampler: str) -> None:
    model, begun = tiny(), Start(torch.rand(4, 8, 8) * 2 - 1, 0.6)
    plain = made(model, start=begun, sampler=sampler, mark=None)
    assert torch.equal(made(model, start=begun, sampler=sampler), plain)


def test_the_second_pass_and_painting_over_take_a_mark() -> None:
    model = tiny()
    larger = made(model, enlarge=Enlarge(2.0, 0.5))
    assert not torch.equal(larger, made(model, enlarge=Enlarge(2.0, 0.5), mark=None))
    known = Known(torch.zeros(4, 8, 8), (torch.arange(8) > 3).float().expand(1, 8, 8))
    part = made(model, known=known)
    assert torch.equal(part[:, :, :4], torch.zeros(4, 8, 4))
    assert not torch.equal(part, made(model, known=known, mark=None))


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde"])
def test_the_mark_is_found_again(sampler: str) -> None:
    model = analytic()
    request = {"size": (32, 32), "sampler": sampler, "steps": 20}
    search = Search(steps=20, iterations=6, refine=0)
    picture = made(model, **request)
    found = detect(model, picture, KEY, search)
    assert found.tag == words(MARK.payload, KEY)[0] and found.p_value < 1e-6
    assert verify_mark(model, picture, MARK, search) < 1e-10
    assert detect(model, picture, OTHER, search).p_value > 1e-3
    assert verify_mark(model, picture, NoiseMark(1, KEY), search) > 1e-3
    assert detect(model, made(model, **request | {"mark": None}), KEY, search).p_value > 1e-3


def test_a_deterministic_sampler_is_inverted_to_the_start_itself() -> None:
    model = analytic()
    picture = made(model, size=(16, 16), sampler="ddim", steps=8)
    _, (start,) = evidence(model, picture, Search(steps=8, iterations=20, refine=0))
    like = torch.empty(1, 4, 16, 16)
    sent = noise_of(3, None, "start", like, OWNER)(0)[0]
    torch.testing.assert_close(start.noise, sent, rtol=1e-3, atol=1e-3)


def test_a_large_sample_carries_its_payload_through_the_model() -> None:
    model = analytic()
    picture = made(model, size=(64, 64), sampler="ddim", steps=8)
    found = detect(model, picture, KEY, Search(steps=8, draws=2, refine=0))
    assert found.payload == MARK.payload and found.p_value < 1e-30


def test_a_latent_model_is_searched_and_its_code_refined() -> None:
    model = tiny(CODED)
    picture = made(model, size=(16, 16), sampler="euler_ancestral")
    steps, (start,) = evidence(model, picture, Search(refine=3, draws=2))
    assert [each.number for each in steps] == [0, 1, 2]
    assert start.noise.shape == model.codec.shape((16, 16))
    again = detect(model, picture, KEY, Search(refine=3, draws=2))
    assert again == detect(model, picture, KEY, Search(refine=3, draws=2))
    coarse, _ = evidence(model, picture, Search(refine=0, draws=2))
    assert not torch.equal(coarse[0].noise, steps[0].noise)


def test_what_cannot_be_is_named() -> None:
    model, picture = tiny(), torch.zeros(4, 8, 8)
    with pytest.raises(MarkError, match="64 bits"):
        verify_mark(model, picture, NoiseMark(-1, KEY), Search(draws=2))
    with pytest.raises(MarkError, match="at least 16 bytes"):
        detect(model, picture, b"short", Search(draws=2))
    with pytest.raises(RequestError, match="4 channels"):
        detect(model, picture[:2], KEY)
    with pytest.raises(RequestError, match="not finite"):
        detect(model, picture / 0, KEY)
    with pytest.raises(RequestError, match="pairs"):
        detect(model, picture, KEY, Search(draws=3))
    with pytest.raises(RequestError, match="iterations"):
        detect(model, picture, KEY, Search(iterations=0))
    with pytest.raises(RequestError, match="refine"):
        detect(model, picture, KEY, Search(refine=-1))


def test_what_was_laid_on_white_is_cut_out() -> None:
    """A disc with a soft edge and a white eye: the ground goes, the eye stays."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    far = ((y - 16) ** 2 + (x - 16) ** 2).sqrt()
    alpha = (11 - far).clamp(0, 1)[None]
    colour = torch.tensor([0.8, 0.1, 0.0]).view(3, 1, 1).expand(3, 32, 32)
    colour = torch.where(far < 4, torch.ones(3, 1, 1), colour) * alpha
    cut = (cut_out((colour + 1 - alpha) * 2 - 1) + 1) / 2
    torch.testing.assert_close(cut[3:], alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(cut[:3], colour, atol=1e-5, rtol=0)
    lines = (cut_out((colour + 1 - alpha) * 2 - 1, enclosed=True) + 1) / 2
    assert float(lines[3, far < 3].max()) == 0 < float(lines[3, far > 7].max())
    assert torch.equal(lines[:, far > 8], cut[:, far > 8])


def test_a_picture_on_white_is_searched_with_a_model_that_knows_transparency() -> None:
    model = analytic()
    picture = made(model, size=(64, 64), sampler="ddim", steps=8)
    unit = (picture + 1) / 2
    white = (unit[:3] + 1 - unit[3:]) * 2 - 1
    search = Search(steps=8, draws=2, iterations=8)
    assert verify_mark(model, white, MARK, search) < 1e-6


def test_what_is_opaque_is_taken_for_laid_on_white() -> None:
    """As a JPEG is read where a picture with transparency is asked for."""
    model, white = analytic(), torch.rand(3, 16, 16) * 2 - 1
    search = Search(steps=4, draws=2)
    three, four = (
        evidence(model, picture, search)[0]
        for picture in (white, torch.cat([white, torch.ones(1, 16, 16)]))
    )
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(three, four, strict=True))


def test_a_known_seeds_sizes_confirm_a_mark_with_less() -> None:
    """z grows by the root of pi / 2, whatever the trace's strength, and only of the right key."""
    own = marked(noise(3, "step", 2, (8, 32, 32))[None], MARK, "step", 2)[0]
    trace = Evidence("step", 2, 0.06 * own + noise(9, "step", 2, (8, 32, 32)))
    known, plain = (
        -torch.special.ndtri(torch.tensor(fits([one], MARK), dtype=torch.float64))
        for one in (_sized(trace, 3), trace)
    )
    assert plain > 3 and 1.1 < known / plain < 1.4
    assert fits([_sized(trace, 3)], NoiseMark(MARK.payload, OTHER)) > 1e-3


def test_a_search_that_knows_the_seed_finds_its_mark_and_no_other() -> None:
    model = analytic()
    picture = made(model, size=(32, 32), sampler="euler_ancestral", steps=8)
    search = Search(seed=3, steps=8, draws=2, refine=0)
    assert verify_mark(model, picture, MARK, search) < 1e-10
    assert verify_mark(model, picture, NoiseMark(1, KEY), search) > 1e-3
