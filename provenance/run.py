"""A run: one folder for one execution, written before work starts, never reused."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from provenance.energy import Meter, Spent
from provenance.errors import UserError
from provenance.files import made, read_json, write_json
from provenance.settings import plain

PROJECT = Path(__file__).resolve().parent.parent

# Whose versions decide a result; kept in every run.json.
_LIBRARIES = (
    "torch", "torchvision", "lightning", "numpy", "scipy", "scikit-learn", "umap-learn", "hdbscan", "openTSNE",
    "pandas", "pyarrow", "scikit-image", "pillow",
)  # fmt: skip


# The models, and the command that makes a run of each; part of every error that misses one.
TRAINED_BY = {
    "classifier": "python experiments/pretrain_classifier.py",
    "icelearning": "python experiments/train_icelearning.py",
    "ae": "python experiments/train_ae.py",
    "vae": "python experiments/train_vae.py",
    "planar-vae": "python experiments/train_vae.py --flow planar",
}
_MADE_BY = {**TRAINED_BY, "predictions": "python experiments/classify_core.py"}
_SAME_AT_EACH_STEP = (
    "--core, --held-out, --extra-labels and packing flags (--size, --fit, ...) must be the same at each step"
)
LATENTS = ("classifier", "ae", "vae", "planar-vae")
"""The kinds of run whose latents are clustered and searched; `--latent all` means these."""
_SPENT = "spent.json"
"""What a run that is still running, or was killed, has cost; it ends up in run.json."""


@dataclass(frozen=True)
class RunSettings:
    """What every script takes, whatever it does."""

    seed: int = 0
    """Seed of every random choice; the same seed on the same CPU gives the same bytes."""
    work_dir: Path | None = None
    """Where runs/, packed/ and figures/ are written: default $NUNATAK_WORK, else the project folder."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: give a number from 0 to {2**32 - 1}")

    @property
    def work(self) -> Path:
        """The resolved work folder."""
        chosen = self.work_dir or os.environ.get("NUNATAK_WORK") or PROJECT
        return Path(chosen).expanduser().resolve()

    def made_work(self) -> Path:
        """The work folder, made where it is not there.

        Raises:
            UserError: it cannot be made, or not be written into.
        """
        given = self.work_dir is not None or not os.environ.get("NUNATAK_WORK")
        return made(self.work, "--work-dir" if given else "$NUNATAK_WORK (or --work-dir)")


@dataclass(frozen=True)
class Run:
    """The folder of one run."""

    path: Path

    @property
    def kind(self) -> str:
        """What ran: `classifier`, `ae`, `vae`, `planar-vae`, `clusters-vae`, ..."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """`<kind>/<id>`, the form that `--latent` and messages use."""
        return f"{self.kind}/{self.path.name}"

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        return dict(read_json(self.path / "run.json"))

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings the run was started with."""
        return dict(read_json(self.path / "config.json"))

    @property
    def results(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return dict(read_json(self.path / "metrics.json"))

    def record(self, **fields: Any) -> None:
        """Add or replace fields of run.json."""
        write_json(self.path / "run.json", {**self.info, **fields})


@contextmanager
def started(
    kind: str, settings: Any, common: RunSettings, data: dict[str, Any], parents: Sequence[Run] = ()
) -> Iterator[Run]:
    """Create a run folder, yield it, and mark it finished, or failed if the block raises; either way, note its cost.

    Args:
        kind: folder under runs/.
        settings: the script's frozen dataclass, kept whole as config.json.
        common: seed and work folder.
        data: identity of the data (`name`, `fingerprint`, `path`).
        parents: runs whose results this one stands on.

    Raises:
        UserError: `$NUNATAK_G_CO2_PER_KWH` is wrong, or the work folder cannot be written into.
    """
    meter = Meter()
    run = Run(_new_folder(common.made_work() / "runs" / kind, common.seed))
    write_json(run.path / "config.json", plain(settings))
    write_json(
        run.path / "run.json",
        {
            "status": "running", "argv": sys.argv, "seed": common.seed, "started": _now().isoformat(),
            "data": data, "parents": [p.name for p in parents], **code(), "python": sys.version.split()[0],
            "machine": platform.machine(), "system": platform.platform(), "cpus": os.cpu_count(),
            "host": platform.node(), "pid": os.getpid(),
        },
    )  # fmt: skip
    with _closing(run, meter):
        yield run


@contextmanager
def resumed(run: Run) -> Iterator[Run]:
    """Go on with an existing run: running again, then finished or failed.

    `seconds` and all that it cost become the sum over all stretches. Of one that was killed, up to a minute is lost.

    Raises:
        UserError: `$NUNATAK_G_CO2_PER_KWH` is wrong, or the run still runs.
    """
    _refuse_running(run)
    meter = Meter(_spent_before(run))
    gone_on = {"when": _now().isoformat(), **code()}
    run.record(
        status="running", resumed=[*run.info.get("resumed", []), gone_on], host=platform.node(), pid=os.getpid(),
        error=None,
    )  # fmt: skip
    with _closing(run, meter):
        yield run


def _refuse_running(run: Run) -> None:
    """Two writers of one run would lose both. Of another machine's process nothing is known."""
    info = run.info
    if info["status"] != "running" or info.get("host") != platform.node() or info["pid"] == os.getpid():
        return
    try:
        os.kill(info["pid"], 0)
        ended = Path(f"/proc/{info['pid']}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (OSError, ValueError):
        return
    if ended:  # and only not yet asked about by its parent
        return
    raise UserError(f"{run.path}: process {info['pid']} is still at it; wait for it, or stop it first")


def _spent_before(run: Run) -> Spent:
    """What earlier stretches cost: a killed one could not close run.json, which then still says `running`."""
    info, left = run.info, run.path / _SPENT
    return Spent.of(read_json(left) if info["status"] == "running" and left.exists() else info)


@contextmanager
def _closing(run: Run, meter: Meter) -> Iterator[None]:
    try:
        with meter.noting(run.path / _SPENT):
            yield
    except BaseException as error:
        _close(run, meter, status="failed", error=f"{type(error).__name__}: {error}")
        raise
    _close(run, meter, status="finished", finished=_now().isoformat())


def _close(run: Run, meter: Meter, **fields: Any) -> None:
    run.record(**fields, **meter.fields())
    (run.path / _SPENT).unlink(missing_ok=True)  # only now: on a full disk it is all that is left


def find(spec: str, work: Path, needs: str, data: Mapping[str, Any] | None) -> Run:
    """The newest finished run of a kind, or the one that is named.

    Args:
        spec: `vae` for the newest, `vae/<id>` to pin one.
        work: the work folder.
        needs: a file that the run must hold (`z.npy`, `best.ckpt`).
        data: identity of the data that it must have run on (`fingerprint`); None for any. With `name` and how it was
            packed, a run on the same particles packed otherwise is told apart from one on others.

    Raises:
        UserError: there is none.
    """
    others = []
    for run in _finished(spec, work, needs):
        if data is None or run.info["data"].get("fingerprint") == data["fingerprint"]:
            return run
        others.append(run)
    where = " on this data" if data else ""
    remedy = f"`{_MADE_BY.get(spec.partition('/')[0], 'python clustering/run.py --latent all')}` and the same --data"
    way_out = f"make one with {remedy}"
    if data and others:  # most often the same crops, packed in another way
        way_out = f"there is {_nearest(others, data)}: {_SAME_AT_EACH_STEP}; or {way_out}"
    raise UserError(f"no finished run '{spec}'{where} under {work / 'runs'}: {way_out}")


def _nearest(runs: Sequence[Run], data: Mapping[str, Any]) -> str:
    """The newest run on a set of this name, else the newest of all, and in what its data differs."""
    run = next((run for run in runs if run.info["data"].get("name") == data.get("name")), runs[0])
    theirs = run.info["data"]
    said = f"{run.name} on '{theirs['name']}'"
    if theirs["name"] != data.get("name"):
        return said
    before, now = _packed_as(theirs), _packed_as(data)
    differs = [f"{key} {before[key]} (here {now[key]})" for key in before if key in now and before[key] != now[key]]
    return f"{said}, packed with {', '.join(differs)}" if differs else said


def _packed_as(data: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of how a set was packed; an older one says less."""
    size = {"size": data["size"]} if "size" in data else {}
    return size | data.get("squares", {}) | data.get("scalars", {})


def _finished(spec: str, work: Path, needs: str) -> Iterator[Run]:
    """The finished runs of a kind, or the one that is named, that hold a file; newest first."""
    kind, _, wanted = spec.partition("/")
    for path in sorted((work / "runs" / kind).glob("*/run.json"), reverse=True):
        run = Run(path.parent)
        named = not wanted or run.path.name == wanted
        if named and run.info["status"] == "finished" and (run.path / needs).exists():
            yield run


def classifier_beside(runs: Sequence[Run], work: Path, fingerprint: str) -> Run | None:
    """The classifier among `runs`, else the one that they started from, else the newest on this data; None without one.

    Args:
        runs: runs with latents.
        work: the work folder.
        fingerprint: of the data.
    """
    parents = [Run(work / "runs" / name) for run in runs for name in run.info["parents"]]
    named = [
        run for run in [*runs, *parents] if run.kind == "classifier" and (run.path / "index.parquet").exists()
        and run.info["data"]["fingerprint"] == fingerprint
    ]  # fmt: skip
    try:
        return named[0] if named else find("classifier", work, "index.parquet", {"fingerprint": fingerprint})
    except UserError:
        return None  # autoencoders trained from scratch have no classifier beside them


def _new_folder(parent: Path, seed: int) -> Path:
    """`<UTC>-<sha7>[-dirty]-s<seed>`; mkdir refuses a name that exists, so no run is ever reused."""
    commit = _commit()
    while True:
        path = parent / _stamp(commit, seed)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            time.sleep(0.01)


def _stamp(commit: str, seed: int) -> str:
    now = _now()
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{commit}-s{seed}"


def _now() -> datetime:
    return datetime.now(UTC)


def code() -> dict[str, Any]:
    """What decides a result beside settings and data: `commit` and `versions` of the libraries."""
    return {"commit": _commit(), "versions": _versions()}


def _commit() -> str:
    """`<sha7>` or `<sha7>-dirty`; `nogit` where the project is not a checkout."""
    if not (PROJECT / ".git").exists():
        return "nogit"
    try:
        sha = _git("rev-parse", "--short=7", "HEAD")
        return f"{sha}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else sha
    except (OSError, subprocess.CalledProcessError):
        return "nogit"


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(PROJECT), *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a partial install still gets a record of what it has
            found[name] = "not installed"
    return found
