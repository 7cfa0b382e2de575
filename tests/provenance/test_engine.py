"""Each part is done exactly once, whatever happens to the processes that do them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from provenance import engine, ray_cluster
from provenance.engine import EngineSettings, Work, each_part
from provenance.errors import UserError
from provenance.files import replacing

SIZES = [3, 1, 4, 1, 5, 9, 2, 6]


@dataclass(frozen=True)
class Job:
    """Writes the square of each part's number, and who did it; some parts go wrong."""

    folder: Path
    slow_s: float = 0.0
    together: int = 1  # processes that must have started before a part is done
    kills_once: int | None = None
    kills: int | None = None
    refuses: int | None = None

    def __call__(self) -> Work:
        (self.folder / f"made-{os.getpid()}").touch()
        return self.do

    def do(self, part: int) -> int:
        begun = len(list(self.folder.glob(f"begun-{part}-*")))
        (self.folder / f"begun-{part}-{begun}-{os.getpid()}").touch()
        until = time.monotonic() + 300
        while len(self.processes) < self.together and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(self.slow_s)
        if part == self.kills or (part == self.kills_once and not begun):
            os.kill(os.getpid(), signal.SIGKILL)
        if part == self.refuses:
            raise UserError(f"part {part}: a shard is missing")
        with replacing(self.folder / f"{part}.txt") as beside:
            beside.write_text(str(part**2))
        return SIZES[part]

    def done(self, part: int) -> bool:
        return (self.folder / f"{part}.txt").exists()

    def run(self, where: EngineSettings) -> None:
        each_part(SIZES, self.done, self, where, "squaring")

    def results(self) -> dict[int, int]:
        return {int(p.stem): int(p.read_text()) for p in self.folder.glob("*.txt")}

    def begun(self, part: int) -> int:
        return len(list(self.folder.glob(f"begun-{part}-*")))

    @property
    def processes(self) -> set[int]:
        return {int(p.name.removeprefix("made-")) for p in self.folder.glob("made-*")}


SQUARES = {part: part**2 for part in range(len(SIZES))}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_one_worker_works_in_this_process(job: Job) -> None:
    job.run(EngineSettings(workers=1))
    assert job.results() == SQUARES
    assert job.processes == {os.getpid()}


def test_several_work_in_processes_of_their_own(job: Job) -> None:
    replace(job, together=2).run(EngineSettings(workers=2))
    assert job.results() == SQUARES
    assert len(job.processes) == 2
    assert os.getpid() not in job.processes
    assert all(job.begun(part) == 1 for part in SQUARES)


def test_what_is_done_is_not_done_again(job: Job) -> None:
    for part in (0, 3, 7):
        (job.folder / f"{part}.txt").write_text("-1")
    job.run(EngineSettings(workers=1))
    assert job.results() == SQUARES | dict.fromkeys((0, 3, 7), -1)
    (job.folder / f"made-{os.getpid()}").unlink()
    job.run(EngineSettings())
    assert not job.processes, "where nothing is missing no worker is made"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_mistake_comes_through_and_what_is_done_stays(job: Job, workers: int) -> None:
    with pytest.raises(UserError, match=r"^part 6: a shard is missing$"):
        replace(job, refuses=6).run(EngineSettings(workers=workers))
    assert {0, 1, 2, 3} <= set(job.results())
    job.run(EngineSettings(workers=1))
    assert job.results() == SQUARES
    assert job.begun(0) == 1


def test_a_killed_process_is_said_in_one_line_and_what_is_done_stays(job: Job) -> None:
    with pytest.raises(UserError, match=r"worker processes was killed.*finished parts are kept.*--resume RUN"):
        replace(job, kills=6).run(EngineSettings(workers=2))
    job.run(EngineSettings(workers=1))
    assert job.results() == SQUARES


def test_processes_end_with_a_parent_that_is_killed(job: Job) -> None:
    code = (
        f"from test_engine import Job, Path, EngineSettings as E; Job(Path({str(job.folder)!r}), 60).run(E(workers=2))"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "-c", code, str(job.folder)], env=environ, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(job.processes) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(job.processes) == 2
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in job.processes) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in job.processes if Path(f"/proc/{pid}").exists()]


def test_parts_that_this_machine_does_not_see_are_an_error(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nodes write to folders of their own."""
    monkeypatch.setattr(engine, "SEEN_WITHIN_S", 0.0)
    with pytest.raises(UserError, match=r"8 parts were done, but this machine does not see them.*--work-dir"):
        each_part(SIZES, lambda _: False, job, EngineSettings(workers=1), "squaring")


def test_without_ray_the_way_to_it_is_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine ray needs Ray, which is optional: pip install 'ray\[data\]"):
        job.run(EngineSettings("ray"))


@pytest.fixture
def where(two_nodes: Any) -> EngineSettings:
    return EngineSettings("ray", two_nodes.address)


@pytest.mark.ray
def test_on_ray_both_nodes_work(job: Job, where: EngineSettings) -> None:
    replace(job, together=2).run(where)
    assert job.results() == SQUARES
    assert len(job.processes) == 2
    assert all(job.begun(part) == 1 for part in SQUARES)


@pytest.mark.ray
def test_on_ray_a_part_whose_worker_is_killed_is_done_again(job: Job, where: EngineSettings) -> None:
    replace(job, kills_once=3, slow_s=0.1).run(where)
    assert job.results() == SQUARES
    assert [job.begun(part) for part in SQUARES] == [1, 1, 1, 2, 1, 1, 1, 1]


@pytest.mark.ray
def test_on_ray_a_part_that_kills_every_worker_is_named(job: Job, where: EngineSettings) -> None:
    with pytest.raises(UserError, match=r"part 6 ended a worker of the Ray cluster 3 times.*are kept"):
        replace(job, kills=6).run(where)
    assert job.begun(6) == 3
    assert len(job.results()) >= 5


@pytest.mark.ray
def test_on_ray_a_users_mistake_comes_through(job: Job, where: EngineSettings) -> None:
    with pytest.raises(UserError, match=r"^part 2: a shard is missing$"):
        replace(job, refuses=2).run(where)
    job.run(replace(where, workers=1))
    assert job.results() == SQUARES
    assert job.begun(0) == 1


@pytest.mark.ray
def test_on_ray_a_lost_node_loses_nothing(job: Job, where: EngineSettings, two_nodes: Any) -> None:
    def lose() -> None:
        while not job.results():
            time.sleep(0.05)
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    replace(job, slow_s=1.0, together=2).run(where)
    losing.join()
    assert job.results() == SQUARES


@pytest.mark.ray
@pytest.mark.parametrize("address", ["here", "localhost:port", "127.0.0.1:99999"])
def test_on_ray_what_is_no_address_is_refused(job: Job, address: str) -> None:
    with pytest.raises(UserError, match=address):
        job.run(EngineSettings("ray", address))


@pytest.mark.ray
def test_on_ray_a_dead_address_is_said_at_once(job: Job) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address}.*ray start --head"):
        job.run(EngineSettings("ray", address))
    assert time.monotonic() - began < 30


class Silent:
    """A Ray whose workers never answer, with its head at `gcs_address`."""

    def __init__(self, gcs_address: str) -> None:
        self.gcs_address = gcs_address

    def get_runtime_context(self) -> "Silent":
        return self

    def wait(self, answers: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return [], answers


def test_a_head_that_is_gone_is_said_before_ray_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "GONE_AFTER_S", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match=f"the head of the Ray cluster at {address} is gone: finished parts are kept"):
        ray_cluster._first(Silent(address), ["part"], "waiting")


def test_a_long_wait_for_a_living_cluster_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_cluster, "PATIENCE_S", -1.0)
    with socket.create_server(("127.0.0.1", 0)) as head:
        silent = Silent(f"127.0.0.1:{head.getsockname()[1]}")
        beats = iter([[], [], [], ["part"]])
        monkeypatch.setattr(silent, "wait", lambda answers, timeout: (next(beats), []))
        assert ray_cluster._first(silent, ["part"], "waiting for a worker") == "part"
    assert capsys.readouterr().err.count("waiting for a worker") == 1
