"""What a run costs: wall and processor time, and, where the machine has counters, energy and CO2.

The counters know no processes. RAPL's are of whole processor packages, NVIDIA's of whole boards, so that whatever else
runs there is counted too, and two runs at a time each count all of it. Memory, disks, fans and the losses of the power
supply are in neither: the true figure is higher on an idle machine, lower on a busy one.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from provenance.errors import UserError
from provenance.files import write_json

WORLD_G_CO2_PER_KWH = 445.0
"""The world's average of 2024, of generation alone: IEA (2025), Electricity 2025, chapter Emissions,
https://www.iea.org/reports/electricity-2025/emissions. Grids differ more than tenfold: `$NUNATAK_G_CO2_PER_KWH` says
what one's own emits."""
OWN_GRID = "NUNATAK_G_CO2_PER_KWH"
POWERCAP = Path("/sys/class/powercap")
PARTS = ("cpu", "gpu")
NOT_NOTED = "not noted"
"""Why an older run.json does not know its energy."""
EVERY_S = 60.0
"""A package counter may hold as little as 65 kJ: read each minute, it cannot wrap twice unseen below 1 kW."""
_UJ_PER_WH = 3.6e9

Counters = dict[str, tuple[float, float | None]]
"""Name -> energy so far, and where the counter starts at 0 again (None: never), both in microjoules."""


class NotMeasurable(Exception):  # noqa: N818  (no failure: most machines hide their counters)
    """Why a part of this machine cannot be measured, in a few words."""


def grams_per_kwh() -> float:
    """Grams of CO2 per kWh of electricity: `$NUNATAK_G_CO2_PER_KWH`, else the average of the world.

    Raises:
        UserError: the variable holds no number of at least 0.
    """
    given = os.environ.get(OWN_GRID, "").strip()
    if not given:
        return WORLD_G_CO2_PER_KWH
    try:
        grams = float(given)
    except ValueError:
        grams = math.nan
    if not (math.isfinite(grams) and grams >= 0):
        raise UserError(f"${OWN_GRID} is '{given}': give grams of CO2 per kWh, for example 56, or unset it")
    return grams


@dataclass(frozen=True)
class Spent:
    """What was spent. None is what is not known, and no sum with it is: a sum that leaves out a part misleads."""

    seconds: float | None
    """Wall time."""
    cpu_seconds: float | None
    """Processor time, of this process and of its children that have ended."""
    energy_wh: Mapping[str, float | None]
    """Of `cpu` and `gpu`, in Wh."""
    not_measured: Mapping[str, str]
    """Why, for each part without energy."""

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> "Spent":
        """What `fields` has noted, for example in a run.json; one that is older than a field does not know it."""
        energy, why = noted.get("energy_wh") or {}, noted.get("not_measured") or {}
        missing = {part: str(why.get(part, NOT_NOTED)) for part in PARTS if energy.get(part) is None}
        known = {part: energy.get(part) for part in PARTS}
        return cls(noted.get("seconds"), noted.get("cpu_seconds"), known, missing)

    def __add__(self, later: "Spent") -> "Spent":
        energy = {part: _plus(self.energy_wh[part], later.energy_wh[part]) for part in PARTS}
        missing = {**self.not_measured, **later.not_measured}
        seconds, cpu_seconds = _plus(self.seconds, later.seconds), _plus(self.cpu_seconds, later.cpu_seconds)
        return Spent(seconds, cpu_seconds, energy, missing)

    @property
    def measured_wh(self) -> float | None:
        """The energy of the parts that were measured, in Wh; None where none was."""
        known = [value for value in self.energy_wh.values() if value is not None]
        return sum(known) if known else None

    def fields(self, g_co2_per_kwh: float) -> dict[str, Any]:
        """The fields of run.json. `co2_g` is that of the parts that were measured; None where none was."""
        energy = self.measured_wh
        return {
            "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "energy_wh": dict(self.energy_wh),
            "not_measured": dict(self.not_measured), "g_co2_per_kwh": g_co2_per_kwh,
            "co2_g": None if energy is None else energy * g_co2_per_kwh / 1000,
        }  # fmt: skip


NOTHING = Spent(0.0, 0.0, dict.fromkeys(PARTS, 0.0), {})


class Meter:
    """Adds up what is spent from the moment it is made."""

    def __init__(self, before: Spent = NOTHING, powercap: Path | None = None) -> None:
        """Read the counters for the first time.

        Args:
            before: what was spent earlier, to go on from.
            powercap: folder of the kernel's power-capping zones; default `POWERCAP`.

        Raises:
            UserError: `$NUNATAK_G_CO2_PER_KWH` is wrong.
        """
        self._before, self._grams = before, grams_per_kwh()
        folder = powercap or POWERCAP
        self._parts = {"cpu": _Part(lambda: packages(folder)), "gpu": _Part(boards)}
        self._begun, self._cpu_begun = time.perf_counter(), _cpu_seconds()

    def spent(self) -> Spent:
        """What was spent until now, with what was spent before."""
        seconds, cpu_seconds = time.perf_counter() - self._begun, _cpu_seconds() - self._cpu_begun
        energy = {name: part.watt_hours() for name, part in self._parts.items()}
        missing = {name: part.why for name, part in self._parts.items() if part.why}
        return self._before + Spent(seconds, cpu_seconds, energy, missing)

    def fields(self) -> dict[str, Any]:
        """The fields of run.json, as of now."""
        return self.spent().fields(self._grams)

    @contextmanager
    def noting(self, path: Path, every: float = EVERY_S) -> Iterator[None]:
        """Within this block, read the counters and keep what was spent in a file, now and from time to time.

        The file is what a killed run leaves; counters that are read in time wrap at most once. It is not run.json,
        which the run itself rewrites meanwhile.

        Args:
            path: the JSON file; it stays.
            every: seconds between two readings.
        """
        write_json(path, self.fields())
        over = threading.Event()

        def note() -> None:
            while not over.wait(every):
                with suppress(OSError):  # a full disk stops the run where it loses results, not here
                    write_json(path, self.fields())

        thread = threading.Thread(target=note, name="energy", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Part:
    """The energy of one part of the machine since it was first read; once a reading fails, unknown for good."""

    def __init__(self, read: Callable[[], Counters]) -> None:
        self.why = ""
        self._read, self._uj, self._last = read, 0.0, Counters()
        try:
            self._last = read()
        except NotMeasurable as reason:
            self.why = str(reason)

    def watt_hours(self) -> float | None:
        if not self.why:
            try:
                self._add(self._read())
            except NotMeasurable as reason:
                self.why = str(reason)
        return None if self.why else self._uj / _UJ_PER_WH

    def _add(self, now: Counters) -> None:
        if now.keys() != self._last.keys():
            raise NotMeasurable("a counter came or went during the run")
        self._uj += sum(_grown(self._last[name][0], *counter) for name, counter in now.items())
        self._last = now


def _grown(last: float, now: float, wraps_at: float | None) -> float:
    """Microjoules since the last reading, across one start at 0."""
    if now >= last:
        return now - last
    if wraps_at is None:
        raise NotMeasurable("a counter was reset during the run")
    return now + wraps_at - last


def packages(powercap: Path) -> Counters:
    """The processor's counters: those of whole packages, by their name.

    Cores and graphics are parts of a package, `psys` holds the packages, and `intel-rapl-mmio` counts them a second
    time: none of them is added. AMD's processors show theirs as `intel-rapl` too.

    Args:
        powercap: /sys/class/powercap, or a folder like it.

    Raises:
        NotMeasurable: there is none, or they cannot be read: since 2020 the kernel shows them to root alone, because
            they betray what others compute (CVE-2020-8694).
    """
    found: Counters = {}
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name.startswith("package"):
                found[name] = (float((zone / "energy_uj").read_text(encoding="ascii")), _range(zone))
    except PermissionError:
        raise NotMeasurable("the processor's counters are readable by root only") from None
    except (OSError, ValueError):
        raise NotMeasurable("the processor's counters cannot be read") from None
    if not found:
        raise NotMeasurable("the processor shows no energy counters")
    return found


def _range(zone: Path) -> float | None:
    path = zone / "max_energy_range_uj"
    return float(path.read_text(encoding="ascii")) if path.exists() else None


def boards() -> Counters:
    """The counters of all NVIDIA boards that `$CUDA_VISIBLE_DEVICES` leaves visible, by UUID.

    Raises:
        NotMeasurable: the module pynvml (package nvidia-ml-py), the driver, a board or its counter is missing.
    """
    nvml, handles = _open_boards()
    visible = dict(_visible(handles))
    if not visible:
        raise NotMeasurable("no NVIDIA GPU is visible")
    try:
        used = {uuid: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for uuid, handle in visible.items()}
    except nvml.NVMLError:  # older than Volta
        raise NotMeasurable("the GPU shows no energy counter") from None
    return {uuid: (1000.0 * millijoules, None) for uuid, millijoules in used.items()}


@cache
def _open_boards() -> tuple[Any, dict[str, Any]]:
    """NVML and all its boards by UUID, opened once: a driver that nobody has open may forget its counters."""
    try:
        import pynvml as nvml
    except ImportError:
        raise NotMeasurable("nvidia-ml-py is not installed") from None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        return nvml, {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    except nvml.NVMLError:
        raise NotMeasurable("no NVIDIA driver answers") from None


def _visible(by_uuid: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """NVML knows nothing of `$CUDA_VISIBLE_DEVICES`: numbers, or beginnings of UUIDs, of what CUDA may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = [word.strip() for word in (given or "").split(",") if word.strip()]
    for number, (uuid, handle) in enumerate(by_uuid.items()):
        named = str(number) in words or any(word.startswith("GPU-") and uuid.startswith(word) for word in words)
        if given is None or named:
            yield uuid, handle


def _cpu_seconds() -> float:
    """Processor time of this process, and of its children that have ended and were waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
