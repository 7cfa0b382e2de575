"""The life of a run: its own folder, running, then finished or failed; and how the next script finds it."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provenance import run as runs
from provenance.errors import UserError
from provenance.run import TRAINED_BY, Run, RunSettings, find, resumed, started

HERE = {"name": "lake", "fingerprint": "f00d", "path": "lake"}
ELSEWHERE = {"name": "sea", "fingerprint": "beef", "path": "sea"}
POND = {"name": "pond", "fingerprint": "cafe"}
START = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class Settings:
    """Settings of a made-up script."""

    held_out: tuple[str, ...] = ("2",)
    common: RunSettings = field(default_factory=RunSettings)


@pytest.fixture
def common(tmp_path: Path) -> RunSettings:
    return RunSettings(seed=7, work_dir=tmp_path)


def finished(common: RunSettings, kind: str = "vae", data: dict[str, str] = HERE, holds: str = "z.npy") -> Run:
    with started(kind, Settings(), common, dict(data)) as run:
        (run.path / holds).touch()
    return run


def failed(common: RunSettings) -> Run:
    with suppress(RuntimeError), started("vae", Settings(), common, dict(HERE)) as run:
        (run.path / "z.npy").touch()
        raise RuntimeError("loss is NaN")
    return run


def clock(monkeypatch: pytest.MonkeyPatch, times: Iterator[datetime]) -> None:
    monkeypatch.setattr(runs, "_now", lambda: next(times))


def test_a_run_is_recorded_before_it_works(common: RunSettings) -> None:
    with started("vae", Settings(common=common), common, dict(HERE)) as run:
        info = run.info
        assert info["status"] == "running"
        assert (info["seed"], info["pid"], info["data"]) == (7, os.getpid(), HERE)
        assert info["argv"] == sys.argv
        assert run.config == {"held_out": ["2"], "common": {"seed": 7, "work_dir": str(common.work_dir)}}
        assert run.path.parent == common.work / "runs" / "vae"
    info = run.info
    assert info["status"] == "finished"
    assert 0 <= info["seconds"] < 60
    assert datetime.fromisoformat(info["started"]) <= datetime.fromisoformat(info["finished"])
    assert "error" not in info


def test_versions_are_those_installed(common: RunSettings) -> None:
    import numpy as np

    assert finished(common).info["versions"]["numpy"] == np.__version__


def test_the_folder_says_when_from_what_and_with_which_seed(common: RunSettings) -> None:
    run = finished(common)
    assert re.fullmatch(r"\d{8}T\d{9}Z-([0-9a-f]{7,}(-dirty)?|nogit)-s7", run.path.name)
    assert run.path.name.split("Z-")[1] == f"{run.info['commit']}-s7"
    assert (run.kind, run.name) == ("vae", f"vae/{run.path.name}")


def test_commit_is_that_of_the_checkout(common: RunSettings) -> None:
    if not (runs.PROJECT / ".git").exists():
        assert finished(common).info["commit"] == "nogit"
        return
    git = ["git", "-C", str(runs.PROJECT), "rev-parse", "--short=7", "HEAD"]
    sha = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert finished(common).info["commit"].removesuffix("-dirty") == sha


@pytest.mark.parametrize("error", [RuntimeError("loss is NaN"), KeyboardInterrupt("now"), SystemExit("enough")])
def test_a_failed_run_says_why(common: RunSettings, error: BaseException) -> None:
    with pytest.raises(type(error)), started("vae", Settings(), common, dict(HERE)) as run:
        raise error
    assert run.info["status"] == "failed"
    assert run.info["error"] == f"{type(error).__name__}: {error}"


def test_parents_are_named(common: RunSettings) -> None:
    parent = finished(common, "classifier")
    with started("vae", Settings(), common, dict(HERE), [parent]) as run:
        pass
    assert run.info["parents"] == [f"classifier/{parent.path.name}"]


def test_two_runs_in_one_millisecond_get_two_folders(common: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [START, START, START + timedelta(milliseconds=1)]
    clock(monkeypatch, iter(times))
    first = runs._new_folder(common.work / "runs" / "vae", 7)
    (first / "z.npy").touch()
    second = runs._new_folder(common.work / "runs" / "vae", 7)
    assert (first.name[:19], second.name[:19]) == ("20250601T120000123Z", "20250601T120000124Z")
    assert list(second.iterdir()) == []


def test_a_resumed_run_goes_on_in_its_folder(common: RunSettings) -> None:
    run = failed(common)
    begun = run.info["started"]
    with resumed(run) as again:
        assert again.info["status"] == "running"
    assert again.path == run.path
    assert (run.info["status"], run.info["started"]) == ("finished", begun)


def test_a_run_that_still_runs_is_not_resumed(common: RunSettings) -> None:
    run = failed(common)
    with subprocess.Popen(["sleep", "60"]) as alive:
        run.record(status="running", pid=alive.pid)
        with pytest.raises(UserError, match=f"process {alive.pid} is still at it"), resumed(run):
            pass
        run.record(host="elsewhere")
        with resumed(run):
            pass
        run.record(status="running", pid=alive.pid, host=platform.node())
        alive.kill()
    with resumed(run):
        pass
    assert run.info["status"] == "finished"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_library_takes_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=f"--seed {seed}: give a number from 0 to 4294967295"):
        RunSettings(seed)


def test_the_newest_finished_run_is_found(common: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = iter(range(1000))
    monkeypatch.setattr(runs, "_now", lambda: START + timedelta(minutes=next(minutes)))
    old, new = finished(common), finished(common)
    assert find("vae", common.work, "z.npy", HERE) == new
    assert find("vae", common.work, "z.npy", None) == new
    assert find(old.name, common.work, "z.npy", HERE) == old, "a pinned run is that run"


def test_failed_and_running_runs_are_passed_over(common: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = iter(range(1000))
    monkeypatch.setattr(runs, "_now", lambda: START + timedelta(minutes=next(minutes)))
    good = finished(common)
    bad = failed(common)
    with started("vae", Settings(), common, dict(HERE)) as running:
        (running.path / "z.npy").touch()
        assert find("vae", common.work, "z.npy", HERE) == good
        for unfit in (bad, running):
            with pytest.raises(UserError, match=unfit.path.name):
                find(unfit.name, common.work, "z.npy", HERE)


def test_a_run_without_the_file_or_on_other_data_is_passed_over(common: RunSettings) -> None:
    good = finished(common)
    finished(common, holds="best.ckpt")
    finished(common, data=ELSEWHERE)
    assert find("vae", common.work, "z.npy", HERE) == good
    assert find("vae", common.work, "z.npy", ELSEWHERE).info["data"] == ELSEWHERE
    with pytest.raises(UserError, match="no finished run 'vae' on this data"):
        find("vae", common.work, "z.npy", POND)


def test_the_newest_run_on_other_data_is_named_with_the_flags_that_may_differ(
    common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crops, packed in another way, are other data: who forgot --size must be told so."""
    minutes = iter(range(1000))
    monkeypatch.setattr(runs, "_now", lambda: START + timedelta(minutes=next(minutes)))
    old, new = finished(common, data=ELSEWHERE), finished(common)
    finished(common, holds="best.ckpt")  # has no latents
    failed(common)
    with pytest.raises(UserError) as missing:
        find("vae", common.work, "z.npy", POND)
    said = str(missing.value)
    assert f"there is {new.name} on 'lake': --core, --held-out, --extra-labels and packing flags (--size" in said
    assert "must be the same at each step; or make one with `python experiments/train_vae.py`" in said
    assert old.name not in said
    with pytest.raises(UserError, match=f"there is {old.name} on 'sea': --core"):
        find(old.name, common.work, "z.npy", HERE)
    with pytest.raises(UserError) as missing:
        find("ae", common.work, "z.npy", POND)
    assert "--size" not in str(missing.value), "where there is none at all, no flag is to blame"


def test_a_run_on_the_same_set_packed_otherwise_is_named_before_a_newer_one_on_another(
    common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = iter(range(1000))
    monkeypatch.setattr(runs, "_now", lambda: START + timedelta(minutes=next(minutes)))
    packed = {"size": 32, "squares": {"fit": "keep"}, "scalars": {"in_um": True}}
    finished(common, data=HERE)  # of an earlier version, which did not note the size
    same = finished(common, data=HERE | packed)
    finished(common, data=ELSEWHERE)
    other = packed | {"name": "lake", "fingerprint": "cafe", "size": 64, "squares": {"fit": "squash"}}
    with pytest.raises(UserError) as missing:
        find("vae", common.work, "z.npy", other)
    assert f"there is {same.name} on 'lake', packed with size 32 (here 64), fit keep (here squash): --core" in str(
        missing.value
    )
    with pytest.raises(UserError, match=f"there is {same.name} on 'lake': --core"):
        find("vae", common.work, "z.npy", other | packed)


def test_a_work_folder_that_cannot_be_written_into_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").touch()
    taken = RunSettings(work_dir=tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"^--work-dir /\S+/notes\.txt: is a file; give another folder"):
        finished(taken)
    below = RunSettings(work_dir=tmp_path / "notes.txt" / "work")
    with pytest.raises(UserError, match=r"^--work-dir /\S+: cannot be made or written into \(Not a directory\); give"):
        finished(below)
    monkeypatch.setenv("NUNATAK_WORK", str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match=r"^\$NUNATAK_WORK \(or --work-dir\) /\S+/notes\.txt: is a file"):
        finished(RunSettings())


@pytest.mark.parametrize("kind", TRAINED_BY)
def test_what_is_missing_names_its_command(common: RunSettings, kind: str) -> None:
    with pytest.raises(UserError) as missing:
        find(kind, common.work, "z.npy", HERE)
    assert f"`{TRAINED_BY[kind]}`" in str(missing.value)
    assert str(common.work / "runs") in str(missing.value)
    script = TRAINED_BY[kind].split()[1]
    assert (runs.PROJECT / script).is_file(), "the command it names is there"


def test_missing_clusters_name_the_clustering(common: RunSettings) -> None:
    with pytest.raises(UserError, match=r"`python clustering/run.py --latent all`"):
        find("consensus", common.work, "outliers.parquet", None)


def test_missing_predictions_name_the_classification(common: RunSettings) -> None:
    for data in (HERE, None):
        with pytest.raises(UserError, match=r"make one with `python experiments/classify_core\.py`"):
            find("predictions", common.work, "predictions.parquet", data)


def test_the_work_folder_is_given_or_set_or_the_project(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RunSettings().work == work
    assert RunSettings(work_dir=tmp_path / "mine").work == tmp_path / "mine"
    monkeypatch.delenv("NUNATAK_WORK")
    assert RunSettings().work == runs.PROJECT
