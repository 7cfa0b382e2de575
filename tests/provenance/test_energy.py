"""Counters planted in a folder like /sys/class/powercap, a made-up NVML, and what a run notes of both."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provenance import energy
from provenance.energy import PARTS, WORLD_G_CO2_PER_KWH, Meter, NotMeasurable, Spent, grams_per_kwh, packages
from provenance.errors import UserError
from provenance.files import read_json, replacing, write_json
from provenance.run import PROJECT, Run, RunSettings, resumed, started
from provenance.settings import entry

WH = 3_600_000_000
"""Microjoules."""
HERE = {"name": "lake", "fingerprint": "f00d", "path": "lake"}


@dataclass(frozen=True)
class Settings:
    """Settings of a made-up script."""

    common: RunSettings = field(default_factory=RunSettings)


class Zones:
    """A planted folder of power-capping zones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plant(self, zone: str, name: str, uj: int, top: int | None = 200 * WH) -> None:
        folder = self.root / zone
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{uj}\n")
        if top is not None:
            (folder / "max_energy_range_uj").write_text(f"{top}\n")

    def now(self, uj: int, zone: str = "intel-rapl:0") -> None:
        with replacing(self.root / zone / "energy_uj") as beside:  # a reader never sees half of it, as in sysfs
            beside.write_text(f"{uj}\n")


class Nvml:
    """The four functions of pynvml that are used, on planted boards: UUID -> millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self, boards: dict[str, int]) -> None:
        self.boards, self.driver, self.counter = boards, True, True

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> str:  # noqa: N802
        return list(self.boards)[number]

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.counter:
            raise self.NVMLError
        return self.boards[handle]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without counters, whatever this one has."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # so that importing it fails
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(energy.OWN_GRID, raising=False)
    energy._open_boards.cache_clear()
    yield
    energy._open_boards.cache_clear()


@pytest.fixture
def zones(tmp_path: Path) -> Zones:
    planted = Zones(tmp_path / "powercap")
    planted.plant("intel-rapl:0", "package-0", 10 * WH)
    return planted


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    planted = Nvml({"GPU-aa11": 5_000_000, "GPU-bb22": 1_000_000})
    monkeypatch.setitem(sys.modules, "pynvml", planted)  # type: ignore[arg-type]
    return planted


@pytest.fixture
def common(tmp_path: Path) -> RunSettings:
    return RunSettings(work_dir=tmp_path)


# --- the processor's counters


def test_whole_packages_are_added_and_nothing_twice(zones: Zones) -> None:
    zones.plant("intel-rapl:1", "package-1", 7, top=50)
    zones.plant("intel-rapl:0:0", "core", 3)
    zones.plant("intel-rapl:2", "psys", 99)
    zones.plant("intel-rapl-mmio:0", "package-0", 88)
    (zones.root / "intel-rapl").mkdir()
    assert packages(zones.root) == {"package-0": (10 * WH, 200 * WH), "package-1": (7, 50)}
    meter = Meter()
    zones.now(13 * WH)
    zones.now(20 + WH, "intel-rapl:2")
    assert meter.spent().energy_wh["cpu"] == pytest.approx(3)


def test_energy_is_that_since_the_start(zones: Zones) -> None:
    meter = Meter()
    assert meter.spent().energy_wh == {"cpu": 0, "gpu": None}
    zones.now(12 * WH)
    assert meter.spent().energy_wh["cpu"] == pytest.approx(2)
    zones.now(12 * WH + WH // 2)
    assert meter.spent().energy_wh["cpu"] == pytest.approx(2.5), "counted once, however often it is read"


def test_a_counter_that_starts_again_at_zero_goes_on(zones: Zones) -> None:
    zones.now(195 * WH)
    meter = Meter()
    zones.now(3 * WH)
    assert meter.spent().energy_wh["cpu"] == pytest.approx(8)
    zones.now(190 * WH)
    meter.spent()
    zones.now(1 * WH)
    assert meter.spent().energy_wh["cpu"] == pytest.approx(8 + 187 + 11), "twice, because it was read between"


def test_a_counter_that_falls_without_a_range_is_not_guessed(zones: Zones) -> None:
    (zones.root / "intel-rapl:0/max_energy_range_uj").unlink()
    meter = Meter()
    zones.now(1)
    spent = meter.spent()
    assert spent.energy_wh["cpu"] is None
    assert spent.not_measured["cpu"] == "a counter was reset during the run"
    zones.now(20 * WH)
    assert meter.spent().energy_wh["cpu"] is None, "once lost, the sum stays unknown"


def test_a_package_that_comes_late_is_not_guessed(zones: Zones) -> None:
    meter = Meter()
    zones.plant("intel-rapl:1", "package-1", 7)
    assert meter.spent().not_measured["cpu"] == "a counter came or went during the run"


def test_no_counters_are_said_and_cost_nothing_else() -> None:
    spent = Meter().spent()
    assert spent.energy_wh == dict.fromkeys(PARTS)
    assert spent.not_measured == {
        "cpu": "the processor shows no energy counters", "gpu": "nvidia-ml-py is not installed",
    }  # fmt: skip
    assert spent.seconds is not None
    assert spent.measured_wh is None


def test_counters_of_root_are_said(zones: Zones, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in, because the tests may run as root, who reads everything."""
    real = Path.read_text

    def refused(path: Path, *args: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(NotMeasurable, match="readable by root only"):
        packages(zones.root)
    assert Meter().spent().energy_wh["cpu"] is None


@pytest.mark.parametrize("content", ["", "many", "\xb5"])
def test_a_counter_that_is_no_number_is_not_measurable(zones: Zones, content: str) -> None:
    (zones.root / "intel-rapl:0/energy_uj").write_text(content, encoding="utf-8")
    with pytest.raises(NotMeasurable, match="cannot be read"):
        packages(zones.root)


# --- the GPU's counters


def test_all_boards_are_added_in_millijoules(nvml: Nvml) -> None:
    meter = Meter()
    nvml.boards["GPU-aa11"] += 3_600_000
    nvml.boards["GPU-bb22"] += 1_800_000
    assert meter.spent().energy_wh == {"cpu": None, "gpu": pytest.approx(1.5)}


@pytest.mark.parametrize(("visible", "wh"), [("0", 1.0), ("1", 0.5), (" 1 , 0", 1.5), ("GPU-bb", 0.5)])
def test_boards_that_cuda_may_not_use_are_not_counted(
    nvml: Nvml, visible: str, wh: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = Meter()
    nvml.boards["GPU-aa11"] += 3_600_000
    nvml.boards["GPU-bb22"] += 1_800_000
    assert meter.spent().energy_wh["gpu"] == pytest.approx(wh)


def test_without_driver_counter_or_board_it_is_said(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.counter = False
    assert Meter().spent().not_measured["gpu"] == "the GPU shows no energy counter"
    nvml.counter = True
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Meter().spent().not_measured["gpu"] == "no NVIDIA GPU is visible"
    energy._open_boards.cache_clear()
    nvml.driver = False
    assert Meter().spent().not_measured["gpu"] == "no NVIDIA driver answers"


def test_a_driver_that_was_reloaded_is_not_guessed(nvml: Nvml) -> None:
    meter = Meter()
    nvml.boards["GPU-aa11"] = 0
    assert meter.spent().not_measured["gpu"] == "a counter was reset during the run"


# --- CO2


def test_the_worlds_average_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grams_per_kwh() == WORLD_G_CO2_PER_KWH == 445
    monkeypatch.setenv(energy.OWN_GRID, " 56.5 ")
    assert grams_per_kwh() == 56.5
    monkeypatch.setenv(energy.OWN_GRID, "0")
    assert grams_per_kwh() == 0


@pytest.mark.parametrize("wrong", ["green", "-1", "nan", "inf", "56 g"])
def test_a_wrong_factor_is_one_line_before_anything_starts(
    wrong: str, common: RunSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(energy.OWN_GRID, wrong)
    with pytest.raises(UserError, match="NUNATAK_G_CO2_PER_KWH"), started("vae", Settings(), common, dict(HERE)):
        pass
    assert not (common.work / "runs").exists(), "no folder of a run that never was"
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as stopped:
        entry(Settings, lambda _: pytest.fail("it has started"))
    assert stopped.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint == (
        f"error: $NUNATAK_G_CO2_PER_KWH is '{wrong}': give grams of CO2 per kWh, for example 56, or unset it\n"
    )


# --- sums


def test_sums_know_what_they_do_not_know() -> None:
    known = Spent(10.0, 20.0, {"cpu": 1.0, "gpu": 2.0}, {})
    half = Spent(1.0, None, {"cpu": 0.5, "gpu": None}, {"gpu": "no driver"})
    assert known + known == Spent(20.0, 40.0, {"cpu": 2.0, "gpu": 4.0}, {})
    assert known + half == half + known == Spent(11.0, None, {"cpu": 1.5, "gpu": None}, {"gpu": "no driver"})
    assert (known + half).measured_wh == 1.5


def test_fields_and_back() -> None:
    spent = Spent(10.0, 20.0, {"cpu": 1.0, "gpu": None}, {"gpu": "no driver"})
    fields = json.loads(json.dumps(spent.fields(100.0)))
    assert fields == {
        "seconds": 10.0, "cpu_seconds": 20.0, "energy_wh": {"cpu": 1.0, "gpu": None},
        "not_measured": {"gpu": "no driver"}, "g_co2_per_kwh": 100.0, "co2_g": pytest.approx(0.1),
    }  # fmt: skip
    assert Spent.of(fields) == spent
    older = Spent.of({"seconds": 3.0})
    assert older == Spent(3.0, None, dict.fromkeys(PARTS), dict.fromkeys(PARTS, "not noted"))
    assert older.fields(100.0)["co2_g"] is None


# --- runs


def test_a_run_notes_what_it_cost(
    zones: Zones, nvml: Nvml, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(energy.OWN_GRID, "100")
    with started("vae", Settings(), common, dict(HERE)) as run:
        zones.now(14 * WH)
        nvml.boards["GPU-aa11"] += 3_600_000
        assert list(run.path.glob("spent.json"))
    info = run.info
    assert info["energy_wh"] == {"cpu": pytest.approx(4), "gpu": pytest.approx(1)}
    assert (info["co2_g"], info["g_co2_per_kwh"], info["not_measured"]) == (pytest.approx(0.5), 100, {})
    assert not list(run.path.glob("spent.json"))


def test_processor_time_is_that_of_threads_and_children(common: RunSettings) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    with started("vae", Settings(), common, dict(HERE)) as run:
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert 0.5 <= run.info["cpu_seconds"] < 30
    with started("vae", Settings(), common, dict(HERE)) as idle:
        time.sleep(0.3)
    assert idle.info["seconds"] >= 0.3
    assert idle.info["cpu_seconds"] < 0.3, "sleeping costs none"


def failed(common: RunSettings, zones: Zones, uj: int) -> Run:
    with suppress(RuntimeError), started("vae", Settings(), common, dict(HERE)) as run:
        zones.now(uj)
        time.sleep(0.1)
        raise RuntimeError("loss is NaN")
    return run


def test_a_failed_run_notes_it_too_and_a_resumed_one_adds(zones: Zones, common: RunSettings) -> None:
    run = failed(common, zones, 12 * WH)
    first = run.info
    assert first["status"] == "failed"
    assert first["energy_wh"]["cpu"] == pytest.approx(2)
    zones.now(50 * WH)  # between the stretches: somebody else's
    with resumed(run):
        zones.now(55 * WH)
        time.sleep(0.1)
    info = run.info
    assert info["energy_wh"]["cpu"] == pytest.approx(2 + 5)
    assert info["co2_g"] == pytest.approx(7e-3 * 445)
    assert first["seconds"] + 0.1 <= info["seconds"] < first["seconds"] + 30
    assert info["cpu_seconds"] >= first["cpu_seconds"]


def test_a_run_that_was_killed_is_known_up_to_its_last_note(zones: Zones, common: RunSettings) -> None:
    run = failed(common, zones, 12 * WH)
    run.record(status="running")  # what a kill leaves: run.json of the start, and the last note
    spent = Spent(100.0, 200.0, {"cpu": 30.0, "gpu": None}, {"gpu": "no NVIDIA driver answers"})
    write_json(run.path / "spent.json", spent.fields(445))
    with resumed(run):
        zones.now(13 * WH)
    info = run.info
    assert info["energy_wh"]["cpu"] == pytest.approx(31)
    assert 100 < info["seconds"] < 130
    assert 200 <= info["cpu_seconds"] < 230


def test_stretches_of_unknown_cost_make_the_sum_unknown(zones: Zones, common: RunSettings) -> None:
    run = failed(common, zones, 12 * WH)
    older = {name: value for name, value in run.info.items() if name not in ("cpu_seconds", "energy_wh")}
    write_json(run.path / "run.json", older)
    with resumed(run):
        zones.now(13 * WH)
    info = run.info
    assert (info["cpu_seconds"], info["energy_wh"]["cpu"], info["co2_g"]) == (None, None, None)
    assert info["not_measured"]["cpu"] == "not noted"
    assert info["seconds"] > older["seconds"]


def test_counters_are_read_and_noted_meanwhile(zones: Zones, tmp_path: Path) -> None:
    """A counter that wraps twice during a run is followed, and a kill loses what came after the last note alone."""
    meter, note = Meter(), tmp_path / "spent.json"

    def noted(wh: float) -> bool:
        energy_wh = read_json(note)["energy_wh"]["cpu"]
        return bool(energy_wh == pytest.approx(wh))

    with meter.noting(note, every=0.01):
        for now, total in ((150, 140), (10, 200), (160, 350), (5, 395)):
            zones.now(now * WH)
            until = time.monotonic() + 30
            while not noted(total) and time.monotonic() < until:
                time.sleep(0.005)
            assert noted(total)
    assert meter.spent().energy_wh["cpu"] == pytest.approx(395)


def test_a_killed_process_leaves_its_note(zones: Zones, common: RunSettings, tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from provenance import energy
energy.POWERCAP = pathlib.Path({str(zones.root)!r})
from provenance.run import RunSettings, started
common = RunSettings(work_dir=pathlib.Path({str(common.work)!r}))
with started("vae", common, common, {HERE!r}):
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == -9
    (path,) = (common.work / "runs" / "vae").iterdir()
    run = Run(path)
    assert run.info["status"] == "running"
    assert read_json(path / "spent.json")["energy_wh"]["cpu"] == 0
    with resumed(run):
        zones.now(11 * WH)
    assert run.info["status"] == "finished"
    assert run.info["energy_wh"]["cpu"] == pytest.approx(1)
