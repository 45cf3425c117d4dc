"""Energy: counters against closed forms, in a tree of files that a test writes."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mezzotint.provenance import energy
from mezzotint.provenance import meter as meters
from mezzotint.provenance.energy import Energy, Part
from mezzotint.provenance.grid import GRIDS, VARIABLE, GridError, chosen, grid
from mezzotint.provenance.meter import Meter, Power, Shares

TEN = Power(10, "test")


def zone(root: Path, name: str, what: str, uj: int, most: int = 1_000_000_000) -> Path:
    path = root / name
    path.mkdir()
    (path / "name").write_text(f"{what}\n")
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    return path


def count(path: Path, uj: int) -> None:
    (path / "energy_uj").write_text(f"{uj}\n")


def test_counters_that_hold_each_other_are_counted_once(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 0)
    again = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    meter = Meter(root=tmp_path)
    for path, joules in ((first, 36), (core, 30), (dram, 18), (second, 72), (whole, 500)):
        count(path, joules * 1_000_000)
    count(again, 36_000_000)
    found = meter.take()
    assert found.how == "measured"
    assert {part.name: part.wh for part in found.parts} == {
        "processor": pytest.approx((36 + 72) / 3600),
        "memory": pytest.approx(18 / 3600),
    }
    assert meter.take().wh == 0  # all of it was taken


def test_a_counter_that_wraps_around(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, most=9_999_999)
    meter = Meter(root=tmp_path)
    count(path, 2_000_000)  # 1 J to the end, 2 J from there: the range has most + 1 values
    assert meter.take().wh == pytest.approx(3 / 3600)


def test_every_wrap_is_seen_by_laps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meter, "LAP", 0.0)
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0, most=9_999_999)
    meter = Meter(root=tmp_path)
    for joules in (6, 2, 8, 4):  # 6 J a time: 24 in all, of a counter that holds 10
        count(path, joules * 1_000_000)
        meter.lap()
    assert meter.take().wh == pytest.approx(24 / 3600)


def test_laps_that_come_soon_read_nothing(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Meter(root=tmp_path)
    (path / "energy_uj").unlink()
    meter.lap()
    count(path, 36_000_000)
    assert meter.take().wh == pytest.approx(0.01)


def _busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_without_counters_it_is_cpu_time_at_a_power(tmp_path: Path) -> None:
    before = time.process_time()
    meter = Meter(root=tmp_path, power=TEN)
    _busy(0.05)
    found = meter.take()
    spent = time.process_time() - before
    assert found.how == "estimated" and 0.05 <= found.cpu_seconds <= spent
    assert found.wh == pytest.approx(found.cpu_seconds * 10 / 3600)
    assert [part.source for part in found.parts] == ["CPU time at 10 W a core"]


def test_counters_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read = Path.read_text

    def denied(path: Path, *args: str) -> str:  # the tests may run as root, who may read all
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args)

    monkeypatch.setattr(Path, "read_text", denied)
    assert Meter(root=tmp_path, power=TEN).take().how == "estimated"


@pytest.mark.parametrize("text", ["", "x", "-"])
def test_damaged_counters_are_left_alone(tmp_path: Path, text: str) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (path / "energy_uj").write_text(text)
    assert Meter(root=tmp_path, power=TEN).take().how == "estimated"


def test_a_counter_lost_on_the_way_leaves_an_estimate_of_the_whole(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Meter(root=tmp_path, power=TEN)
    _busy(0.02)
    (path / "energy_uj").unlink()
    found = meter.take()
    assert found.how == "estimated" and found.cpu_seconds >= 0.02
    assert found.wh == pytest.approx(found.cpu_seconds * 10 / 3600)


# --- GPUs: a library that counts as NVML does ---------------------------------------------------


class Nvml:
    def __init__(self, code: int = 0) -> None:
        self.millijoules, self.code, self.asked = 5_000, code, b""

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: ctypes.c_char_p, device: object) -> int:  # noqa: N802
        self.asked = name.value or b""
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: object, value: object) -> int:  # noqa: N802
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules  # type: ignore[arg-type]
        return self.code


def _on_gpu(monkeypatch: pytest.MonkeyPatch, root: Path, library: Nvml) -> Meter:
    monkeypatch.setattr(meters, "uuid_of", lambda place: "GPU-1")
    return Meter(root, library, TEN).watch(torch.device("cuda"))


def test_a_gpu_by_its_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Nvml()
    meter = _on_gpu(monkeypatch, tmp_path, library)
    library.millijoules += 36_000
    found = meter.take()
    assert library.asked == b"GPU-1" and found.how == "partly measured"
    assert {part.name: part.how for part in found.parts} == {
        "processor": "estimated",
        "GPU": "measured",
    }
    assert found.parts[-1].wh == pytest.approx(0.01)


def test_a_gpu_without_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = _on_gpu(monkeypatch, tmp_path, Nvml(code=3))
    first, found = meter.take(), meter.take()
    assert found.how == "estimated" and found.within == 3
    watts = meters.GPU_WATTS["cuda"]
    assert found.parts[-1].wh == pytest.approx(found.seconds * watts / 3600)
    assert 0 < first.parts[-1].wh < first.seconds * watts / 3600  # not before it was watched


def test_of_what_is_measured_and_estimated_each_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _on_gpu(monkeypatch, tmp_path, Nvml()).take()
    said = energy.line(found, grid())
    assert "(estimated within a factor of 2: 0.0 s of CPU time at 10 W a core; " in said
    assert "; measured: GPU by NVML; " in said
    assert energy.document(found, grid())["within_a_factor_of"] == 2


def test_the_processor_has_no_name_in_nvml() -> None:
    assert meters.uuid_of(torch.device("cpu")) is None


# --- pictures of one command --------------------------------------------------------------------


def test_pictures_share_what_was_spent_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 0, most=10**12)
    meter, spent = Meter(root=tmp_path), 0

    def spend(wh: int) -> None:
        nonlocal spent
        spent += wh
        count(path, spent * 3_600_000_000)

    shares = Shares(meter, 2, grid("100"), before=RAPL)
    spend(5)  # loading, and 1 Wh before the meter was made
    found: list[object] = []
    for own, writing in ((10, 2), (20, 4)):
        shares.begin()
        spend(own)
        found.append(shares.end()["wh"])
        spend(writing)
    assert found == [10 + 3, 20 + 3]
    assert shares.line().startswith("42 Wh, 4.2 g CO2e (measured: processor by RAPL; ")
    assert meter.total.wh == pytest.approx(41) and spent == 41


# --- sums, grids, words -------------------------------------------------------------------------

RAPL = Energy(2, 3, (Part("processor", 1.0, "measured", "RAPL"),))
GUESS = Energy(1, 4, (Part("processor", 0.5, "estimated", "CPU time at 8 W a core"),))


def test_works_add_up_and_come_back_from_a_checkpoint() -> None:
    both = energy.total((RAPL, GUESS, GUESS))
    assert (both.wh, both.seconds, both.cpu_seconds) == (2.0, 4, 11)
    assert both.how == "partly measured" and len(both.parts) == 2
    assert energy.restored(energy.kept(both)) == both
    assert energy.restored({}) == energy.restored(None) == Energy()


def test_processes_share_the_machines_counters_and_not_their_own_time() -> None:
    assert energy.times(RAPL, 4).wh == RAPL.wh and energy.times(RAPL, 4, 2).wh == 2 * RAPL.wh
    assert energy.times(RAPL, 1) == RAPL
    assert energy.times(GUESS, 4).wh == 4 * GUESS.wh
    assert energy.times(GUESS, 4).cpu_seconds == 16


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("Intel(R) Xeon(R) Platinum 8480CL", 8),
        ("AMD EPYC 9654 96-Core Processor", 8),
        ("12th Gen Intel(R) Core(TM) i7-1255U", 6),
        ("11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", 6),
        ("AMD Ryzen 9 7940HS w/ Radeon 780M Graphics", 6),
        ("Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", 13),
        ("AMD Ryzen 7 3700X 8-Core Processor", 13),
        ("Apple", 5),
        ("QEMU Virtual CPU version 2.5+", 12),
        ("", 12),
    ],
)
def test_classes_of_processors(name: str, watts: float) -> None:
    assert meters.power_of(name).watts == watts


def test_a_line_says_how_much_and_how_it_is_known() -> None:
    assert energy.line(energy.total((GUESS,)), grid("DE")) == (
        "0.5 Wh, 0.17 g CO2e (estimated within a factor of 2: 4.0 s of CPU time at 8 W a core; "
        "grid: DE 2024)"
    )
    assert energy.line(RAPL, grid("380")) == (
        "1 Wh, 0.38 g CO2e (measured: processor by RAPL; grid: 380 g/kWh, as given)"
    )


def test_a_document_says_the_same() -> None:
    found = energy.document(GUESS, grid())
    assert found["wh"] == 0.5 and found["how"] == "estimated" and found["within_a_factor_of"] == 2
    assert found["gco2e"] == pytest.approx(0.5 * 473 / 1000)
    assert found["grid"] == {"g_per_kwh": 473, "name": "world average 2024, Ember"}
    assert "within_a_factor_of" not in energy.document(RAPL, grid())
    assert energy.said(json.loads(json.dumps(found))) == energy.Said(0.5, 0.2365, "estimated")


@pytest.mark.parametrize(
    "change",
    [
        {"wh": -1},
        {"wh": "1"},
        {"wh": True},
        {"wh": float("nan")},
        {"wh": 10**400},
        {"gco2e": None},
        {"how": "guessed"},
        {"how": ["estimated"]},
    ],
)
def test_what_can_not_be_is_nothing(change: dict[str, object]) -> None:
    assert energy.said({**energy.document(GUESS, grid()), **change}) is None
    assert energy.said([change]) is energy.said(None) is None


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (9.96, "10"), (1234.5, "1,234")])
def test_figures(value: float, text: str) -> None:
    assert energy.figure(value) == text


def test_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grid("fr") == grid(" FR ") == GRIDS["FR"] and grid("UK") == GRIDS["GB"]
    assert len(GRIDS) > 200 and all(5 < found.g_per_kwh < 1500 for found in GRIDS.values())
    monkeypatch.setenv(VARIABLE, "NO")
    assert chosen().name == "NO 2024, Ember" and chosen(grid("380")).g_per_kwh == 380
    monkeypatch.setenv(VARIABLE, "NOO")
    with pytest.raises(GridError, match=r"^MEZZOTINT_GRID: 'NOO' is no grid .*nearest: NO"):
        chosen()
    monkeypatch.setenv(VARIABLE, "")
    assert chosen() == grid() == GRIDS["WORLD"]


@pytest.mark.parametrize("text", ["Germany", "ZZ", "-3", "nan", "1e9", "inf", ""])
def test_no_grid(text: str) -> None:
    with pytest.raises(GridError, match="grams of CO2 per kWh"):
        grid(text)


def test_measuring_loads_nothing_heavy_and_starts_no_program() -> None:
    code = (
        "import sys; sys.addaudithook(lambda event, _: 1 / (not event.startswith("
        "('subprocess', 'os.posix_spawn', 'os.fork', 'os.system', 'socket')))); "
        "from mezzotint.provenance.meter import Meter; Meter().take(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
