"""Counter-based noise: known answers, independence of batch, order and length, statistics."""

import pytest
import torch

from mezzotint.diffusion.noise import batch, between, draws, noise, philox, stream, uniform

# Known answers of Philox-4x32-10 (kat_vectors of Random123): counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    first, *rest = counter
    result = philox(tuple(torch.tensor([word]) for word in (first, *rest)), key)
    assert tuple(int(word) for word in result) == words


def test_noise_is_a_pure_function() -> None:
    torch.manual_seed(0)
    first = noise(7, "start", 0, (3, 8, 8))
    torch.manual_seed(1)
    assert torch.equal(first, noise(7, "start", 0, (3, 8, 8)))
    state = torch.get_rng_state()
    noise(7, "start", 0, (3,))
    assert torch.equal(state, torch.get_rng_state())


def test_seed_stream_and_index_all_count() -> None:
    draws = [noise(7, "a", 0, (64,)), noise(8, "a", 0, (64,)), noise(7, "b", 0, (64,))]
    draws += [noise(7, "a", 1, (64,)), noise(7, "a", 2**32, (64,)), noise(7, "a", 2**33, (64,))]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not torch.equal(one, other)


def test_negative_and_huge_seeds_are_seeds() -> None:
    assert not torch.equal(noise(-7, "a", 0, (8,)), noise(7, "a", 0, (8,)))
    assert not torch.equal(noise(2**70, "a", 0, (8,)), noise(0, "a", 0, (8,)))


@pytest.mark.parametrize("count", [1, 2, 3, 127, 129, 1000])
def test_a_longer_draw_begins_with_the_shorter(count: int) -> None:
    assert torch.equal(noise(7, "a", 0, (count,)), noise(7, "a", 0, (4096,))[:count])


@pytest.mark.parametrize("seeds", [[5], [5, 6, 7], [7, 6, 5], [1, 2, 5, 3, 4, 6, 7, 8]])
def test_a_sample_does_not_know_its_batch(seeds: list[int]) -> None:
    drawn = batch(seeds, "start", 3, (4, 5))
    assert torch.equal(drawn[seeds.index(5)], noise(5, "start", 3, (4, 5)))


def test_noise_is_standard_normal() -> None:
    x = noise(0, "moments", 0, (400_000,)).double()
    assert abs(x.mean().item()) < 5 * 400_000**-0.5
    assert abs(x.var().item() - 1) < 5 * (2 / 400_000) ** 0.5
    assert abs((x**4).mean().item() - 3) < 5 * (96 / 400_000) ** 0.5
    # pairs come of one radius and angle: they must not be correlated, nor their squares
    a, b = x[::2], x[1::2]
    assert abs((a * b).mean().item()) < 5 * 200_000**-0.5
    assert abs(((a**2 - 1) * (b**2 - 1)).mean().item()) < 5 * 2 * 200_000**-0.5


def test_uniform_is_uniform_and_never_an_end() -> None:
    u = uniform(0, "u", 0, (100_000,))
    assert u.dtype == torch.float64
    assert 0 < u.min().item() < 1e-4
    assert 1 - 1e-4 < u.max().item() < 1
    counts = torch.histc(u.float(), 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum().item() < 50  # chi-squared, 19 degrees: p < 1e-4
    assert uniform(0, "u", 0).shape == ()


def test_stream_draws_by_number_in_the_shape_of_x() -> None:
    draw = stream([3, 4], "step", torch.zeros(2, 3, 5, dtype=torch.float64))
    assert draw(0).dtype == torch.float64
    assert torch.equal(draw(1), draw(1))
    assert torch.equal(draw(1)[1], noise(4, "step", 1, (3, 5)).double())


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="counts from 0"):
        noise(0, "a", -1, (2,))
    with pytest.raises(ValueError, match="3 seeds for a batch of 2"):
        stream([1, 2, 3], "step", torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(), (3,), (8, 16, 16), (3, 31, 17), (2, 0, 4)])
def test_many_draws_at_once_are_the_draws_one_by_one(shape: tuple[int, ...]) -> None:
    indices = [5, 0, 2**33 + 1, 7]
    together = draws(3, "train", indices, shape)
    assert torch.equal(together, torch.stack([noise(3, "train", i, shape) for i in indices]))


def test_between_two_noises_is_noise() -> None:
    a, b = (batch([seed, seed + 1], "start", 0, (4, 32, 32)) for seed in (1, 7))
    assert torch.equal(between(a, b, 0), a) and torch.equal(between(a, b, 1), b)
    for share in (0.1, 0.5, 0.9):
        made = between(a, b, share)
        for n in range(2):
            assert abs(float(made[n].std()) - 1) < 0.02
        assert torch.equal(between(a[:1], b[:1], share)[0], made[0])  # each by itself
    middle = between(a, b, 0.5).double().flatten(1)
    ends = [one.double().flatten(1) for one in (a, b)]
    cosines = [torch.cosine_similarity(middle, end) for end in ends]
    torch.testing.assert_close(*cosines, rtol=0, atol=0.03)  # of unlike lengths
    assert float(cosines[0].min()) > 0.69  # 1 / sqrt 2, nearly


def test_between_follows_the_circle() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = between(a, b, 1 / 3)
    torch.testing.assert_close(found, torch.tensor([[3**0.5 / 2, 0.5]]))
    torch.testing.assert_close(between(a, 2 * a, 0.5), 1.5 * a)  # no circle to go along
