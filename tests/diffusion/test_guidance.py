"""Guidance: closed forms, the invariant for everything and every combination, diffusers' forms."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
from diffusers.guiders.guider_utils import rescale_noise_cfg
from torch import Tensor

from mezzotint.diffusion.guidance import (
    Contrast,
    Rule,
    apg,
    autoguidance,
    cat_conditioning,
    cfg_zero_star,
    clamp,
    classifier,
    classifier_free,
    constrained,
    contrast,
    expand_conditioning,
    fits,
    in_turn,
    interval,
    known_region,
    linear,
    rescale,
    with_conditioning,
)
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, Tokens, from_x0, mix
from mezzotint.diffusion.prediction import ROWS, solve, target

X = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


LEVELS = {
    "vp": Level(number(0.6), number(0.8)),
    "flow": Level(number(0.3), number(0.7)),
    "noise": Level(number(0.0), number(1.0)),
    "ve": Level(number(1.0), number(12.0)),
    "per sample": Level(
        torch.tensor([0.99, 0.6, 0.1], dtype=torch.float64),
        torch.tensor([0.05, 0.8, 0.99], dtype=torch.float64),
    ),
}


def gaussian(shift: float = 0.0) -> Denoiser:
    """The exact denoiser of N(mean, 1), the mean being the conditioning's vector and a shift."""

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        assert conditioning.vector is not None
        mean = conditioning.vector.view(-1, 2, 1, 1) + shift
        alpha, sigma = level.to(x)
        x0 = (alpha * x + sigma**2 * mean) / (alpha**2 + sigma**2)
        # nonlinear, so that a guidance cannot be right by accident
        x0 = x0 + 0.1 * (3 * mean * x).sin()
        return from_x0(x, level, x0)._replace(variance_mix=(x + mean).sigmoid())

    return denoise


COND = Conditioning(vector=torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]], dtype=torch.float64))
NONE = Conditioning(vector=torch.tensor([[0.3, -0.2]], dtype=torch.float64))


def holds(x: Tensor, level: Level, estimate: Estimate) -> None:
    torch.testing.assert_close(mix(estimate.x0, estimate.eps, level), x, rtol=0, atol=1e-10)


RULES: dict[str, Callable[[], Rule]] = {
    "linear": lambda: linear,
    "rescale": lambda: rescale(0.7),
    "rescale flow": lambda: rescale(0.7, row=ROWS["flow"]),
    "apg": lambda: apg(0.3, 2.5, -0.5),
    "zero star": lambda: cfg_zero_star(),
    "zero star init": lambda: cfg_zero_star(LEVELS["vp"]),
    "rescaled apg": lambda: rescale(0.5, apg(0.0, 5.0)),
    "rescaled zero star": lambda: rescale(0.5, cfg_zero_star()),
}
every_rule = pytest.mark.parametrize("rule", list(RULES))
every_level = pytest.mark.parametrize("where", list(LEVELS))


@every_level
@every_rule
def test_every_rule_keeps_the_invariant(rule: str, where: str) -> None:
    level = LEVELS[where]
    denoise = classifier_free(gaussian(), NONE, 6.0, RULES[rule]())
    plain = gaussian()(X, level, COND)
    for _ in range(2):  # the second time apg has momentum
        estimate = denoise(X, level, COND)
        holds(X, level, estimate)
        assert plain.variance_mix is not None
        assert estimate.variance_mix is not None
        torch.testing.assert_close(estimate.variance_mix, plain.variance_mix)
    assert not torch.allclose(estimate.x0, plain.x0)


WRAPPERS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "autoguidance": lambda d: autoguidance(d, gaussian(0.4), 2.0),
    "autoguidance apg": lambda d: autoguidance(d, gaussian(0.4), 2.0, apg(0.5)),
    "interval": lambda d: interval(d, gaussian(), 0.5, 5.0),
    "classifier": lambda d: classifier(d, lambda x, level: -(x**2).flatten(1).sum(1), 1.3),
    "inpaint": lambda d: constrained(d, known_region(X[:, :, :1], X.sigmoid())),
    "clamp": lambda d: constrained(d, clamp(-0.5, 0.5)),
}


@pytest.mark.parametrize("outer", list(WRAPPERS))
@pytest.mark.parametrize("rule", ["linear", "rescale", "apg", "zero star init", "rescaled apg"])
def test_every_combination_keeps_the_invariant(rule: str, outer: str) -> None:
    for inner, where in product(WRAPPERS, ["flow", "per sample"]):
        pag = [Contrast(gaussian(0.3), 3.0, apg())]
        base = classifier_free(gaussian(), NONE, 4.0, RULES[rule](), pag)
        estimate = WRAPPERS[outer](WRAPPERS[inner](base))(X, LEVELS[where], COND)
        holds(X, LEVELS[where], estimate)
        assert estimate.variance_mix is not None


@every_rule
def test_scale_one_is_off_and_never_calls_the_weak(rule: str) -> None:
    def never(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        raise AssertionError("called")

    calls: list[int] = []

    def counted(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        calls.append(x.shape[0])
        return gaussian()(x, level, conditioning)

    plain = gaussian()(X, LEVELS["vp"], COND)
    for denoise in (
        classifier_free(counted, NONE, 1.0, RULES[rule](), [Contrast(never, 1.0)]),
        autoguidance(counted, never, 1.0, RULES[rule]()),
        classifier(counted, lambda x, level: x.sum(), 1.0),
    ):
        estimate = denoise(X, LEVELS["vp"], COND)
        assert torch.equal(estimate.x0, plain.x0)
        assert torch.equal(estimate.eps, plain.eps)
    assert calls == [3, 3, 3]


@pytest.mark.parametrize("rule", [name for name in RULES if name != "zero star init"])
def test_every_rule_gives_the_strong_estimate_at_scale_one(rule: str) -> None:
    strong, weak = gaussian()(X, LEVELS["vp"], COND), gaussian()(X, LEVELS["vp"], NONE)
    estimate = RULES[rule]()(strong, weak, 1.0, LEVELS["vp"])
    torch.testing.assert_close(estimate.x0, strong.x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(estimate.eps, strong.eps, rtol=0, atol=1e-12)


def test_classifier_free_is_the_lerp() -> None:
    level = LEVELS["vp"]
    strong, weak = gaussian()(X, level, COND), gaussian()(X, level, NONE)
    estimate = classifier_free(gaussian(), NONE, 5.0)(X, level, COND)
    torch.testing.assert_close(estimate.eps, weak.eps + 5 * (strong.eps - weak.eps))
    torch.testing.assert_close(estimate.x0, weak.x0 + 5 * (strong.x0 - weak.x0))


@every_level
@every_rule
def test_one_call_or_two_are_the_same(rule: str, where: str) -> None:
    sizes: list[int] = []

    def counted(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        sizes.append(x.shape[0])
        return gaussian()(x, level, conditioning)

    level = LEVELS[where]
    one = classifier_free(counted, NONE, 5.0, RULES[rule]())(X, level, COND)
    two = classifier_free(counted, NONE, 5.0, RULES[rule](), together=False)(X, level, COND)
    assert sizes == [6, 3, 3]
    torch.testing.assert_close(one.x0, two.x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.eps, two.eps, rtol=0, atol=1e-12)


def test_different_slots_are_called_apart() -> None:
    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        shift = 0.0 if conditioning.vector is None else 1.0
        return from_x0(x, level, x + shift)

    estimate = classifier_free(denoise, Conditioning(), 3.0)(X, LEVELS["vp"], COND)
    torch.testing.assert_close(estimate.x0, X + 3)


@every_rule
def test_a_sample_does_not_know_its_batch(rule: str) -> None:
    wide = torch.randn(8, 2, 33, 31, generator=torch.Generator().manual_seed(1))
    other = wide.roll(1, 0).sin()
    level = LEVELS["vp"]
    strong, weak = from_x0(wide, level, wide.cos()), from_x0(wide, level, other)
    batch = RULES[rule]()(strong, weak, 5.0, level)
    for i in (0, 3, 7):
        pick = slice(i, i + 1)
        alone = RULES[rule]()(
            Estimate(strong.x0[pick], strong.eps[pick]),
            Estimate(weak.x0[pick], weak.eps[pick]),
            5.0,
            level,
        )
        assert torch.equal(alone.x0, batch.x0[pick])
        assert torch.equal(alone.eps, batch.eps[pick])


@pytest.mark.parametrize("row", ["v", "eps", "flow"])
def test_rescale_equals_diffusers(row: str) -> None:
    level = LEVELS["vp"]
    strong, weak = gaussian()(X, level, COND), gaussian()(X, level, NONE)
    f, g = (target(ROWS[row], e.x0, e.eps, level) for e in (strong, weak))
    expected = rescale_noise_cfg(g + 7.0 * (f - g), f, guidance_rescale=0.6)
    estimate = rescale(0.6, row=ROWS[row])(strong, weak, 7.0, level)
    torch.testing.assert_close(target(ROWS[row], estimate.x0, estimate.eps, level), expected)
    torch.testing.assert_close(estimate.x0, solve(ROWS[row], X, expected, level).x0)


@pytest.mark.parametrize(("eta", "threshold", "momentum"), [(0, 0, 0), (0.4, 3, 0), (1, 2, -0.7)])
def test_apg_equals_diffusers(eta: float, threshold: float, momentum: float) -> None:
    rule, buffer = apg(eta, threshold or None, momentum), MomentumBuffer(momentum)
    for where in ("noise", "flow", "vp"):
        strong, weak = (gaussian()(X, LEVELS[where], c) for c in (COND, NONE))
        expected = normalized_guidance(
            strong.x0, weak.x0, 6.0, buffer if momentum else None, eta, threshold, True
        )
        ours = rule(strong, weak, 7.0, LEVELS[where])
        torch.testing.assert_close(ours.x0, expected, rtol=0, atol=1e-10)


def test_apg_with_eta_one_is_classifier_free() -> None:
    strong, weak = (gaussian()(X, LEVELS["vp"], c) for c in (COND, NONE))
    ours, plain = apg(1.0)(strong, weak, 5.0, LEVELS["vp"]), linear(strong, weak, 5.0, LEVELS["vp"])
    torch.testing.assert_close(ours.x0, plain.x0)


def test_apg_momentum_serves_one_run() -> None:
    rule = apg(momentum=-0.5)
    rule(*(gaussian()(X, LEVELS["vp"], c) for c in (COND, NONE)), 5.0, LEVELS["vp"])
    half = Conditioning(vector=COND.vector[:1] if COND.vector is not None else None)
    with pytest.raises(ValueError, match="make a fresh one"):
        rule(*(gaussian()(X[:1], LEVELS["vp"], c) for c in (half, NONE)), 5.0, LEVELS["vp"])


def test_zero_star_scale_equals_diffusers() -> None:
    level, row = LEVELS["flow"], ROWS["flow"]
    strong, weak = gaussian()(X, level, COND), gaussian()(X, level, NONE)
    f, g = (target(row, e.x0, e.eps, level) for e in (strong, weak))
    share = cfg_zero_star_scale(f.flatten(1).float(), g.flatten(1).float()).double()
    g = share.view(-1, 1, 1, 1) * g
    estimate = cfg_zero_star()(strong, weak, 4.0, level)
    output = target(row, estimate.x0, estimate.eps, level)
    torch.testing.assert_close(output, g + 4 * (f - g), rtol=1e-5, atol=1e-5)


def test_zero_init_leaves_x_where_it_is() -> None:
    alpha = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    path = Level(alpha, 1 - alpha)
    rule = cfg_zero_star(path.at(1))
    for i, still in [(0, True), (1, True), (2, False)]:
        strong, weak = (gaussian()(X, path.at(i), c) for c in (COND, NONE))
        estimate = rule(strong, weak, 4.0, path.at(i))
        velocity = target(ROWS["flow"], estimate.x0, estimate.eps, path.at(i))
        assert bool((velocity.abs() < 1e-12).all()) is still
        moved = mix(estimate.x0, estimate.eps, path.at(2))
        assert torch.allclose(moved, X, rtol=0, atol=1e-12) is (still or i == 2)


def test_guidances_add_up() -> None:
    level = LEVELS["vp"]
    cond, none, perturbed = (
        denoise(X, level, c)
        for denoise, c in [(gaussian(), COND), (gaussian(), NONE), (gaussian(0.3), COND)]
    )
    # as perturbed-attention guidance writes it: uncond + w (cond − uncond) + s (cond − perturbed)
    expected = none.eps + 5 * (cond.eps - none.eps) + 3 * (cond.eps - perturbed.eps)
    first = classifier_free(gaussian(), NONE, 5.0, contrasts=[Contrast(gaussian(0.3), 4.0)])
    second = contrast(
        gaussian(),
        [Contrast(with_conditioning(gaussian(), expand_conditioning(NONE, 3)), 5.0),
         Contrast(gaussian(0.3), 4.0)],
    )  # fmt: skip
    for denoise in (first, second):
        torch.testing.assert_close(denoise(X, level, COND).eps, expected)


def test_interval_calls_only_what_applies() -> None:
    calls: list[str] = []

    def named(name: str, shift: float) -> Denoiser:
        def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
            calls.append(name)
            return gaussian(shift)(x, level, conditioning)

        return denoise

    limited = interval(named("guided", 1.0), named("plain", 0.0), 0.5, 1.5)
    for alpha, sigma in [(1.0, 0.4), (0.6, 0.8), (0.5, 0.25), (0.5, 0.75), (0.1, 0.9), (0.0, 1.0)]:
        limited(X, Level(number(alpha), number(sigma)), COND)
    assert calls == ["plain", "guided", "plain", "guided", "plain", "plain"]
    mixed = limited(X, LEVELS["per sample"], COND)
    guided, plain = (gaussian(shift)(X, LEVELS["per sample"], COND) for shift in (1.0, 0.0))
    assert torch.equal(mixed.x0[1], guided.x0[1])
    assert torch.equal(mixed.x0[::2], plain.x0[::2])
    with pytest.raises(ValueError, match="0 <= low < high"):
        interval(gaussian(), gaussian(), 2.0, 1.0)


def test_in_turn_calls_what_has_begun() -> None:
    ratios = torch.tensor([torch.inf, 3.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    sigma = (ratios / (1 + ratios)).nan_to_num(1.0)
    path = Level(1 - sigma, sigma)
    called: list[str] = []

    def named(name: str) -> Denoiser:
        def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
            called.append(name)
            return Estimate(x, x)

        return denoise

    turned = in_turn(path, {0: named("a"), 2: named("b"), 3: named("c")})
    x = torch.zeros(2, 1)
    for level in (path.at(0), path.at(1), Level(*torch.tensor([0.3, 0.7]).double())):
        turned(x, level, Conditioning())
    assert called == ["a", "a", "a"]
    for level in (path.at(2), path.at(3), path.at(4), path.at(torch.tensor([2, 2]))):
        turned(x, level, Conditioning())
    assert called[3:] == ["b", "c", "c", "b"]
    with pytest.raises(ValueError, match="levels of a batch lie in several steps"):
        turned(x, path.at(torch.tensor([1, 2])), Conditioning())
    with pytest.raises(ValueError, match="must begin with step 0"):
        in_turn(path, {1: named("a")})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_classifier_guidance_is_the_posterior_of_a_gaussian(mode: Callable[[], object]) -> None:
    # Data N(0, 1), observed y = x0 + N(0, 1): the posterior given y too is known in closed form.
    level, y = LEVELS["vp"], 1.7
    alpha, sigma = (value.item() for value in level)

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        return from_x0(x, level, alpha * x)  # alpha^2 + sigma^2 = 1

    def log_prob(x: Tensor, level: Level) -> Tensor:
        # p(y | x) = N(alpha x, sigma^2 + 1), for x0 given x is N(alpha x, sigma^2)
        return -((y - alpha * x) ** 2 / (2 * (sigma**2 + 1))).flatten(1).sum(1)

    with mode():  # type: ignore[attr-defined]
        estimate = classifier(denoise, log_prob, 2.0)(X.clone(), level, Conditioning())
    precision = 1 + 1 + alpha**2 / sigma**2
    torch.testing.assert_close(estimate.x0, (y + alpha * X / sigma**2) / precision)
    holds(X, level, estimate)


def test_classifier_guidance_is_refused_at_pure_noise() -> None:
    guided = classifier(gaussian(), lambda x, level: x.flatten(1).sum(1), 2.0)
    with pytest.raises(ValueError, match="limit it to an interval"):
        guided(X, LEVELS["noise"], COND)
    limited = interval(guided, gaussian(), 0.0, 100.0)
    holds(X, LEVELS["noise"], limited(X, LEVELS["noise"], COND))


def test_the_known_region_is_kept() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    known = torch.full((1, 2, 4, 4), 0.25, dtype=torch.float64)
    level = LEVELS["vp"]
    free, kept = gaussian()(X, level, COND), constrained(gaussian(), known_region(known, mask))
    estimate = kept(X, level, COND)
    torch.testing.assert_close(estimate.x0[..., 2:], known[..., 2:].expand(3, -1, -1, -1))
    assert torch.equal(estimate.x0[..., :2], free.x0[..., :2])
    assert torch.equal(estimate.eps[..., :2], free.eps[..., :2])
    torch.testing.assert_close(estimate.eps, from_x0(X, level, estimate.x0).eps)


def test_clamp_keeps_the_range() -> None:
    estimate = constrained(gaussian(), clamp(-0.5, 0.5))(X, LEVELS["vp"], COND)
    assert estimate.x0.abs().max().item() == pytest.approx(0.5)


# Conditioning in one batch


def attend(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
    """A denoiser that reads every slot, and its tokens through their masks."""
    total = torch.zeros_like(x[:, :1])
    for tokens in (conditioning.context, conditioning.tokens):
        assert tokens is not None
        values, mask, ids = tokens
        weight = values[..., :1] + (0 if ids is None else ids[..., :1])
        weight = weight if mask is None else weight.masked_fill(~mask[..., None], -torch.inf)
        total = total + (weight.softmax(1) * values).sum((1, 2)).view(-1, 1, 1, 1)
    assert conditioning.vector is not None
    assert conditioning.concat is not None
    assert conditioning.residuals is not None
    total = total + conditioning.vector.sum(1).view(-1, 1, 1, 1)
    total = total + conditioning.concat + sum(conditioning.residuals)
    return from_x0(x, level, x + total)


def tokens(batch: int, length: int, masked: bool, seed: int, ids: bool) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, 5, generator=generator, dtype=torch.float64)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[:, length - 1] = not masked
    places = torch.randn(batch, length, 2, generator=generator, dtype=torch.float64)
    return Tokens(values, mask if masked else None, places if ids else None)


def full(batch: int, length: int, masked: bool, seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Conditioning(
        draw(batch, 4),
        tokens(batch, length, masked, seed + 1, ids=False),
        tokens(batch, length + 2, masked, seed + 2, ids=True),
        draw(batch, 1, 4, 4),
        (draw(batch, 1, 4, 4), draw(batch, 1, 4, 4)),
    )


@pytest.mark.parametrize(("masked", "other_masked"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize(("length", "other"), [(3, 3), (3, 7), (6, 2)])
def test_padding_does_not_change_results(
    length: int, other: int, masked: bool, other_masked: bool
) -> None:
    cond, none = full(3, length, masked, 0), full(1, other, other_masked, 10)
    assert fits(cond, none)
    one = classifier_free(attend, none, 5.0)(X, LEVELS["vp"], cond)
    apart = classifier_free(attend, none, 5.0, together=False)(X, LEVELS["vp"], cond)
    torch.testing.assert_close(one.x0, apart.x0, rtol=0, atol=1e-12)
    both = cat_conditioning(cond, expand_conditioning(none, 3))
    assert both.context is not None
    assert both.context.values.shape == (6, max(length, other), 5)
    unmasked = not masked and not other_masked and length == other
    assert (both.context.mask is None) is unmasked


def test_conditionings_that_do_not_fit_are_refused() -> None:
    full_one = full(2, 3, True, 0)
    for other in (
        Conditioning(),
        full_one._replace(vector=torch.zeros(2, 9)),
        full_one._replace(context=tokens(2, 3, True, 0, ids=True)),
        full_one._replace(residuals=()),
        full_one._replace(concat=None),
    ):
        assert not fits(full_one, other)
        with pytest.raises(ValueError, match="cannot share a batch"):
            cat_conditioning(full_one, other)
    assert cat_conditioning(Conditioning(), Conditioning()) == Conditioning()
    with pytest.raises(ValueError, match="for 2 samples does not fit 3"):
        expand_conditioning(full_one, 3)
