"""Two stages: a prior that learns embeddings, a model that is told them, and both at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.diffusion.level import Conditioning
from mezzotint.engine import generate as engine
from mezzotint.engine.config import ConfigError, TrainConfig
from mezzotint.engine.config_file import parse_config
from mezzotint.engine.data_order import Streams
from mezzotint.engine.embeddings import read_embeddings, save_embeddings
from mezzotint.engine.generate import generate
from mezzotint.engine.objectives import told_embeddings
from mezzotint.engine.reports import Listener
from mezzotint.engine.request import Guidance, Request
from mezzotint.engine.state import TrainError
from mezzotint.engine.train import train
from mezzotint.families import catalogue
from mezzotint.families.model import Defaults, Model, Ranker
from mezzotint.families.native import NativeConfig, RankerConfig, build, load_model
from mezzotint.modalities.dataset import open_dataset
from mezzotint.networks.dual_encoder import DualEncoderConfig
from mezzotint.networks.mlp import MLPConfig
from mezzotint.networks.unet import UNetConfig

PRIOR = """
name = "prior"
[data]
source = "pictures"
size = 8
embeddings = "embeddings.safetensors"
[network]
kind = "mlp"
width = 16
depth = 1
hidden = 16
dropout = 0.2
[model]
prediction = "v"
schedule = "cosine"
condition = "class"
[train]
pictures = 16
batch = 8
learning_rate = 1e-3
"""
MODEL = """
name = "model"
[data]
source = "pictures"
size = 8
embeddings = "embeddings.safetensors"
[network]
kind = "unet"
width = 16
multipliers = [1, 2]
blocks = 1
attention = [false, false]
canvas = 2
canvas_edge = 4
[model]
prediction = "v"
schedule = "cosine"
condition = "class"
prior = "prior/model.safetensors"
[train]
pictures = 16
batch = 8
learning_rate = 1e-3
embedding_noise = 0.3
"""
RANKER = """
name = "ranker"
[data]
source = "pictures"
size = 8
embeddings = "embeddings.safetensors"
[ranker]
of = "prior/model.safetensors"
hidden = 16
candidates = 5
[train]
pictures = 32
batch = 8
learning_rate = 1e-2
"""
NAMES = [f"{label}/{number}.png" for label in "ab" for number in range(4)]


def embeddings(count: int = 8, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    pixels = torch.randint(0, 256, (8, 8 * 8 * 3), generator=torch.Generator().manual_seed(0))
    for name, row in zip(NAMES, pixels.tolist(), strict=True):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGB", (8, 8), bytes(row)).save(path)
    save_embeddings(tmp_path / "embeddings.safetensors", NAMES[::-1], embeddings().flip(0))
    return tmp_path


def config(folder: Path, text: str, *changes: tuple[str, str]) -> TrainConfig:
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return parse_config(text, folder)


# --- training ---------------------------------------------------------------------------------


def test_both_stages_train_and_the_file_holds_both(folder: Path) -> None:
    prior = train(config(folder, PRIOR), folder / "prior")
    path = train(config(folder, MODEL), folder / "model")
    model, description = load_model(path)
    assert description.network.vector_width == 2 + 6 and description.prior is not None
    assert description.prior == load_model(prior)[1]
    assert model.prior is not None
    for name, value in load(prior)[0].items():
        assert torch.equal(value, load(path)[0][name.replace("network.", "prior.")])
    (made,) = generate(catalogue.load(str(path)), Request("b", (3,)))
    assert made.shape == (3, 8, 8) and bool(made.isfinite().all())


def test_a_ranker_goes_with_its_prior_into_the_file(folder: Path) -> None:
    prior = train(config(folder, PRIOR), folder / "prior")
    path = train(config(folder, RANKER), folder / "ranker")
    asked = iter([True, False, False, False, False])
    train(config(folder, RANKER), folder / "parts", Listener(stop=lambda: next(asked)))
    parts = train(config(folder, RANKER), folder / "parts")
    assert all(torch.equal(v, load(parts)[0][n]) for n, v in load(path)[0].items())
    found, before = load(path)[0], load(prior)[0]
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert {name.split(".")[0] for name in found.keys() - before.keys()} == {"ranker"}
    whole = train(config(folder, MODEL, ("prior/model", "ranker/model")), folder / "model")
    model = load_model(whole)[0]
    assert model.prior is not None and model.prior.ranker is not None
    assert model.prior.ranker.candidates == 5
    assert torch.equal(load(whole)[0]["ranker.text.weight"], found["ranker.text.weight"])
    (made,) = generate(catalogue.load(str(whole)), Request("b", (3,)))
    assert bool(made.isfinite().all())
    for change, error in (
        (("prior/model", "lost/model"), "lost/model.safetensors: no such file"),
        (("prior/model", "model/model"), "ranker.of = .* does not make embeddings"),
        (("candidates = 5", "candidates = 0"), "ranker.candidates = 0: it must be above 0"),
        (("hidden = 16", "hidden = 0"), "ranker.hidden = 0: it must be above 0"),
        (("hidden = 16", "dropout = 1"), r"ranker.dropout = 1.0: it must lie in \[0, 1\)"),
    ):
        with pytest.raises((TrainError, ConfigError, CheckpointError), match=error):
            train(config(folder, RANKER, change), folder / "other")
    save_embeddings(folder / "embeddings.safetensors", NAMES, -embeddings())
    with pytest.raises(TrainError, match="ranker.of = .* learnt other embeddings"):
        train(config(folder, RANKER), folder / "other")


def test_a_run_that_was_stopped_gives_the_same_weights(folder: Path) -> None:
    whole = train(config(folder, PRIOR), folder / "whole")
    asked = iter([True, False, False])
    train(config(folder, PRIOR), folder / "parts", Listener(stop=lambda: next(asked)))
    parts = train(config(folder, PRIOR), folder / "parts")
    assert all(torch.equal(v, load(parts)[0][n]) for n, v in load(whole)[0].items())


def test_other_embeddings_are_other_data(folder: Path) -> None:
    train(config(folder, PRIOR), folder / "prior")
    save_embeddings(folder / "embeddings.safetensors", NAMES, embeddings())
    train(
        config(folder, PRIOR, ("= 16\nbatch", "= 24\nbatch")), folder / "prior"
    )  # the same, moved
    save_embeddings(folder / "embeddings.safetensors", NAMES, -embeddings())
    with pytest.raises(TrainError, match="a run on other data"):
        train(config(folder, PRIOR), folder / "prior")


def test_a_prior_must_fit_its_model(folder: Path) -> None:
    train(config(folder, PRIOR), folder / "prior")
    save_embeddings(folder / "embeddings.safetensors", NAMES, embeddings(width=7))
    with pytest.raises(TrainError, match="does not make embeddings of 7 numbers"):
        train(config(folder, MODEL), folder / "model")
    save_embeddings(folder / "embeddings.safetensors", NAMES, -embeddings())
    with pytest.raises(TrainError, match="learnt other embeddings"):
        train(config(folder, MODEL), folder / "model")
    (folder / "pictures/c").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "pictures/c/0.png")
    save_embeddings(folder / "embeddings.safetensors", [*NAMES, "c/0.png"], embeddings(9))
    with pytest.raises(TrainError, match="is told other prompts"):
        train(config(folder, MODEL), folder / "model")


def test_what_is_told_is_the_embedding_of_the_picture_or_nothing(folder: Path) -> None:
    read = config(folder, MODEL)
    table = embeddings(500, 64)
    numbers, items = list(range(400)), [n % 500 for n in range(7, 407)]
    dropped = torch.arange(400) % 4 == 0
    told = told_embeddings(read, table, Streams(0))(numbers, items, dropped)
    assert bool((told[dropped] == 0).all())
    kept, true = told[~dropped], table[items][~dropped]
    # s is uniform in (0, 0.3): noise takes its share of the variance, and the sum stays as it was.
    assert float((kept - true).square().mean()) == pytest.approx(2 * (1 - 0.98466), rel=0.1)
    assert float(kept.square().mean()) == pytest.approx(float(true.square().mean()), rel=0.02)
    plain = replace(read, train=replace(read.train, embedding_noise=0.0))
    exact = told_embeddings(plain, table, Streams(0))(numbers, items, dropped)
    assert torch.equal(exact[~dropped], true)
    one = told_embeddings(read, table, Streams(0))([5], [items[5]], dropped[5:6])
    assert torch.equal(one[0], told[5])  # whatever batch it stands in


@pytest.mark.parametrize(
    ("text", "before", "after", "message"),
    [
        (PRIOR, 'embeddings = "embeddings.safetensors"\n', "", "give both or neither"),
        (MODEL, 'embeddings = "embeddings.safetensors"\n', "", "give both or neither"),
        (MODEL, 'prior = "prior/model.safetensors"\n', "", "give both or neither"),
        (RANKER, 'embeddings = "embeddings.safetensors"\n', "", "give both or neither"),
        (RANKER, "size = 8\n", "size = 8\nflip = true\n", "data.flip"),
        (PRIOR, '"class"', '"none"', "set model.condition"),
        (PRIOR, '"class"\n', '"class"\nlatent = "x"\n', "leave model.latent"),
        (PRIOR, "size = 8\n", "size = 8\nflip = true\n", "data.flip"),
        (PRIOR, "[train]\n", "[train]\nembedding_noise = 0.1\n", "train.embedding_noise"),
        (MODEL, "embedding_noise = 0.3", "embedding_noise = 1", "embedding_noise = 1.0"),
    ],
)
def test_contradictions_are_named(text: str, before: str, after: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("/"), text, (before, after))


def test_a_canvas_needs_a_vector(folder: Path) -> None:
    plain = MODEL
    for line in ('embeddings = "embeddings.safetensors"\n', 'prior = "prior/model.safetensors"\n'):
        plain = plain.replace(line, "")
    plain = plain.replace("embedding_noise = 0.3\n", "").replace('"class"', '"none"')
    with pytest.raises(TrainError, match="no vector to draw it from"):
        train(parse_config(plain, folder), folder / "run")


# --- the file of embeddings -------------------------------------------------------------------


def test_the_file_of_embeddings_is_checked(folder: Path) -> None:
    path, dataset = folder / "embeddings.safetensors", open_dataset(folder / "pictures", "rgb")
    order = [NAMES.index(item.name) for item in dataset.items]
    assert torch.equal(read_embeddings(path, dataset)[0], embeddings()[order])
    save_embeddings(path, NAMES[1:], embeddings()[1:])
    with pytest.raises(TrainError, match=r"1 of 8 pictures have no embedding \(first: a/0.png\)"):
        read_embeddings(path, dataset)
    for scale in (9.0, float("nan")):
        save_embeddings(path, NAMES, embeddings() * scale)
        with pytest.raises(TrainError, match="scale them"):
            read_embeddings(path, dataset)
    save(path, {"other": embeddings()}, {"names": json.dumps(NAMES)})
    with pytest.raises(TrainError, match="no file of embeddings"):
        read_embeddings(path, dataset)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="embeddings.safetensors"):
        read_embeddings(path, dataset)


# --- generating -------------------------------------------------------------------------------

_DEFAULTS = Defaults((8, 8), 4, 2.0, "dpmpp_2m", "linspace")
_PRIOR = NativeConfig(
    "prior", MLPConfig(6, 6, 16, 2, 16, vector_width=2), "rgb", "class", "v", "cosine", _DEFAULTS,
    ("a", "b"),
)  # fmt: skip
_MODEL = replace(
    _PRIOR,
    name="model",
    network=UNetConfig(3, 3, 16, (1, 2), 1, (False, False), vector_width=8, canvas=2),
    prior=_PRIOR,
)


def tiny(candidates: int = 0) -> Model:
    ranker = RankerConfig(DualEncoderConfig(6, 2, 8), candidates) if candidates else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(replace(_MODEL, prior=replace(_PRIOR, ranker=ranker)))
        parts = nn.ModuleDict(model.parts)
        for weight in parts.parameters():
            nn.init.normal_(weight, std=0.2)
        parts.eval().requires_grad_(False)
    return model


@pytest.mark.parametrize("candidates", [0, 7])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_a_seed_gives_the_same_bits_in_any_batch(sampler: str, candidates: int) -> None:
    model = tiny(candidates)
    whole = generate(model, Request("a", (5, 2, 9), sampler=sampler))
    assert all(
        torch.equal(generate(model, Request("a", (seed,), sampler=sampler))[0], made)
        for seed, made in zip((5, 2, 9), whole, strict=True)
    )


def test_the_prior_walks_on_noise_of_its_own_from_the_prompt_and_the_seed() -> None:
    model = tiny()
    assert model.prior is not None

    def told(prompt: str, seed: int) -> Tensor:
        planned = engine.plan(model, Request(prompt, (seed,)))
        vector = engine._told(model, planned.prompt, seed)[0].vector
        assert vector is not None and vector.shape == (1, 8)
        return vector[0, 2:]

    vectors = [told("a", 1), told("a", 2), told("b", 1)]
    assert len({tuple(v.tolist()) for v in vectors}) == 3
    assert torch.equal(told("a", 1), vectors[0])
    assert bool((told("", 1) == 0).all())
    # A model of the same kind that starts on the stream of the pictures' noise would give this.
    (same,) = generate(model.prior, Request("a", (1,), size=(1, 1)))
    assert not torch.allclose(same, vectors[0].clamp(-1, 1))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_a_ranker_takes_the_best_of_embeddings_on_noise_of_their_own(sampler: str) -> None:
    prior = tiny(7).prior
    assert prior is not None and prior.ranker is not None
    prior = replace(prior, defaults=replace(prior.defaults, sampler=sampler))
    assert prior.ranker is not None
    scores, seen = torch.tensor([0.1, 0.2, 0.9, 0.3, 0.8, 0.0, 0.4]), list[Tensor]()

    def score(embeddings: Tensor, told: Conditioning) -> Tensor:
        seen.append(embeddings)
        return scores

    planned = engine.plan(prior, Request("a", (0,)))
    chosen = engine._imagine(replace(prior, ranker=Ranker(7, score)), planned, 3)
    (made,) = seen
    assert made.shape == (7, 6) and torch.equal(chosen, made[2:3])
    assert len({tuple(v.tolist()) for v in made}) == 7
    # The first candidate is the one that a prior without a ranker makes.
    alone = engine._imagine(replace(prior, ranker=None), planned, 3)
    torch.testing.assert_close(alone, made[:1])
    # By its own ranker the best is taken, and the prompt decides which that is.
    best = engine._imagine(prior, planned, 3)
    logits = prior.ranker.score(made, planned.prompt.told[0])
    assert torch.equal(best, made[logits.argmax()][None])


def test_the_prior_and_its_model_are_told_by_the_same_conditioner() -> None:
    model = tiny()
    assert model.prior is not None and model.prior.conditioner is model.conditioner
    with pytest.raises(ValueError, match="the prior is told other prompts"):
        replace(_MODEL, classes=("a", "c"), prior=_PRIOR)
    with pytest.raises(ValueError, match="has no prior of its own"):
        replace(_MODEL, prior=_MODEL)
    with pytest.raises(ValueError, match="a ranker is for embeddings"):
        replace(_MODEL, ranker=RankerConfig(DualEncoderConfig(6, 2, 8), 2))


def test_the_embedding_matters_to_the_picture() -> None:
    model = tiny()
    request = Request("a", (1,), guidance=Guidance(1.0))
    before = generate(model, request)[0]
    assert model.prior is not None
    for weight in model.prior.network.parameters():
        weight.mul_(1.5)
    assert not torch.allclose(before, generate(model, request)[0], atol=1e-3)


def test_a_prior_alone_is_no_model_of_pictures(folder: Path) -> None:
    path = train(config(folder, PRIOR), folder / "prior")
    with pytest.raises(CheckpointError, match="a prior, which makes embeddings and no pictures"):
        catalogue.load(str(path))
