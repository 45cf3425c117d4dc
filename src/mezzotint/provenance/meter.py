"""How much electricity a piece of work took: measured where the machine lets it, else estimated.

- Processor and memory: RAPL, as Linux shows it in ``/sys/class/powercap``.  The counters are those
  of the whole machine, and wrap around after some tens of minutes: :meth:`Meter.lap` in between.
- GPU: NVML's counter of energy (Volta and later), of the whole card.
- Else the processor is estimated: seconds of CPU time times a power a busy core, by the class of
  the processor.  Published thermal design powers divided by cores lie between 4 and 24 W (the table
  of Green Algorithms, Lannelongue et al. 2021, whose own default is 12 W); the classes are about
  their medians.  A GPU is taken to draw a usual power all the time that it is at hand.

Memory, disks, fans, the power supply's losses and an idle machine are in no estimate.
No network is asked, and torch is not imported: a command counts from before it loads that.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mezzotint.provenance.energy import NVML, RAPL, Energy, Part, document, line, share, total
from mezzotint.provenance.grid import Grid

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
_JOULES = 3600.0  # in a Wh
GPU_WATTS = {"cuda": 250.0, "mps": 20.0}
"""Assumed of a GPU whose counter cannot be read, for all the time that it is at hand."""


class Power(NamedTuple):
    """W a busy core, of processors of a class."""

    watts: float
    of: str


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


@cache
def processor() -> str:
    """The name of this machine's processor, as far as a file of the system tells it."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple"
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            rows = (line.partition(":") for line in file)
            found = (v.strip() for key, _, v in rows if key.strip() in ("model name", "Model"))
            return next(found, "")
    except OSError:
        return ""


# --- counters ---------------------------------------------------------------------------------


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
    import torch

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
    """Counts from when it is made, or from the last :meth:`take`; ``total``: all that was taken.

    Args:
        root, library, power: in place of the system's counters, NVML and the processor's power.
    """

    LAP = 60.0
    """Seconds after which :meth:`lap` reads the counters again."""

    def __init__(
        self, root: Path = POWERCAP, library: Any = None, power: Power | None = None
    ) -> None:
        self.total = Energy()
        self._power = power or power_of(processor())
        self._joules: dict[str, float] = {}
        try:
            self._zones = zones(root)
        except (OSError, ValueError):
            self._zones = ()
        self._library, self._place, self._gpu = library, "cpu", None
        self._begun = self._lap = self._watched = time.perf_counter()
        self._cpu = _cpu_seconds()

    def watch(self, place: torch.device) -> Meter:
        """Count a device too, from now on."""
        self._place, self._watched = place.type, time.perf_counter()
        try:
            uuid = uuid_of(place)
            self._gpu = None if uuid is None else Gpu(uuid, self._library)
        except (OSError, AttributeError):  # the latter: an old driver, or another maker's GPU
            self._gpu = None
        return self

    def lap(self) -> None:
        """Read the counters if that was long ago; cheap, so call it after every step."""
        if time.perf_counter() - self._lap > self.LAP:
            self._count()

    def _count(self) -> None:
        self._lap = time.perf_counter()
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
        busy, watched = max(cpu - self._cpu, 0.0), now - max(self._begun, self._watched)
        measured = {name: joules / _JOULES for name, joules in self._joules.items()}
        by = {name: NVML if name == "GPU" else RAPL for name in measured}
        parts = [Part(name, wh, "measured", by[name]) for name, wh in measured.items()]
        if not self._zones:
            watts = self._power.watts
            wh, source = busy * watts / _JOULES, f"CPU time at {watts:g} W a core"
            parts.insert(0, Part("processor", wh, "estimated", source))
        if self._gpu is None and (watts := GPU_WATTS.get(self._place)) is not None:
            wh = watched * watts / _JOULES
            parts.append(Part("GPU", wh, "estimated", f"{watts:g} W all the time"))
        work = Energy(now - self._begun, busy, tuple(parts))
        self._begun, self._cpu, self._joules = now, cpu, {}
        self.total = total((self.total, work))
        return work


class Shares:
    """What each of the pictures took that one command makes.

    What was spent before the first, as on loading the model, they share equally; what goes on
    between them, as writing a file, is in none of them, but in the meter's total.

    Args:
        count: of the pictures; before: what was spent before the meter was made.
    """

    def __init__(self, meter: Meter, count: int, of: Grid, before: Energy | None = None) -> None:
        self._meter, self._count, self._of = meter, count, of
        self._before, self._share = before or Energy(), None

    def begin(self) -> None:
        """From now on a picture is made."""
        spent = self._meter.take()
        if self._share is None:
            self._share = share(total((self._before, spent)), self._count)

    def lap(self) -> None:
        """One step of it is done: see :meth:`Meter.lap`."""
        self._meter.lap()

    def end(self) -> dict[str, object]:
        """It is made: its :func:`document`."""
        return document(total((self._share or Energy(), self._meter.take())), self._of)

    def line(self) -> str:
        """All until now, as a :func:`line`."""
        self._meter.take()
        return line(total((self._before, self._meter.total)), self._of)
