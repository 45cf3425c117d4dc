"""What a command says that it took, on the terminal and in the files that it makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mezzotint.apps import cli
from mezzotint.apps.python import Maker
from mezzotint.families import catalogue
from mezzotint.modalities.image import read_text
from mezzotint.provenance.grid import VARIABLE
from mezzotint.provenance.meter import Shares
from mezzotint.provenance.recipe import CHUNK


@pytest.fixture
def make(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("mezzotint.provenance.meter.zones", lambda root: ())  # all is estimated
    wish = ["generate", "fox", "--model", str(model), "--seed", "7"]
    return lambda *more: cli.main([*wish, *more])


def said(path: Path | str) -> dict[str, Any]:
    return json.loads(read_text(Path(path))[CHUNK])


def test_a_line_after_the_work(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("-n", "2", "--grid", "500", "-o", "all/") == 0
    told = capsys.readouterr()
    line = told.err.splitlines()[-1]
    assert "Wh" not in told.out and re.fullmatch(
        r"energy: [\d.e-]+ Wh, [\d.e-]+ g CO2e \(estimated within a factor of 2: [\d.]+ s of CPU "
        r"time at \d+ W a core; grid: 500 g/kWh, as given\)",
        line,
    )
    spent = [said(f"all/fox_{seed}.png")["energy"] for seed in (7, 8)]
    for each in spent:
        assert each["gco2e"] == pytest.approx(each["wh"] / 2, rel=1e-4)
        assert each["how"] == "estimated" and each["within_a_factor_of"] == 2
    whole = float(line.split()[1])  # of two digits, and with what writing took
    assert 0 < sum(each["wh"] for each in spent) < 1.05 * whole
    assert "energy" not in said("all/fox_7-8_sheet.png")  # it stands with its pictures
    assert make("--quiet", "-o", "b.png") == 0
    assert capsys.readouterr().err == ""


def test_a_country_is_told_only_if_the_user_did(make: Any, monkeypatch: Any) -> None:
    assert make("--quiet", "-o", "a.png") == 0
    assert said("a.png")["energy"]["grid"] == {
        "g_per_kwh": 473,
        "name": "world average 2024, Ember",
    }
    assert make("--quiet", "--grid", "fr", "-o", "b.png") == 0
    monkeypatch.setenv(VARIABLE, "de")
    assert make("--quiet", "-o", "c.png") == 0
    assert make("--quiet", "--grid", "no", "-o", "d.png") == 0
    names = [said(f"{name}.png")["energy"]["grid"]["name"] for name in "bcd"]
    assert names == ["FR 2024, Ember", "DE 2024, Ember", "NO 2024, Ember"]
    assert said("b.png")["options"] == said("a.png")["options"]


def test_a_wrong_code_is_said_before_the_work(
    make: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make("--grid", "DEE", "-o", "new/") == 2
    assert "argument --grid: 'DEE' is no grid that is known (nearest: " in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, "germany")
    assert make("-o", "new/") == 2
    assert capsys.readouterr().err.startswith(f"mezzotint: {VARIABLE}: 'germany' is no grid")
    assert not Path("new").exists()
    (Path("t.toml")).write_text("")
    assert cli.main(["train", "t.toml", "--out", "run", "--grid", "ZZ"]) == 2
    assert "(nearest: " in capsys.readouterr().err


def test_what_it_took_is_not_compared(make: Any, model: Path) -> None:
    """Neither `verify` nor --from looks at it: it differs each time."""
    assert make("--quiet", "-o", "a.png") == 0
    assert cli.main(["verify", "a.png", "--in", str(model.parent)]) == 0
    again = ["generate", "--from", "a.png", "--model", str(model), "--quiet", "--grid", "1"]
    assert cli.main([*again, "-o", "b.png"]) == 0
    first, second = said("a.png"), said("b.png")
    assert first.pop("energy") != second.pop("energy") and first == second


def test_in_python_loading_is_the_first_pictures(
    make: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = 0

    def work(seconds: int) -> None:
        nonlocal worked
        worked += seconds

    def load(*given: Any) -> Any:
        work(100)
        return catalogue.load(*given)

    monkeypatch.setattr("mezzotint.provenance.meter._cpu_seconds", lambda: worked)
    monkeypatch.setattr("mezzotint.apps.python.load", load)
    maker = Maker.load(str(model))
    for seed, seconds in ((1, 100 + 20), (2, 20)):
        work(5000)  # the program's own
        image = maker.generate("fox", seed=seed, steps=2, listener=lambda _: work(10))
        assert json.loads(image.info[CHUNK])["energy"]["cpu_seconds"] == seconds


def test_counters_are_read_while_a_picture_is_drawn(
    make: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wrap around, and on a processor a picture may take longer than that."""
    laps: list[int] = []
    monkeypatch.setattr(Shares, "lap", lambda self: laps.append(1))
    assert make("--quiet", "--steps", "4", "-n", "2", "-o", "all/") == 0
    assert len(laps) == 8
