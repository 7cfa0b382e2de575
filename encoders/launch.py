"""Who trains: this process, several that it starts for the time of a fit, or those that torchrun or SLURM have started.

Only the fit is shared. One process, the first of a launch, reads and packs the data, makes the run folder, encodes and
draws; the others are handed each training by it and have nothing to find out by themselves.
"""

import copy
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessException

from encoders.ranks import GlobalBatchNorms
from provenance.engine import cores, end_with_parent
from provenance.errors import UserError

S = TypeVar("S")
STRATEGIES = ("auto", "ddp")
"""auto is ddp where there is more than one process; models of 50 MB gain nothing from being split up."""

_START = "forkserver"
_HEAVY = "encoders.pretrain"  # a module that imports what takes long, once for all processes
_PATIENCE = timedelta(days=30)  # how long those who wait for the first process let it pack, encode and draw


def launcher() -> ClusterEnvironment | None:
    """What has started this process together with others; None where it is alone.

    Raises:
        UserError: SLURM was asked for tasks in a way that Lightning does not take.
    """
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind is SLURMEnvironment and "SLURM_STEP_NUM_TASKS" not in os.environ:
            continue  # in a batch job, but not started by srun: there are no others to wait for
        if kind.detect():
            try:
                found = kind()
            except RuntimeError as error:
                raise UserError(f"SLURM: {error}") from error
            return found if found.world_size() > 1 else None
    return None


def check_devices(devices: int, num_nodes: int) -> None:
    """Whether this machine, and what has started this process, can give the processes that are asked for.

    Raises:
        UserError: more than there are, several nodes without a launcher, or a launcher that started another number.
    """
    gpus = torch.cuda.device_count()
    there, kind = (gpus, "GPU(s)") if gpus else (cores(), "CPU core(s) and no GPU")
    if devices > max(1, there):
        raise UserError(f"--devices {devices}: this machine has {there} {kind}; give at most {there}")
    others = launcher()
    if others is None:
        if num_nodes > 1:
            way_out = "start it with torchrun or srun on every node (docs/scale.md)"
            raise UserError(f"--num-nodes {num_nodes}: {way_out}")
    elif others.world_size() != devices * num_nodes:
        raise UserError(f"{others.world_size()} processes were started, but --devices {devices} and --num-nodes "
                        f"{num_nodes} are for {devices * num_nodes}; make them agree")  # fmt: skip


def trainer_options(devices: int, num_nodes: int) -> dict[str, Any]:
    """Arguments of Lightning's Trainer, in a process that takes part."""
    if devices * num_nodes == 1:
        return {"devices": 1}
    on_gpu = torch.cuda.is_available()
    # Unused parameters: where no row of a batch has a label, the classifier's head must stay as it is. Buffers need no
    # sending, because batch norm is the same everywhere.
    strategy = DDPStrategy(
        cluster_environment=launcher() or LightningEnvironment(), find_unused_parameters=True, broadcast_buffers=False
    )
    return {
        "devices": devices, "num_nodes": num_nodes, "strategy": strategy, "accelerator": "gpu" if on_gpu else "cpu",
        "use_distributed_sampler": False, "sync_batchnorm": on_gpu, "plugins": [] if on_gpu else [GlobalBatchNorms()],
    }  # fmt: skip


def together(task: Callable[..., None], args: tuple[Any, ...], devices: int, num_nodes: int) -> None:
    """Do a task in this process, or in all that take part.

    Args:
        task: a function of a module; it may use `torch.distributed` where there are several processes.
        args: its arguments, which are pickled for other processes. Those that are started here get copies: what the
            task has made of them must be read from where it was written.
        devices: processes on each node, one for each GPU.
        num_nodes: nodes.

    Raises:
        UserError: a process was killed.
    """
    if devices * num_nodes == 1:
        task(*args)
    elif launcher() is None:
        _spawned(task, args, devices)
    else:
        _tell((task, args))
        task(*args)


def led(main: Callable[[S], Any]) -> Callable[[S], Any]:
    """Let the first process of a launch run `main`, and the others help wherever it trains.

    If `main` fails, so does the first process; the others see its connection close and stop too.
    """

    @wraps(main)
    def leading(settings: S) -> Any:
        others = launcher()
        if others is None:
            return main(settings)
        _join(others)
        if others.global_rank() > 0:
            return _serve()
        done = main(settings)
        _tell(None)
        return done

    return leading


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _join(others: ClusterEnvironment) -> None:
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = others.main_address, str(others.main_port)
    if torch.cuda.is_available():
        torch.cuda.set_device(others.local_rank())
    dist.init_process_group(_backend(), rank=others.global_rank(), world_size=others.world_size())
    _Waiting.room = dist.new_group(backend="gloo", timeout=_PATIENCE)


class _Waiting:
    """The group in which processes wait; apart from that of the training, whose patience is minutes."""

    room: Any = None


def _tell(job: tuple[Callable[..., None], tuple[Any, ...]] | None) -> None:
    """Hand a task to the other processes of a launch; None sends them home."""
    dist.broadcast_object_list([job], src=0, group=_Waiting.room)


def _serve() -> None:
    while True:
        told: list[Any] = [None]
        try:
            dist.broadcast_object_list(told, src=0, group=_Waiting.room)
        except RuntimeError as error:
            raise UserError("the first process of this launch has stopped; its message says why") from error
        if told[0] is None:
            return
        task, args = told[0]
        task(*args)


def _spawned(task: Callable[..., None], args: tuple[Any, ...], devices: int) -> None:
    # Not fork: neither CUDA nor OpenMP survives it. Not spawn: every process of every training would import torch anew.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or each of them says that DDP looks for unused parameters
    multiprocessing.get_context(_START).set_forkserver_preload([_HEAVY])
    with TemporaryDirectory() as folder:
        started = multiprocessing.start_processes(
            _take_part, (devices, Path(folder) / "meeting", task, args), devices, join=False, daemon=True,
            start_method=_START,
        )  # fmt: skip
        assert started is not None
        try:
            while not started.join():
                pass
        except ProcessException:
            _name_the_killed(started)
            _pass_on(Path(folder) / "error")
            raise
        finally:
            for process in started.processes:
                process.terminate()


def _name_the_killed(started: ProcessContext) -> None:
    """Where one was killed, the others fail too for want of it: theirs is not the message."""
    for rank, process in enumerate(started.processes):
        code = process.exitcode or 0
        if code < 0 and -code != signal.SIGTERM:  # with which those that are left were ended
            name = signal.Signals(-code).name
            raise UserError(f"process {rank} of the training was killed ({name}; a system out of memory does that): "
                            "go on with --resume RUN, or --go-on where the command has it") from None  # fmt: skip


def _pass_on(told: Path) -> None:
    if told.exists():
        raise UserError(told.read_text(encoding="utf-8")) from None


def _take_part(rank: int, devices: int, meeting: Path, task: Callable[..., None], args: tuple[Any, ...]) -> None:
    """One of the processes that `_spawned` has started."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    dist.init_process_group(_backend(), init_method=f"file://{meeting}", rank=rank, world_size=devices)
    # torch hands tensors over in shared memory: without a copy all processes would train the same numbers
    try:
        task(*(copy.deepcopy(arg) if isinstance(arg, torch.nn.Module) else arg for arg in args))
    except (UserError, OSError) as error:  # what a user can mend; the others then fail for want of this one
        with suppress(FileExistsError), (meeting.parent / "error").open("x", encoding="utf-8") as told:
            told.write(str(error))
        raise
    dist.destroy_process_group()
