"""The noise mark: noise stays normal and independent, the payload comes back, p-values are true."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion.noise import noise
from mezzotint.provenance.noise_mark import (
    LARGE,
    Evidence,
    MarkError,
    NoiseMark,
    decipher,
    encipher,
    fits,
    marked,
    read,
    signs,
    words,
)

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
PAYLOAD = 0x0001_2345_6789_ABCD
MARK = NoiseMark(PAYLOAD, KEY)
SMALL, BIG = (8, 16, 16), (4, 64, 64)


def drawn(seed: int, shape: tuple[int, ...]) -> Tensor:
    return noise(seed, "start", 0, shape)


def of(estimate: Tensor, index: int = 0) -> list[Evidence]:
    return [Evidence("start", index, estimate)]


def test_the_cipher_is_a_permutation_and_every_bit_moves_half_of_them() -> None:
    some = [0, 1, PAYLOAD, 1 << 63, (1 << 64) - 1]
    assert [decipher(encipher(each, KEY), KEY) for each in some] == some
    assert encipher(PAYLOAD, KEY) != encipher(PAYLOAD, OTHER)
    flips = [
        (encipher(PAYLOAD, KEY) ^ encipher(PAYLOAD ^ 1 << at, KEY)).bit_count() for at in range(64)
    ]
    assert abs(sum(flips) / 64 - 32) < 5 * 4 / 8  # each is binomial, of deviation 4


def test_sizes_stay_and_signs_are_the_same_for_every_sample() -> None:
    z = torch.stack([drawn(seed, SMALL) for seed in range(3)])
    made = marked(z, MARK)
    assert torch.equal(made.abs(), z.abs())
    assert all(torch.equal(made[i].sign(), made[0].sign()) for i in range(3))
    assert torch.equal(marked(z[1:2], MARK)[0], made[1])


def test_marked_noise_is_normal() -> None:
    """Moments and the Kolmogorov distance, over payloads."""
    made = torch.stack(
        [marked(drawn(n, SMALL)[None], NoiseMark(n, KEY))[0].double() for n in range(200)]
    ).flatten()
    count = made.numel()
    for power, moment, square in ((1, 0.0, 1), (2, 1.0, 3), (3, 0.0, 15), (4, 3.0, 105)):
        error = math.sqrt((square - moment**2) / count)
        assert abs(float((made**power).mean()) - moment) < 5 * error
    ordered = made.sort().values
    steps = (torch.arange(count) + 1) / count
    distance = (torch.special.ndtr(ordered) - steps).abs().max()
    assert float(distance) < 2.5 / math.sqrt(count)  # P = 2 exp(−2 · 2.5²) = 7e-6


def patterns(count: int, elements: int) -> Tensor:
    return torch.stack([signs(NoiseMark(n, KEY), "start", 0, elements) for n in range(count)])


@pytest.mark.parametrize("elements", [1024, LARGE])
def test_pairs_of_elements_are_independent_over_payloads(elements: int) -> None:
    """No element is constant, no two are tied: every correlation is that of 1,000 fair coins."""
    count = 1000
    p = patterns(count, elements)[:, :1024].float()
    assert float(p.mean(0).abs().max()) < 6 / math.sqrt(count)
    pairs = (p.T @ p / count).fill_diagonal_(0)
    assert float(pairs.abs().max()) < 6.5 / math.sqrt(count)  # of half a million pairs
    assert float(pairs.square().mean()) == pytest.approx(1 / count, rel=0.05)


def test_draws_of_a_picture_have_independent_signs() -> None:
    count = 1000
    a, b = (
        torch.stack([signs(NoiseMark(n, KEY), *draw, 256) for n in range(count)]).float()
        for draw in (("step", 3), ("step", 4))
    )
    assert float((a.T @ b / count).abs().max()) < 6.5 / math.sqrt(count)


def test_signs_tell_nothing_of_sizes() -> None:
    z = drawn(5, BIG)
    made = marked(z[None], MARK)[0].flatten().double()
    both = torch.stack([made.sign(), made.abs()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / math.sqrt(made.numel())


def test_the_payload_comes_back_from_noise_and_from_a_faint_trace_of_it() -> None:
    made = marked(drawn(1, BIG)[None], MARK)[0]
    found = read(of(made), KEY)
    assert found.payload == PAYLOAD and found.p_value < 1e-300
    faint = 0.15 * made + drawn(2, BIG)
    found = read(of(faint), KEY)
    assert found.payload == PAYLOAD and found.p_value < 1e-6


def test_a_small_sample_carries_a_tag_that_its_payload_fits() -> None:
    made = marked(drawn(1, SMALL)[None], MARK)[0]
    found = read(of(made), KEY)
    assert found.payload is None and found.tag == words(PAYLOAD, KEY)[0]
    assert found.p_value < 1e-100
    assert fits(of(made), MARK) < 1e-100
    assert fits(of(made), NoiseMark(PAYLOAD + 1, KEY)) > 1e-4


def test_evidence_of_several_draws_adds_up() -> None:
    made = [
        marked(drawn(n, SMALL)[None], MARK, "step", n)[0] * 0.12 + drawn(50 + n, SMALL)
        for n in range(12)
    ]
    each = [Evidence("step", n, estimate) for n, estimate in enumerate(made)]
    found = read(each, KEY)
    assert found.tag == words(PAYLOAD, KEY)[0] and found.p_value < 1e-6
    assert read(each[:1], KEY).p_value > 1e-6
    swapped = [Evidence("step", (n + 1) % 12, estimate) for n, estimate in enumerate(made)]
    assert read(swapped, KEY).p_value > 1e-4


@pytest.mark.parametrize("shape", [SMALL, BIG])
def test_p_values_of_unmarked_noise_are_uniform(shape: tuple[int, ...]) -> None:
    """And of numbers that are no noise at all: whatever they are, the key's coins decide."""
    count = 60
    smooth = torch.linspace(-1, 1, math.prod(shape)).view(shape) ** 3 + 0.2
    values: list[float] = []
    for n in range(count):
        estimate = drawn(n, shape) if n % 2 else smooth
        values.append(read(of(estimate), n.to_bytes(32, "big")).p_value)
    ordered = torch.tensor(values).sort().values
    grid = (torch.arange(count) + 1) / count
    assert float((ordered - grid).abs().max()) < 2.5 / math.sqrt(count)


def test_the_p_value_of_four_words_is_that_of_a_simulation() -> None:
    """The sum of four largest of 65,536 normals, by the inverse of their distribution."""
    from mezzotint.provenance.noise_mark import _tail

    u = torch.rand(4, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    largest = -torch.special.ndtri(-torch.expm1(u.log() / 65536))
    shares = torch.tensor([0.5, 0.3, 0.7, 0.41231056], dtype=torch.float64)
    total = (shares[:, None] * largest).sum(0)
    for score in (8.0, 8.5, 9.0):
        seen = float((total >= score).double().mean())
        error = math.sqrt(seen * (1 - seen) / total.numel())
        told = _tail(score, shares.tolist())
        assert seen - 5 * error < told < 1.25 * seen + 5 * error  # rather more than less


def test_another_key_finds_nothing() -> None:
    made = marked(drawn(1, BIG)[None], MARK)[0]
    assert read(of(made), OTHER).p_value > 1e-4
    assert read(of(made, index=1), KEY).p_value > 1e-4
    assert fits(of(made), NoiseMark(PAYLOAD, OTHER)) > 1e-4


def test_what_cannot_be_set_or_read_is_named() -> None:
    z = drawn(0, SMALL)
    with pytest.raises(MarkError, match="64 bits"):
        marked(z[None], NoiseMark(1 << 64, KEY))
    with pytest.raises(MarkError, match="64 bits"):
        marked(z[None], NoiseMark(-1, KEY))
    with pytest.raises(MarkError, match="at least 16 bytes, not 5"):
        marked(z[None], NoiseMark(0, b"short"))
    with pytest.raises(MarkError, match="at least 16 bytes"):
        read(of(z), b"")
    with pytest.raises(MarkError, match="at least one"):
        read([], KEY)
    with pytest.raises(MarkError, match="one size"):
        read([*of(z), *of(drawn(0, BIG))], KEY)
    with pytest.raises(MarkError, match="not finite"):
        read(of(z * math.nan), KEY)
    assert read(of(z * 0), KEY).p_value == 1
    assert "01" not in repr(NoiseMark(0xFF, b"01" * 16))
