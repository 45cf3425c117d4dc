"""Pictures that share in what a prior imagines: the rule, what a model is told, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mezzotint.engine import generate as engine
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Region, Request, RequestError, Seen
from mezzotint.engine.seen import MOST, shared
from mezzotint.families.model import Defaults, Model
from mezzotint.families.native import NativeConfig, build
from mezzotint.networks.mlp import MLPConfig
from mezzotint.networks.unet import UNetConfig

WIDTH = 6


def drawn(number: int) -> Tensor:
    return torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(number))


def seen(*strengths: float) -> tuple[Seen, ...]:
    return tuple(Seen(f"{n}.png", drawn(n), s) for n, s in enumerate(strengths))


# --- the rule ---------------------------------------------------------------------------------


def test_one_picture_alone_is_itself_and_so_is_one_of_full_strength() -> None:
    for imagined, strength in ((None, 0.3), (None, 1.0), (drawn(9), 1.0)):
        found = shared(imagined, seen(strength))
        assert found is not None
        torch.testing.assert_close(found, drawn(0))


def test_of_no_strength_the_words_are_left_alone() -> None:
    for nothing in ((), seen(0.0, 0.0)):
        assert shared(None, nothing) is None
        found = shared(drawn(9), nothing)
        assert found is not None
        torch.testing.assert_close(found, drawn(9))


def test_two_halfway_are_the_middle_of_their_arc() -> None:
    a, b = (torch.nn.functional.normalize(drawn(n)) for n in (0, 1))
    angle = math.acos(float((a * b).sum()))
    arc = (a + b) * math.sin(angle / 2) / math.sin(angle)  # Shoemake 1985, eq. 4, at a half
    found = shared(None, (Seen("a", 2 * a), Seen("b", 4 * b)))
    assert found is not None
    torch.testing.assert_close(found, 3 * arc)  # as large as they are in the mean


def test_words_and_pictures_share_by_the_strengths() -> None:
    """Orthogonal ones of length 1: what is left is the shares' direction."""
    axes = torch.eye(WIDTH)[:, None]
    pictures = (Seen("a", axes[0], 0.5), Seen("b", axes[1], 0.2))
    found = shared(axes[2], pictures)
    wanted = torch.tensor([[0.5, 0.2, 0.3, 0, 0, 0]])
    assert found is not None
    torch.testing.assert_close(found, wanted / wanted.norm())
    # Of more than 1 together, nothing is left to the words.
    found = shared(axes[2], (pictures[0]._replace(strength=1.0), pictures[1]))
    wanted = torch.tensor([[1, 0.2, 0, 0, 0, 0]])
    assert found is not None
    torch.testing.assert_close(found, wanted / wanted.norm())


# --- what a model is told ---------------------------------------------------------------------

_DEFAULTS = Defaults((8, 8), 3, 2.0, "euler_ancestral", "linspace")
_PRIOR = NativeConfig(
    "prior", MLPConfig(WIDTH, WIDTH, 16, 1, 16, vector_width=2), "rgb", "class", "v", "cosine",
    _DEFAULTS, ("a", "b"),
)  # fmt: skip
_MODEL = replace(
    _PRIOR,
    name="model",
    network=UNetConfig(3, 3, 16, (1, 2), 1, (False, False), vector_width=2 + WIDTH, canvas=2),
    prior=_PRIOR,
)


def model(config: NativeConfig = _MODEL) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build(config)
        parts = nn.ModuleDict(made.parts)
        for weight in parts.parameters():
            nn.init.normal_(weight, std=0.2)
        parts.eval().requires_grad_(False)
    return made


def test_a_model_is_told_the_rule_and_of_the_negative_prompt_no_picture() -> None:
    made = model()

    def told(prompt: str, pictures: tuple[Seen, ...]) -> tuple[Tensor, Tensor]:
        planned = engine.plan(made, Request(prompt, (1,), negative="b", seen=pictures))
        both = (
            engine._told(made, each, 1)[0].vector for each in (planned.prompt, planned.negative)
        )
        yes, no = (vector[:, 2:] for vector in both if vector is not None)
        return yes, no

    alone, negative = told("a", ())
    for strengths in ((0.4,), (0.2, 0.3), (1.0,), (0.9, 0.9)):
        yes, no = told("a", seen(*strengths))
        wanted = shared(alone, seen(*strengths))
        assert wanted is not None and torch.equal(no, negative)
        torch.testing.assert_close(yes, wanted)
    torch.testing.assert_close(told("", seen(0.3))[0], drawn(0))


def test_the_prior_is_not_asked_where_nothing_is_left_to_the_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, asked = model(), list[int]()
    assert made.prior is not None
    own = made.prior.call

    def counting(*given, **named) -> Tensor:
        asked.append(1)
        return own(*given, **named)

    watched = replace(made, prior=replace(made.prior, call=counting))
    generate(watched, Request("a", (1,), seen=seen(1.0)))
    assert not asked
    generate(watched, Request("a", (1,), seen=seen(0.9)))
    assert asked


def test_a_seed_gives_the_same_bits_in_any_batch() -> None:
    made = model()
    request = Request("a", (5, 2, 9), seen=seen(0.3, 0.4))
    for number, whole in enumerate(generate(made, request)):
        (single,) = generate(made, replace(request, seeds=request.seeds[number : number + 1]))
        assert torch.equal(whole, single)


def test_pictures_share_in_the_prompts_of_regions() -> None:
    made = model()
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    plain = Request("a", (1,), regions=(Region("b", left),))
    one, two = (generate(made, replace(plain, seen=seen(s)))[0] for s in (0.0, 0.8))
    assert torch.equal(one, generate(made, plain)[0])
    moved = (one - two).abs().amax(0)
    assert float(moved[:, :4].max()) > 1e-3 and float(moved[:, 4:].max()) > 1e-3


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (seen(1.5), r"the strength of '0.png' is 1.5; .* it lies in 0…1"),
        (seen(-0.1), "the strength of '0.png' is -0.1"),
        (seen(float("nan")), "the strength of '0.png' is nan"),
        (seen(*[0.1] * (MOST + 1)), "6 image prompts: at most 5"),
        ((Seen("a.png", torch.zeros(1, 7)),), r"'a.png' has shape \(1, 7\), model takes \(1, 6\)"),
    ],
)
def test_what_cannot_be_is_named(pictures: tuple[Seen, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        generate(model(), Request("a", (1,), seen=pictures))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_prior_takes_none() -> None:
    plain = replace(
        _MODEL, prior=None, network=UNetConfig(3, 3, 16, (1, 2), 1, (False, False), vector_width=2)
    )
    with pytest.raises(RequestError, match="model takes no image prompts"):
        generate(model(plain), Request("a", (1,), seen=seen(1.0)))
