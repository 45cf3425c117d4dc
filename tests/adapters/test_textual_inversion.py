"""Textual inversion: the styles of files, words in prompts, and pictures equal to `diffusers`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import measured
from mezzotint.adapters.inversion import Embedding, read, split, word
from mezzotint.apps import cli
from mezzotint.apps.errors import UsageError
from mezzotint.apps.named import Embeddings
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.diffusion.noise import batch
from mezzotint.engine import prompts
from mezzotint.engine.attach import learnt, open_embedding
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request, RequestError
from mezzotint.families import catalogue, clip_tokens
from mezzotint.families.ldm import build, load
from mezzotint.families.model import Model
from pipelines import Pipeline, small, stable_diffusion

ONE, TWO = {"clip_l": 8}, {"clip_l": 8, "clip_g": 6}


def _rows(count: int, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["*", "emb_params", "<cat-toy>", "clip_l"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_style_gives_the_same_vectors(key: str, count: int) -> None:
    rows = _rows(count)
    assert torch.equal(read({key: rows}, ONE)["clip_l"], rows)
    assert torch.equal(read({key: rows.half()}, ONE)["clip_l"], rows.half().float())
    assert word({key: rows}, ONE) == ("<cat-toy>" if key[0] == "<" else None)


def test_one_vector_may_be_flat() -> None:
    assert torch.equal(read({"<a>": _rows(1)[0]}, ONE)["clip_l"], _rows(1))


def test_several_encoders_have_a_tensor_each() -> None:
    state = {"clip_g": _rows(2, 6), "clip_l": _rows(2)}
    assert {key: tuple(rows.shape) for key, rows in read(state, TWO).items()} == {
        "clip_l": (2, 8),
        "clip_g": (2, 6),
    }


@pytest.mark.parametrize(
    ("state", "widths", "message"),
    [
        ({"*": _rows(2, 7)}, ONE, "have 7 numbers and those of this model's text encoder 8"),
        ({"*": _rows(2)}, TWO, "is for one text encoder, and this model has 2"),
        ({"clip_l": _rows(2), "clip_g": _rows(2, 6)}, ONE, "unknown key 'clip_g' .nearest: clip_l"),
        ({"clip_l": _rows(2)}, TWO, "has no 'clip_g'"),
        ({"clip_l": _rows(2), "clip_g": _rows(3, 6)}, TWO, "2 of clip_l, 3 of clip_g"),
        ({"a": _rows(1), "b": _rows(1)}, ONE, r"no embedding: it has 2 tensors \('a', 'b'"),
        ({"*": _rows(76)}, ONE, "of shape .76, 8. is no embedding of 1 to 75 vectors"),
        ({"*": _rows(1)[None]}, ONE, "of shape .1, 1, 8. is no embedding"),
        ({"*": torch.ones(1, 8, dtype=torch.long)}, ONE, "is no embedding"),
        ({"*": torch.full((1, 8), float("nan"))}, ONE, "not finite"),
    ],
)
def test_what_is_no_embedding(
    state: dict[str, Tensor], widths: dict[str, int], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(state, widths)


@pytest.mark.parametrize("as_parameter", [False, True])
def test_a_web_interfaces_pickle(as_parameter: bool, tmp_path: Path) -> None:
    rows: Tensor = nn.Parameter(_rows(2)) if as_parameter else _rows(2)
    document = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": rows},
        "name": "style-of-mine",
        "step": 4000,
        "sd_checkpoint": "cc6cb27103",
        "sd_checkpoint_name": "v1-5",
    }
    torch.save(document, tmp_path / "mine.pt")
    found = open_embedding(build(small("sd1")), tmp_path / "mine.pt")
    assert found.name == "mine" and torch.equal(found.vectors["clip_l"], _rows(2))


def test_errors_name_the_file(tmp_path: Path) -> None:
    save(tmp_path / "wide.safetensors", {"emb_params": _rows(1, 768)}, {})
    with pytest.raises(
        CheckpointError, match=r"wide.safetensors: the vectors of 'emb_params' have"
    ):
        open_embedding(build(small("sd1")), tmp_path / "wide.safetensors")
    for model in (catalogue.load("icons", "cpu"), catalogue.shadow(catalogue.FAMILIES[0])):
        if model.words is None:
            with pytest.raises(CheckpointError, match="takes no embeddings"):
                open_embedding(model, tmp_path / "wide.safetensors")


def test_which_families_take_embeddings() -> None:
    takes = {f.name: catalogue.shadow(f).words for f in catalogue.FAMILIES}
    widths = {name: dict(words.widths) for name, words in takes.items() if words is not None}
    assert widths["sd1"] == {"clip_l": 768}
    assert widths["sd2"] == {"clip_h": 1024}
    assert widths["sdxl"] == {"clip_l": 768, "clip_g": 1280}
    assert not {"sd3", "sd35-large", "flux-dev", "flux-schnell"} & set(widths)


# --- prompts ----------------------------------------------------------------------------------


def test_where_a_text_says_a_word() -> None:
    fox = Embedding("fox", {"clip_l": _rows(1)})
    two = Embedding("red fox", {"clip_l": _rows(2)})
    hidden = Embedding("cat", {"clip_l": _rows(1)}, bare=False)
    text = "a Red Fox, foxes, fox; embedding:fox and embedding:cat, cat"
    found = split(text, (fox, two, hidden))
    assert found == ["a ", two, ", foxes, ", fox, "; ", fox, " and ", hidden, ", cat"]
    assert split("a fox", ()) == ["a fox"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a embedding:bad-1.5, fox", [("a embedding:bad-1.5, fox", 1.0)]),
        ("(embedding:bad:1.2) fox", [("embedding:bad", 1.2), (" fox", 1.0)]),
        ("[embedding:bad:fox:0.5]", [("embedding:bad", 1.0)]),
    ],
)
def test_the_name_of_an_embedding_is_one_thing(prompt: str, said: list[tuple[str, float]]) -> None:
    (chunk,) = prompts.read(prompt).at(0, 10)
    assert [(span.text, span.weight) for span in chunk] == said


def test_vectors_count_as_tokens() -> None:
    own = Embedding("word", {"clip_l": _rows(3)}), Embedding("other", {"clip_l": _rows(2)})
    ids, weights = clip_tokens.chunks([[("fox word", 1.3), (" other", 1.0)]], embeddings=own)
    fox = clip_tokens.ids("fox")
    assert ids[0, 1:8].tolist() == [*fox, 49408, 49409, 49410, 49411, 49412, clip_tokens.END]
    assert torch.allclose(weights[0, 1:8], torch.tensor([1.3] * 4 + [1.0] * 3))
    # Its vectors stand in one chunk, the next if need be.
    ids, _ = clip_tokens.chunks([[("fox " * 73 + "word", 1.0)]], embeddings=own)
    assert ids.shape == (2, 77) and ids[0, 74] == clip_tokens.END
    assert ids[1, 1:5].tolist() == [49408, 49409, 49410, clip_tokens.END]


def test_requests_say_what_is_missing() -> None:
    model = build(small("sd1"))
    own = Embedding("bad", {"clip_l": _rows(1)})

    def ask(prompt: str, *given: Embedding, negative: str = "", of: Model = model) -> None:
        generate(of, Request(prompt, (1,), negative, (64, 64), 1, embeddings=given))

    with pytest.raises(RequestError, match="asks for embedding:worse, which is not there"):
        ask("fox", own, negative="embedding:worse")
    with pytest.raises(RequestError, match="two embeddings are called 'bad'"):
        ask("fox", own, Embedding("BAD", {"clip_l": _rows(2)}))
    with pytest.raises(RequestError, match="takes no embeddings"):
        ask("fox", own, of=catalogue.load("icons", "cpu"))


def test_the_folder_of_embeddings(tmp_path: Path) -> None:
    model = build(small("sd1"))
    save(tmp_path / "bad.safetensors", {"emb_params": _rows(2)}, {})
    save(tmp_path / "learned_embeds.safetensors", {"<toy>": _rows(1)}, {})
    found = Embeddings(model, [(tmp_path / "learned_embeds.safetensors", None)], tmp_path)
    assert [e.name for e in found.of("a <toy>, bad", "embedding:bad")] == ["<toy>", "bad"]
    assert [e.name for e in found.of("a toy", "bad")] == []
    assert learnt("embedding:a, (embedding:b:1.2), embedding:a") == ("a", "b")
    with pytest.raises(UsageError, match=r"no embedding 'bat' in .* \(nearest: bad\)"):
        found.of("embedding:bat", "")
    with pytest.raises(UsageError, match="no prompt says '<toy>'"):
        found.check_said("a fox\n")
    found.check_said("a {fox|<toy>}")


def test_the_options_are_read(tmp_path: Path) -> None:
    def given(*texts: str) -> list[tuple[Path, str | None]]:
        options = [part for text in texts for part in ("--embedding", text)]
        return cli.parse(["generate", "fox", *options]).embedding

    odd = tmp_path / "a=b.pt"
    odd.touch()
    assert given("a.pt", "a.pt=<toy>", str(odd)) == [
        (Path("a.pt"), None),
        (Path("a.pt"), "<toy>"),
        (odd, None),
    ]
    with pytest.raises(UsageError, match="give FILE or FILE=NAME"):
        given("a.pt=")


# --- pictures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def _save(name: str, count: int, path: Path) -> dict[str, Tensor]:
    """A file in the style of the base model, and what it holds by our names."""
    vectors = {"clip_l": _rows(count, seed=1)}
    if name == "sdxl":
        vectors["clip_g"] = _rows(count, seed=2)
        save(path, vectors, {})
    else:
        save(path, {"emb_params": vectors["clip_l"]}, {})
    return vectors


def _expected(theirs: Pipeline, prompt: str, negative: str) -> Tensor:
    theirs.set_progress_bar_config(disable=True)
    return theirs(
        prompt,
        negative_prompt=negative,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=batch([3], "start", 0, (4, 8, 8)),
        output_type="pt",
    ).images[0]


def _request(prompt: str, negative: str, *own: Embedding) -> Request:
    return Request(
        prompt,
        (3,),
        negative,
        (64, 64),
        3,
        Guidance(5.0),
        "ddim",
        "trailing",
        embeddings=own,
    )


@pytest.mark.parity("textual inversion", "diffusers folder")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("where", ["prompt", "negative"])
def test_a_picture_with_a_learnt_word(name: str, count: int, where: str, tmp_path: Path) -> None:
    theirs = stable_diffusion(name)
    theirs.save_pretrained(tmp_path / "folder")
    vectors = _save(name, count, tmp_path / "style.safetensors")
    model = load(small(name), tmp_path / "folder")
    before = {
        f"{part}.{key}": value.clone()
        for part, module in model.parts.items()
        for key, value in module.state_dict().items()
    }
    pair = ("a red <toy> fox", "blue") if where == "prompt" else ("a red fox", "blue <toy>, dim")
    own = open_embedding(model, tmp_path / "style.safetensors", "<toy>")
    plain = generate(model, _request(*pair))[0]
    found = generate(model, _request(*pair, own))[0]
    assert (found - plain).abs().max() > 1e-3  # the word does something
    assert torch.equal(generate(model, _request(*pair))[0], plain)
    after = {f"{p}.{k}": v for p, m in model.parts.items() for k, v in m.state_dict().items()}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    texts = {"clip_l": (theirs.text_encoder, theirs.tokenizer)}
    if name == "sdxl":
        texts["clip_g"] = (theirs.text_encoder_2, theirs.tokenizer_2)
    for key, (encoder, tokenizer) in texts.items():
        theirs.load_textual_inversion(
            {"<toy>": vectors[key]}, text_encoder=encoder, tokenizer=tokenizer
        )
    try:
        expected = _expected(theirs, *pair)
    finally:
        for encoder, tokenizer in texts.values():  # the tokenizers are shared among the tests
            theirs.unload_textual_inversion(text_encoder=encoder, tokenizer=tokenizer)
    measured.close(found / 2 + 0.5, expected, 1e-3)
