"""The report of benchmarks/speed.py, on made-up times; nothing is timed here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu_speed
import speed
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from peers import models, report, timing
from peers.report import Bar, Row, Section

# ------------------------------------------------------------------------------------ timing


def test_in_turns_alternates_and_drops_the_warm_rounds() -> None:
    called: list[str] = []

    def act(name: str) -> int:
        called.append(name)
        return len(called)

    found = timing.in_turns([lambda: act("A"), lambda: act("B")], rounds=3, warm=1)
    assert "".join(called) == "ABABABAB"
    assert found == [[3, 5, 7], [4, 6, 8]]


def test_ratios_are_taken_in_each_round() -> None:
    assert timing.ratios([2.0, 30.0], [1.0, 10.0]) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("count", "rank"),
    # The sign test's table: P(Binomial(n, 1/2) < k) <= 0.025 at k, and not at k + 1.
    [(1, 1), (2, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6)],
)
def test_interval_is_that_of_the_sign_test(count: int, rank: int) -> None:
    values = [float(v) for v in range(count, 0, -1)]
    assert timing.interval(values) == (rank, count + 1 - rank)


# ------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("sense", "value", "verdict"),
    [
        ("at most", 1.0, "met"),
        ("at most", 1.01, "missed"),
        ("below", 1.0, "missed"),
        ("below", 0.99, "met"),
        ("at least", 1.0, "met"),
        ("at least", 0.99, "missed"),
    ],
)
def test_verdict_of_one_value(sense: str, value: float, verdict: str) -> None:
    assert Row("a", (value,), "×", Bar(sense, 1.0)).verdict == verdict  # type: ignore[arg-type]


def test_the_median_decides() -> None:
    assert Row("a", (9.0, 0.5, 0.6), "×", Bar("at most", 1.0)).verdict == "met"


def test_noise_helps_only_a_noisy_bar_whose_interval_reaches_it() -> None:
    near = (0.99, 1.01, 1.02, 1.03, 1.04)
    far = (1.01, 1.02, 1.03, 1.04, 1.05)
    assert Row("a", near, "×", Bar("at most", 1.0)).verdict == "missed"
    assert Row("a", near, "×", Bar("at most", 1.0, noisy=True)).verdict == "met within noise"
    assert Row("a", far, "×", Bar("at most", 1.0, noisy=True)).verdict == "missed"


def test_a_row_without_a_bar_has_no_verdict() -> None:
    assert Row("a", (1.0,), "s").verdict == ""


# ------------------------------------------------------------------------------------ the report


def _sections() -> list[Section]:
    return [
        Section(
            "overhead",
            "Overhead",
            "How it was measured.",
            (
                Row("loop", (0.012, 0.010, 0.011), "%", Bar("below", 0.03)),
                Row("a step", (1.25,), "ms"),
            ),
        ),
        Section(
            "training",
            "Training",
            "Beside another.",
            (Row("ratio", (1.25, 1.2, 1.4), "×", Bar("at least", 1.3)),),
        ),
    ]


def test_missed_names_section_and_row() -> None:
    assert report.missed(_sections()) == ["training: ratio"]


def test_page_shows_medians_spreads_bars_and_warnings() -> None:
    text = report.page(_sections(), {"warnings": ["Busy."], "torch": "2.13.0"})
    assert "> **Busy.**" in text
    assert "| torch | 2.13.0 |" in text
    assert "| loop | 1.10 % | 1.00 % … 1.20 % | 3 | below 3 % | met |" in text
    assert "| a step | 1.25 ms |  | 1 |  |  |" in text
    assert "| ratio | 1.250 | 1.200 … 1.400 | 3 | at least 1.3 | **missed** |" in text


def test_every_table_row_has_the_columns_of_its_head() -> None:
    text = report.page(_sections(), {"warnings": []})
    body = text[text.index("## Overhead") :]
    assert {line.count("|") for line in body.splitlines() if line.startswith("|")} == {7}


def test_written_json_holds_every_value(tmp_path: Path) -> None:
    report.write(tmp_path / "new" / "folder", _sections(), {"warnings": [], "torch": "2.13.0"})
    found = json.loads((tmp_path / "new" / "folder" / "report.json").read_text("utf-8"))
    assert found["torch"] == "2.13.0"
    loop, step = found["sections"]["overhead"]
    assert loop["values"] == [0.012, 0.010, 0.011]
    assert (loop["median"], loop["interval"]) == (0.011, [0.010, 0.012])
    assert (loop["bar"], loop["verdict"]) == (["below", 0.03], "met")
    assert (step["bar"], step["verdict"]) == (None, None)
    assert "# How fast is it?" in (tmp_path / "new" / "folder" / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (3.21e-6, "difference", "3.2e-06"),
        (0.98765, "×", "0.988"),
        (0.0123, "%", "1.23 %"),
        (391.6, "MB", "392 MB"),
        (1.2345, "s", "1.23 s"),
        (1234.5, "pictures/s", "1234 pictures/s"),
    ],
)
def test_shown(value: float, unit: report.Unit, expected: str) -> None:
    assert report.shown(value, unit) == expected


# ------------------------------------------------------------------------------------ the command


def test_rows_are_chosen_in_their_own_order() -> None:
    assert speed.chosen("startup, overhead") == ("overhead", "startup")


def test_an_unknown_row_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--rows", "overhead,speed"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'speed'" in error
    assert "samplers" in error


def test_a_missing_model_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = tmp_path / "lost.safetensors"
    assert speed.main(["--rows", "icons", "--model", str(lost), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "lost.safetensors" in error
    assert "--model random" in error
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        speed.importlib.util, "find_spec", lambda name: None if name == "accelerate" else object()
    )
    with pytest.raises(speed.SpeedError, match=r"pip install accelerate==1\.15\.0"):
        speed.check_packages(["training"])
    speed.check_packages(["overhead", "samplers"])


def test_a_busy_machine_and_a_partial_run_are_warned_of() -> None:
    options = speed._options(["--rows", "startup"])
    told = speed.facts(options, ("startup",), load=50.0)["warnings"]
    assert len(told) == 2
    assert "load 50.0" in told[0]
    assert "overhead, samplers, training, icons" in told[1]
    assert speed.facts(options, speed.ROWS, load=0.0)["warnings"] == []


# ------------------------------------------------------------------------------------ models


def test_the_models_that_are_timed_make_pictures() -> None:
    for model, clock, prompt in (
        (*models.eps_model(models.QUICK), models.CLASS),
        (*models.icons_transformer(models.QUICK), ""),
    ):
        (made,) = generate(model, Request(prompt, (0,), size=(16, 16), steps=2))
        assert made.shape == (model.codec.channels, 16, 16) and float(made.std()) > 0
        assert clock.calls >= 2 and clock.seconds > 0


# ------------------------------------------------------------------------------------ on a GPU


def test_the_rows_of_a_gpu_run_at_tiny_sizes_on_a_processor(tmp_path: Path) -> None:
    tiny = ["--quick", "--device", "cpu", "--out", str(tmp_path)]
    assert gpu_speed.main([*tiny, "--rows", "flux"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    names = [row["name"] for row in found["sections"]["gpu"]]
    assert names[:2] == [
        "flux-dev, 64 px, batch 1: difference of both",
        "flux-dev, 64 px, batch 1: a step of diffusers",
    ]
    assert "gpu_speed.py" in (tmp_path / "gpu.md").read_text("utf-8")


def test_a_row_of_a_gpu_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_speed.main(["--rows", "sd9", "--out", str(tmp_path)]) == 2
    assert "'sd9'" in capsys.readouterr().err and not list(tmp_path.iterdir())
