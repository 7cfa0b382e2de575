"""Independent parts of one piece of work, each done exactly once, on this machine or on a Ray cluster.

A part is done when what it writes is there. Parts depend on nothing but their number, so that any process may do any of
them, in any order, and one that was lost with its process is done again by another.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from provenance.errors import UserError
from provenance.progress import progress

Work = Callable[[int], int]
"""Does the part of a number and says how much that was, in the unit of the progress bar."""

GO_ON = "finished parts are kept; give the same command again (encode.py with --resume RUN)"
"""What to do after a loss."""
SEEN_WITHIN_S = 60.0
"""A network file system may show another machine's file only after its cache has aged, on NFS a minute at most."""


@dataclass(frozen=True)
class EngineSettings:
    """Who does the parts. It decides nothing about the result."""

    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: a Ray cluster whose nodes share a file system."""
    address: str | None = None
    """Ray: host:port of the cluster's head; default $RAY_ADDRESS, else a cluster of this machine alone."""
    workers: int | None = None
    """Processes at once; default one for each CPU that this process may use, or, encoding, one where it has a GPU; on a
    cluster one for each of its GPUs, where there are none one for each CPU."""


def each_part(
    sizes: Sequence[int],
    done: Callable[[int], bool],
    make_worker: Callable[[], Work],
    where: EngineSettings,
    what: str,
    gpu: bool = False,
) -> None:
    """Do the parts that are not done yet, with a progress bar.

    Args:
        sizes: of each part, in the unit of the progress bar.
        done: whether what a part writes is there, whole.
        make_worker: called once in each process that does parts, so it must be picklable; it opens what the work needs.
            The work writes its part under another name and renames it, because a part may be begun more than once.
        where: who does the parts.
        what: stands beside the bar.
        gpu: each process may have one of a cluster's GPUs.

    Raises:
        UserError: settings that contradict each other, a cluster that cannot be joined, a part that ends each process
            that tries it, or what the work itself raises. Parts that are done stay done.
    """
    refuse_contradiction(where)
    missing = [part for part in range(len(sizes)) if not done(part)]
    if not missing:
        return
    if where.engine == "local":
        counts = _here(missing, make_worker, where.workers or cores())
    else:
        from provenance.ray_cluster import on_ray  # Ray is optional, and slow to import

        counts = on_ray(missing, make_worker, where.address, where.workers, gpu)
    with progress() as bars, closing(counts):
        bar = bars.add_task(what, total=sum(sizes), completed=sum(sizes) - sum(sizes[part] for part in missing))
        for count in counts:
            bars.advance(bar, count)
    _wait_until_seen(missing, done)


def cores() -> int:
    """Those that this process may use, where the system tells (a batch system may lend few of many)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_contradiction(where: EngineSettings) -> None:
    """Raise a UserError where settings contradict each other, which is better said before there is a run."""
    if where.workers is not None and where.workers < 1:
        raise UserError(f"--workers {where.workers}: give 1 or more")
    if where.engine == "local" and where.address:
        raise UserError(f"--address {where.address} is of a Ray cluster: give --engine ray too, or leave it away")


def _here(parts: list[int], make_worker: Callable[[], Work], workers: int) -> Generator[int]:
    """The parts in this process, or in several."""
    workers = min(workers, len(parts))
    if workers == 1:
        work = make_worker()
        yield from (work(part) for part in parts)
        return
    # spawn: a process forked from one that has threads (torch's) may wait forever for a lock that nobody holds
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make_worker,))
    try:
        for finished in as_completed([pool.submit(_do, part) for part in parts]):
            yield finished.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} worker processes was killed, out of memory perhaps: {GO_ON}, and fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# What a worker process of `_here` keeps between parts.
_make_worker: Callable[[], Work] | None = None
_work: Work | None = None


def _start(make_worker: Callable[[], Work]) -> None:
    global _make_worker
    _make_worker = make_worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; a part that has begun is finished
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """A process that its parent started must not outlive it: to wait forever, or to write to a run that is resumed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(part: int) -> int:
    global _work
    if _work is None:  # not at the start of the process, where an error would only break the pool
        assert _make_worker is not None
        _work = _make_worker()
    return _work(part)


def _wait_until_seen(parts: list[int], done: Callable[[int], bool]) -> None:
    until = time.monotonic() + SEEN_WITHIN_S
    while unseen := [part for part in parts if not done(part)]:
        if time.monotonic() > until:
            raise UserError(
                f"{len(unseen)} parts were done, but this machine does not see them: the folder of the run must be on "
                "a file system that all nodes share (--work-dir)"
            )
        time.sleep(0.5)
