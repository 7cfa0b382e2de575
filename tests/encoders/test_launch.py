"""What cannot be launched is refused in one line, before anything is begun."""

import pytest
import torch

from encoders.fit import FitSettings
from encoders.launch import check_devices, launcher, led, together, trainer_options
from provenance.errors import UserError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"devices": 0}, "--devices 0: give at least 1"),
        ({"num_nodes": 0}, "--num-nodes 0: give at least 1"),
        ({"strategy": "fsdp"}, "--strategy fsdp: there are auto, ddp"),
        ({"devices": 4, "num_nodes": 2, "batch_size": 7}, "--batch-size 7 cannot be shared by 8 processes"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, int], line: str) -> None:
    with pytest.raises(UserError, match=line):
        FitSettings(**settings)  # type: ignore[arg-type]


def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.launch.cores", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_devices(3, 1)
    with pytest.raises(UserError, match=r"--devices 4: this machine has 3 CPU core\(s\) and no GPU; give at most 3"):
        check_devices(4, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"--devices 3: this machine has 2 GPU\(s\); give at most 2"):
        check_devices(3, 1)


def test_nodes_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--num-nodes 2: start it with torchrun or srun on every node"):
        check_devices(1, 2)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    check_devices(1, 4)
    with pytest.raises(UserError, match="4 processes were started, but --devices 1 and --num-nodes 2 are for 2"):
        check_devices(1, 2)


def test_a_batch_script_without_srun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS_PER_NODE", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        assert launcher() is None, "one that waited here would wait for processes that nobody starts"
        monkeypatch.setenv(name, "4")
    found = launcher()
    assert found is not None
    assert found.world_size() == 4


def test_one_process_needs_nothing() -> None:
    done: list[int] = []
    together(done.append, (3,), devices=1, num_nodes=1)
    assert done == [3]
    assert trainer_options(1, 1) == {"devices": 1}
    assert led(len)("four") == 4
