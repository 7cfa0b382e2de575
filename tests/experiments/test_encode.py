"""Encoding part by part: the same latents as in one go, whoever computes, however often it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import experiments.encode
from autoencoders.encode import encode_autoencoder
from autoencoders.training import AutoencoderTraining
from encoders.classifier import ClassifierTraining
from encoders.encode import Encoder, encode_classifier
from encoders.parts import Parts
from experiments.encode import Settings, main
from particles.latents import Latents, read_latents
from particles.sets import DataSettings, open_set
from particles.table import MEASURED_COLUMNS, empty_rows
from provenance.engine import EngineSettings
from provenance.errors import UserError
from provenance.run import Run, RunSettings, started

S, SHARDS, SHARD_ROWS, ROWS = 16, 7, 16, 24  # rows a part: parts do not end where shards do
N = SHARDS * SHARD_ROWS
SQUARES = {"fit": "keep", "mean_correction": False}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.encode, "PART_ROWS", ROWS)
    torch.manual_seed(0)


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A packed set of noise."""
    folder, rng = tmp_path / "core", np.random.default_rng(5)
    rows = empty_rows(N).assign(**dict.fromkeys(MEASURED_COLUMNS, 1.0))
    rows["particle_id"] = rows["image"] = [f"GRIP_{i}" for i in range(N)]
    rows["role"] = "core"
    (folder / "pixels").mkdir(parents=True)
    rows.to_parquet(folder / "table.parquet", index=False, row_group_size=SHARD_ROWS)
    for number in range(SHARDS):
        np.save(folder / "pixels" / f"{number:05d}.npy", rng.integers(0, 255, (SHARD_ROWS, S, S), dtype=np.uint8))
    info = {"name": "core", "fingerprint": "f", "size": S, "oriented": False, "n": N, "settings": SQUARES}
    (folder / "set.json").write_text(json.dumps(info | {"shards": SHARDS, "rejected": 0}))
    return folder


def vae() -> AutoencoderTraining:
    return AutoencoderTraining("vae", 3, S, "gaussian", 0, 1e-3, 1.0).eval()


def classifier() -> ClassifierTraining:
    return ClassifierTraining(["dust", "grim"], [1.0, 1.0], 1e-3, S).eval()


def finished(model: AutoencoderTraining | ClassifierTraining, work: Path) -> Run:
    """A finished training run that holds `model`."""
    common = RunSettings(work_dir=work)
    data = {"fingerprint": "other", "squares": SQUARES}
    with started(str(model.hparams["kind"]), common, common, data) as run:
        checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        torch.save(checkpoint, run.path / "best.ckpt")
    return run


def settings_for(core: Path, work: Path, **changed: Any) -> Settings:
    where = EngineSettings(workers=changed.pop("workers", 1))
    made = Settings(data=DataSettings(data=str(core)), common=RunSettings(work_dir=work), where=where)
    return replace(made, **changed)


def one_go(core: Path, work: Path, encode: Callable[..., Latents], *args: Any) -> Latents:
    return encode(*args[:1], open_set(DataSettings(data=str(core)), RunSettings(work_dir=work)), *args[1:])


def bytes_of(run: Run) -> list[bytes]:
    return [(run.path / name).read_bytes() for name in ("z.npy", "index.parquet")]


def same_index(run: Run, expected: Latents, **how: Any) -> None:
    pd.testing.assert_frame_equal(read_latents(run.path).index, expected.index, **how)


def test_parts_joined_are_the_encoding_in_one_go(core: Path, work: Path) -> None:
    model = vae()
    finished(model, work)
    run = main(settings_for(core, work))
    expected = one_go(core, work, encode_autoencoder, model.net, 0)
    np.testing.assert_allclose(read_latents(run.path).z, expected.z, atol=1e-5)
    assert np.ptp(expected.z, axis=0).min() > 1e-3
    same_index(run, expected, rtol=1e-4)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "index.parquet", "run.json", "z.npy"]
    assert run.info["status"] == "finished"
    assert run.info["parents"][0].startswith("vae/")


def test_one_part_is_the_encoding_in_one_go_to_the_last_bit(
    core: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments.encode, "PART_ROWS", N)
    model = classifier()
    finished(model, work)
    run = main(settings_for(core, work, latent="classifier"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = one_go(core, work, encode_classifier, model)
    torch.set_num_threads(threads)
    assert read_latents(run.path).z.tobytes() == expected.z.tobytes()
    same_index(run, expected, check_exact=True)
    assert {"predicted", "confidence", "neg_max_logit", "prob_dust", "prob_grim"} < set(expected.index)


def test_two_processes_write_the_same_bytes_as_one(core: Path, work: Path) -> None:
    finished(vae(), work)
    threads = torch.get_num_threads()
    alone = main(settings_for(core, work))
    assert bytes_of(main(settings_for(core, work, workers=2))) == bytes_of(alone)
    assert torch.get_num_threads() == threads


def test_parts_are_slices_that_cover_every_row_once() -> None:
    parts = Parts(Path("x"), 50, 24)
    assert [parts.slice(i) for i in range(len(parts))] == [slice(0, 24), slice(24, 48), slice(48, 50)]
    assert [parts.size(i) for i in range(len(parts))] == [24, 24, 2]
    assert [len(Parts(Path("x"), n, 24)) for n in (1, 24, 25)] == [1, 1, 2]


def killed_in_the_middle(core: Path, work: Path, least: int) -> Path:
    """Start an encoding, kill it with SIGKILL when `least` parts are written; its run folder."""
    code = f"import experiments.encode as e; e.PART_ROWS = {ROWS}; e.entry(e.Settings, e.main)"
    flags = ["--data", str(core), "--work-dir", str(work), "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-c", code, *flags], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:
        if len(list(work.glob("runs/vae/*/parts/0*.npy"))) >= least:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    return next(iter(work.glob("runs/vae/*/parts"))).parent


def test_a_killed_encoding_goes_on_and_ends_with_the_same_bytes(core: Path, work: Path) -> None:
    finished(vae(), work)
    unbroken = bytes_of(main(settings_for(core, work)))
    path = killed_in_the_middle(core, work, least=1)
    time.sleep(3)  # processes of the killed command end with it
    assert not (path / "z.npy").exists()
    finished(vae(), work)  # a newer model: the run keeps to its own
    (path / ".z.123.npy").write_bytes(b"half")
    run = main(Settings(resume=path))
    assert run.path == path
    assert bytes_of(run) == unbroken
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "index.parquet", "run.json", "z.npy"]
    assert run.info["status"] == "finished"
    assert bytes_of(main(Settings(resume=path))) == unbroken, "a finished one has nothing left to do"


def test_only_missing_and_cut_parts_are_done_again(core: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(vae(), work)
    write, written = Parts.write, []

    def fails_late(self: Parts, part: int, z: np.ndarray, columns: pd.DataFrame) -> None:
        if part == 3:
            raise OSError(28, "No space left on device")
        write(self, part, z, columns)

    monkeypatch.setattr(Parts, "write", fails_late)
    with pytest.raises(OSError, match="No space"):
        main(settings_for(core, work))
    (parts,) = work.glob("runs/vae/*/parts")
    assert sorted(p.name for p in parts.glob("0*.npy")) == ["00000.npy", "00001.npy", "00002.npy"]
    assert Run(parts.parent).info["status"] == "failed"
    for name in ("00001.npy", "00002.parquet"):
        (parts / name).write_bytes((parts / name).read_bytes()[:-3])

    def noted(self: Parts, part: int, z: np.ndarray, columns: pd.DataFrame) -> None:
        written.append(part)
        write(self, part, z, columns)

    monkeypatch.setattr(Parts, "write", noted)
    run = main(Settings(resume=parts.parent, where=EngineSettings(workers=1)))
    assert written == [1, 2, 3, 4]
    assert bytes_of(run) == bytes_of(main(settings_for(core, work)))


def test_a_worker_process_that_is_killed_ends_the_command_with_one_line(
    core: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(vae(), work)
    monkeypatch.setattr(experiments.encode, "_loader", lambda model, seed: os.abort)
    with pytest.raises(UserError, match=r"was killed, out of memory perhaps: finished parts are kept.*--resume"):
        main(settings_for(core, work, workers=2))


def test_a_shard_that_is_missing_or_cut_is_named(core: Path, work: Path) -> None:
    finished(vae(), work)
    shard = core / "pixels" / "00004.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(UserError, match=r"00004\.npy: packed pixels cannot be read"):
        main(settings_for(core, work))
    shard.unlink()
    with pytest.raises(UserError, match=r"00004\.npy: packed pixels cannot be read"):
        main(settings_for(core, work))
    assert not list(work.glob("runs/vae/*/parts"))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (EngineSettings(address="10.0.0.1:6379"), r"--address 10\.0\.0\.1:6379 is of a Ray cluster: give --engine ray"),
        (EngineSettings(workers=0), "--workers 0: give 1 or more"),
    ],
)
def test_contradictions_are_refused_before_there_is_a_run(core: Path, work: Path, where: Any, says: str) -> None:
    finished(vae(), work)
    before = list(work.glob("runs/*/*"))
    with pytest.raises(UserError, match=says):
        main(settings_for(core, work, where=where))
    assert list(work.glob("runs/*/*")) == before


def test_what_is_no_encoding_cannot_be_gone_on_with(core: Path, work: Path) -> None:
    run = finished(vae(), work)
    for path in (run.path, work / "nothing"):
        with pytest.raises(UserError, match="not an encoding to go on with"):
            main(Settings(resume=path))


def test_data_that_has_changed_is_not_gone_on_with(core: Path, work: Path) -> None:
    finished(vae(), work)
    run = main(settings_for(core, work))
    info = json.loads((core / "set.json").read_text())
    (core / "set.json").write_text(json.dumps(info | {"fingerprint": "other"}))
    with pytest.raises(UserError, match="its data has changed since"):
        main(Settings(resume=run.path))


def test_an_address_that_came_with_the_run_does_not_bind_a_local_resume(core: Path, work: Path) -> None:
    finished(vae(), work)
    run = main(settings_for(core, work))
    config = json.loads((run.path / "config.json").read_text())
    config["where"] |= {"engine": "ray", "address": "10.0.0.1:6379"}
    (run.path / "config.json").write_text(json.dumps(config))
    where = EngineSettings(engine="local", address="10.0.0.1:6379")
    assert main(Settings(resume=run.path, where=where)).path == run.path


def dies_at_its_second_part_once(mark: Path, load: Callable[[], Encoder]) -> Encoder:
    """An encoder whose process is killed in the middle of its second part, the first time that this happens."""
    encoder, seen = load(), []

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, pd.DataFrame]:
        seen.append(len(x))
        if len(seen) == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return encoder.encode(x)

    return replace(encoder, encode=encode)


@pytest.mark.ray
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(
    core: Path, work: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished(vae(), work)
    alone = bytes_of(main(settings_for(core, work)))
    mark, loader = tmp_path / "killed", experiments.encode._loader
    dying = partial(dies_at_its_second_part_once, mark)
    monkeypatch.setattr(experiments.encode, "_loader", lambda model, seed: partial(dying, loader(model, seed)))
    run = main(settings_for(core, work, where=EngineSettings("ray", two_nodes.address)))
    assert mark.exists()
    assert bytes_of(run) == alone
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "index.parquet", "run.json", "z.npy"]


@pytest.mark.ray
def test_a_shard_that_a_cluster_does_not_find_is_named_and_the_rest_can_be_done_here(
    core: Path, work: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(vae(), work)
    with monkeypatch.context() as patch:
        there = experiments.encode.encode_in_parts

        def loses_a_shard(*args: Any) -> None:
            (core / "pixels" / "00004.npy").rename(core / "elsewhere.npy")
            there(*args)

        patch.setattr(experiments.encode, "encode_in_parts", loses_a_shard)
        with pytest.raises(UserError, match=r"00004\.npy: packed pixels cannot be read"):
            main(settings_for(core, work, where=EngineSettings("ray", two_nodes.address)))
    (core / "elsewhere.npy").rename(core / "pixels" / "00004.npy")
    (path,) = (p.parent for p in work.glob("runs/vae/*/parts"))
    run = main(Settings(resume=path, where=EngineSettings(workers=1)))
    assert bytes_of(run) == bytes_of(main(settings_for(core, work)))
