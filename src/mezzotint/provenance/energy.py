"""How much electricity a piece of work took: measured where the machine lets it, else estimated.

- Processor and memory: RAPL, as Linux shows it in ``/sys/class/powercap``.  The counters are those
  of the whole machine, and wrap around after some tens of minutes: :meth:`Meter.lap` in between.
- GPU: NVML's counter of energy (Volta and later), of the whole card.
- Else the processor is estimated: seconds of CPU time times a power a busy core, by the class of
  the processor.  Published thermal design powers divided by cores lie between 4 and 24 W (the table
  of Green Algorithms, Lannelongue et al. 2021, whose own default is 12 W); the classes are about
  their medians, and good to a factor of two.

Memory, disks, fans, the power supply's losses and an idle machine are in no estimate.
No network is asked.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from mezzotint.provenance.grid import Grid

How = Literal["measured", "estimated", "partly measured"]
POWERCAP = Path("/sys/class/powercap")
_JOULES = 3600.0  # in a Wh
GPU_WATTS = 250.0
"""Assumed of a GPU whose counter cannot be read, for all the time that it is at hand."""


WITHIN = 2.0
"""Factor to which an estimate is good."""


class Power(NamedTuple):
    """W a busy core, of processors of a class."""

    watts: float
    what: str


_CLASSES = (
    (
        re.compile(r"xeon|epyc|opteron|threadripper|neoverse|graviton|power\d", re.I),
        Power(8, "server"),
    ),
    (re.compile(r"apple", re.I), Power(5, "Apple")),
    (re.compile(r"mobile|laptop|\d(?:U|Y|P|H|HS|HX|HK|G\d)\b|Ultra \d"), Power(6, "laptop")),
    (re.compile(r"core|ryzen|pentium|athlon|\bfx", re.I), Power(13, "desktop")),
    (re.compile(r"cortex|raspberry", re.I), Power(2, "small board")),
)
UNKNOWN = Power(12, "unknown")


def power_of(processor: str) -> Power:
    """The power a core of a processor, by its name."""
    return next((power for name, power in _CLASSES if name.search(processor)), UNKNOWN)


def processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple"
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            rows = (line.partition(":") for line in file)
            found = (v.strip() for key, _, v in rows if key.strip() in ("model name", "Model"))
            return next(found, platform.processor())
    except OSError:
        return platform.processor()


# --- what it took -----------------------------------------------------------------------------


class Part(NamedTuple):
    """What one part of the machine took; source: by what it was measured, or how estimated."""

    name: str
    wh: float
    how: Literal["measured", "estimated"]
    source: str


@dataclass(frozen=True)
class Energy:
    """What some work took.

    seconds: of the clock; cpu_seconds: of all threads and finished child processes.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def wh(self) -> float:
        return sum(part.wh for part in self.parts)

    @property
    def how(self) -> How:
        kinds = {part.how for part in self.parts}
        if len(kinds) > 1:
            return "partly measured"
        return "measured" if "measured" in kinds else "estimated"


def total(works: Iterable[Energy]) -> Energy:
    """The sum of works; parts that were got alike are added up."""
    seconds, cpu, parts = 0.0, 0.0, dict[tuple[str, str, str], float]()
    for work in works:
        seconds, cpu = seconds + work.seconds, cpu + work.cpu_seconds
        for part in work.parts:
            key = (part.name, part.how, part.source)
            parts[key] = parts.get(key, 0.0) + part.wh
    return Energy(
        seconds,
        cpu,
        tuple(Part(name, wh, how, by) for (name, how, by), wh in parts.items()),  # type: ignore[arg-type]
    )


def times(work: Energy, processes: int) -> Energy:
    """What so many processes took that do alike; a counter of the whole machine has them all."""
    if processes == 1:
        return work
    parts = (
        part if part.source == _RAPL else part._replace(wh=part.wh * processes)
        for part in work.parts
    )
    return replace(work, cpu_seconds=work.cpu_seconds * processes, parts=tuple(parts))


# --- counters ---------------------------------------------------------------------------------

_RAPL = "RAPL"


class Zone:
    """A RAPL counter, in µJ, that begins anew after ``most``."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file = path / "energy_uj"
        self._most = int((path / "max_energy_range_uj").read_text())
        self._last = self._read()

    def _read(self) -> int:
        return int(self._file.read_text())

    def joules(self) -> float:
        """Since the last call; one wrap-around is seen, a second in between would not be.

        Raises:
            OSError, ValueError: it cannot be read any more.
        """
        now = self._read()
        spent = now - self._last
        self._last = now
        return (spent if spent >= 0 else spent + self._most + 1) / 1e6


def zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """The counters that together are processors and memory, each joule in one of them.

    A package has its cores and its graphics within, and the memory beside itself; "psys" has all of
    them again, and ``intel-rapl-mmio`` shows a package a second time.

    Raises:
        OSError, ValueError: they cannot be read; since 2020 Linux lets only root read them.
    """
    found: list[Zone] = []
    for path in sorted(root.glob("intel-rapl:*")):
        name = (path / "name").read_text().strip()
        if name.startswith("package"):
            found.append(Zone(path, "processor"))
        elif name == "dram":
            found.append(Zone(path, "memory"))
    return tuple(found)


class Gpu:
    """The energy counter of an NVIDIA GPU, in mJ since its driver was loaded.

    Raises:
        OSError: there is no NVML, no such GPU, or it has no counter.
    """

    def __init__(self, uuid: str, library: Any = None) -> None:
        self._nvml = library if library is not None else ctypes.CDLL("libnvidia-ml.so.1")
        self._device = ctypes.c_void_p()
        self._ask(self._nvml.nvmlInit_v2)
        name, device = ctypes.c_char_p(uuid.encode()), ctypes.byref(self._device)
        self._ask(self._nvml.nvmlDeviceGetHandleByUUID, name, device)
        self._last = self._read()

    def _ask(self, function: Callable[..., int], *given: Any) -> None:
        if (code := function(*given)) != 0:
            raise OSError(f"NVML says {code}")

    def _read(self) -> int:
        value = ctypes.c_ulonglong()
        self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._device, ctypes.byref(value))
        return value.value

    def joules(self) -> float:
        """Since the last call.  Raises OSError: it cannot be read any more."""
        now = self._read()
        spent, self._last = now - self._last, now
        return max(spent, 0) / 1e3


def uuid_of(place: torch.device) -> str | None:
    """The name by which NVML knows a CUDA device; none of another device."""
    if place.type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(place).uuid}"


def _cpu_seconds() -> float:
    """Of this process with all its threads, and of its children that have ended."""
    if sys.platform == "win32":
        return time.process_time()
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# --- the meter --------------------------------------------------------------------------------


class Meter:
    """Counts from when it is made, or from the last :meth:`take`.

    Args:
        place: the device that works.
        root, library, power: in place of the system's counters, NVML and the processor's power.
    """

    LAP = 60.0
    """Seconds after which :meth:`lap` reads the counters again."""

    def __init__(
        self,
        place: torch.device | None = None,
        root: Path = POWERCAP,
        library: Any = None,
        power: Power | None = None,
    ) -> None:
        self._power = power or power_of(processor())
        self._joules: dict[str, float] = {}
        try:
            self._zones = zones(root)
        except (OSError, ValueError):
            self._zones = ()
        uuid, self._gpu = (None if place is None else uuid_of(place)), None
        self._has_gpu = uuid is not None
        if uuid is not None:
            try:
                self._gpu = Gpu(uuid, library)
            except (OSError, AttributeError):  # the latter: of an old driver
                self._gpu = None
        self._begun = self._read = time.perf_counter()
        self._cpu = _cpu_seconds()

    def lap(self) -> None:
        """Read the counters if that was long ago; cheap, so call it after every step."""
        if time.perf_counter() - self._read > self.LAP:
            self._count()

    def _count(self) -> None:
        self._read = time.perf_counter()
        try:
            for zone in self._zones:
                spent = zone.joules()
                self._joules[zone.name] = self._joules.get(zone.name, 0.0) + spent
        except (OSError, ValueError):  # from here on, and for all since it began, an estimate
            self._zones = ()
            self._joules = {name: j for name, j in self._joules.items() if name == "GPU"}
        try:
            if self._gpu is not None:
                self._joules["GPU"] = self._joules.get("GPU", 0.0) + self._gpu.joules()
        except OSError:
            self._gpu = None
            self._joules.pop("GPU", None)

    def take(self) -> Energy:
        """What it took since the meter was made or this was last called."""
        self._count()
        now, cpu = time.perf_counter(), _cpu_seconds()
        seconds, busy = now - self._begun, max(cpu - self._cpu, 0.0)
        parts: list[Part] = []
        for name in dict.fromkeys(zone.name for zone in self._zones):
            parts.append(Part(name, self._joules[name] / _JOULES, "measured", _RAPL))
        if not self._zones:
            watts = self._power.watts
            source = f"CPU time at {watts:g} W a core"
            parts.append(Part("processor", busy * watts / _JOULES, "estimated", source))
        if self._gpu is not None:
            parts.append(Part("GPU", self._joules["GPU"] / _JOULES, "measured", "NVML"))
        elif self._has_gpu:
            source = f"{GPU_WATTS:g} W all the time"
            parts.append(Part("GPU", seconds * GPU_WATTS / _JOULES, "estimated", source))
        self._begun, self._cpu = now, cpu
        self._joules = {}
        return Energy(seconds, busy, tuple(parts))


class Reading:
    """What :func:`metered` measured, once its body has ended."""

    energy = Energy()


@contextmanager
def metered(place: torch.device | None = None) -> Iterator[Reading]:
    """Measure a body of code.

    with metered() as reading:
        work()
    print(line(reading.energy, grid()))
    """
    meter, reading = Meter(place), Reading()
    try:
        yield reading
    finally:
        reading.energy = meter.take()


# --- told -------------------------------------------------------------------------------------


def grams(work: Energy, of: Grid) -> float:
    """g of CO2 equivalent: Wh × g/kWh / 1000."""
    return work.wh * of.g_per_kwh / 1000


def figure(value: float) -> str:
    """Two significant digits below ten, whole numbers above."""
    return f"{value:,.0f}" if value >= 10 else f"{float(f'{value:.2g}'):g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 36000 else f"{seconds:.1f} s"


def _how(work: Energy) -> str:
    told: dict[str, list[str]] = {"measured": [], "estimated": []}
    for part in work.parts:
        if part.source.startswith("CPU time"):
            told[part.how].append(f"{_duration(work.cpu_seconds)} of {part.source}")
        elif part.how == "measured":
            told[part.how].append(f"{part.name} by {part.source}")
        else:
            told[part.how].append(f"{part.name} {part.source}")
    return "; ".join(f"{how}: {', '.join(rows)}" for how, rows in told.items() if rows)


def line(work: Energy, of: Grid) -> str:
    """One line for a person: Wh, g of CO2 equivalent, how they were got."""
    how = _how(work) or "nothing was measured"
    return (
        f"{figure(work.wh)} Wh, {figure(grams(work, of))} g CO2e ({how}; "
        f"grid: {of.name.removesuffix(', Ember')})"
    )


def document(work: Energy, of: Grid) -> dict[str, object]:
    """For a recipe or a log; six digits are enough."""
    found: dict[str, object] = {
        "wh": _short(work.wh),
        "gco2e": _short(grams(work, of)),
        "how": work.how,
        "seconds": _short(work.seconds),
        "cpu_seconds": _short(work.cpu_seconds),
        "parts": [{**part._asdict(), "wh": _short(part.wh)} for part in work.parts],
        "grid": {"g_per_kwh": of.g_per_kwh, "name": of.name},
    }
    return found if work.how == "measured" else {**found, "within_a_factor_of": WITHIN}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def kept(work: Energy) -> dict[str, object]:
    """Exactly, for a checkpoint; :func:`restored` reads it."""
    return {
        "seconds": work.seconds,
        "cpu_seconds": work.cpu_seconds,
        "parts": [list(part) for part in work.parts],
    }


def restored(values: dict[str, Any] | None) -> Energy:
    """What :func:`kept` wrote; nothing of a checkpoint that has none."""
    if not values:
        return Energy()
    parts = tuple(Part(*part) for part in values["parts"])
    return Energy(values["seconds"], values["cpu_seconds"], parts)
