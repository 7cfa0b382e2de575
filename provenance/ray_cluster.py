"""Parts of one piece of work on a Ray cluster: a crew of actors, each with a CPU or a GPU of its own."""

import math
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from provenance.engine import GO_ON
from provenance.errors import UserError

TRIES = 3
"""How often a part may end the process that does it; a lost node or a killed process is no fault of the part."""
ANSWER_WITHIN_S = 10.0
PATIENCE_S = 300.0
BEAT_S = 5.0
GONE_AFTER_S = 25.0
"""Ray ends the process by itself, without a word that helps, when it has not heard of the head for a minute."""


def on_ray(
    parts: list[int], make_worker: Callable[[], Callable[[int], int]], address: str | None, workers: int | None,
    gpu: bool,
) -> Generator[int]:  # fmt: skip
    """Do parts on a cluster, each by whoever is free; see `provenance.engine.each_part`.

    Args:
        parts: their numbers.
        make_worker: called once in each process of the cluster.
        address: `host:port` of the head; None for $RAY_ADDRESS, else a cluster of this machine alone.
        workers: how many at once; None for as many as the cluster has GPUs, or CPUs.
        gpu: take the GPUs, where the cluster has some.

    Yields:
        What the work says of each part, in the order in which they are finished.

    Raises:
        UserError: no Ray, no cluster, or a part that ended its process again and again.
    """
    with _joined(address or os.environ.get("RAY_ADDRESS") or "local") as ray:
        found = ray.cluster_resources()
        kind = "GPU" if gpu and found.get("GPU") else "CPU"
        n = min(workers or int(found.get(kind, 0)), len(parts))
        if n == 0:
            raise UserError("the Ray cluster has no CPU to give: start its nodes with --num-cpus, or give --workers")
        # spread: with fewer workers than places the load is to be on all nodes
        actor = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=int(kind == "GPU"), max_restarts=0, scheduling_strategy="SPREAD"
        )
        yield from _crew(ray, lambda: actor.remote(), make_worker, parts, n)


class _Worker:
    """A process of the cluster."""

    def start(self, make_worker: Callable[[], Callable[[int], int]]) -> int:
        """Open what the work needs; not when the actor is made, where an error would look like a lost process."""
        self._work = make_worker()
        return 0

    def do(self, part: int) -> int:
        return self._work(part)


def _crew(
    ray: Any, hire: Callable[[], Any], make_worker: Callable[[], Callable[[int], int]], parts: list[int], n: int
) -> Generator[int]:
    """Give parts to workers that have started; in place of one that is lost hire another, on whatever node there is.

    A part is given only to a worker that runs, so that none waits for a node that never comes back while others idle.
    """
    todo, lost = deque(parts), Counter[int | None]()

    def begin() -> tuple[Any, tuple[Any, int | None]]:
        worker = hire()
        return worker.start.remote(make_worker), (worker, None)

    doing: dict[Any, tuple[Any, int | None]] = dict(begin() for _ in range(n))
    while todo or any(part is not None for _, part in doing.values()):
        ready = _first(ray, list(doing), f"waiting for one of {n} workers: is the cluster busy, or are its nodes gone?")
        worker, part = doing.pop(ready)
        try:
            count = ray.get(ready)
        except ray.exceptions.RayTaskError as error:  # what the work itself raised
            raise error.cause from error
        except ray.exceptions.RayError as error:
            lost[part] += 1
            if lost[part] >= TRIES * (n if part is None else 1):
                raise UserError(_ended(part, lost[part], error)) from error
            if part is not None:
                todo.appendleft(part)
            doing.update([begin()])
            continue
        lost.pop(part, None)
        if part is not None:
            yield count
        if todo:
            part = todo.popleft()
            doing[worker.do.remote(part)] = (worker, part)


def _first(ray: Any, answers: list[Any], note: str) -> Any:
    """The first answer that comes; where there is none for long, a note, once: a bar that stands still says nothing.

    Ray goes on waiting for a cluster that is gone, so its head is asked whether it lives. One that is restarted in time
    is not missed.
    """
    began = heard = time.monotonic()
    while True:
        ready, _ = ray.wait(answers, timeout=BEAT_S)
        if ready:
            return ready[0]
        now, head = time.monotonic(), ray.get_runtime_context().gcs_address
        if _refusal(head) is None:
            heard = now
        elif now - heard > GONE_AFTER_S:
            raise UserError(f"the head of the Ray cluster at {head} is gone: {GO_ON}")
        if now - began > PATIENCE_S:
            print(note, file=sys.stderr)
            began = math.inf


def _ended(part: int | None, times: int, error: Exception) -> str:
    which = "its start" if part is None else f"part {part}"
    return (
        f"{which} ended a worker of the Ray cluster {times} times ({str(error).strip().splitlines()[0]}): see to "
        f"memory and to the same installation on all nodes; {GO_ON}"
    )


@contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Ray, connected; without its dashboard, and without a word to its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when a cluster starts
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray, which is optional: pip install 'ray[data]>=2.40'") from error
    if address not in ("auto", "local"):
        _refuse_dead(address)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises what it likes here, Exception itself included
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"Ray at {address}: {reason}; run this on a node of the cluster, see docs/scale.md") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_dead(address: str) -> None:
    """Ask the port: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}: give host:port of the cluster's head, as `ray start --head` names it")
    if reason := _refusal(address):
        raise UserError(f"no Ray cluster answers at {address} ({reason}): start one with `ray start --head`")


def _refusal(address: str) -> Exception | None:
    """Why nobody answers there; None if somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        return error
    return None
