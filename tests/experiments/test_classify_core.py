import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from encoders import predict
from encoders.classifier import ClassifierTraining
from encoders.two_branch import TwoBranchTraining
from experiments.classify_core import MODELS, Settings, main
from particles.scalars import SCALARS
from particles.sets import DataSettings
from particles.table import MEASURED_COLUMNS, empty_rows
from provenance.errors import UserError
from provenance.run import PROJECT, Run, RunSettings, started

S, SHARDS, ROWS = 16, 12, 6  # rows a shard
CLASSES = ["dust", "grim", "qrob"]
PACKING = {"fit": "keep", "mean_correction": False, "in_um": True, "scalars_by": "instrument"}


def packed(folder: Path, shards: int = SHARDS, in_one_group: bool = False, core_from: int = 2) -> Path:
    """A packed set of noise; rows of the first `core_from` shards, and each third row, are labeled."""
    n, rng = shards * ROWS, np.random.default_rng(5)
    rows = empty_rows(n).assign(**dict.fromkeys(MEASURED_COLUMNS, 1.0))
    rows["particle_id"] = rows["image"] = [f"GRIP_{i}" for i in range(n)]
    labeled = (np.arange(n) < core_from * ROWS) | (np.arange(n) % 3 == 0)
    rows["role"] = np.where(labeled, "labeled", "core")
    rows["label"] = rows["truth"] = "dust"
    rows["core"], rows["bag"], rows["top_cm"], rows["bottom_cm"], rows["um_per_px"] = "GRIP", 3306, 20.0, 40.5, 0.2752
    rows["sample"], rows["volume_ml"] = "GRIP_3306_20_40_1", np.where(np.arange(n) % 2, 0.25, np.nan)
    rows[list(SCALARS)] = rng.lognormal(2, 1, (n, len(SCALARS)))
    (folder / "pixels").mkdir(parents=True)
    rows.to_parquet(folder / "table.parquet", index=False, row_group_size=n if in_one_group else ROWS)
    for number in range(shards):
        np.save(folder / "pixels" / f"{number:05d}.npy", rng.integers(0, 255, (ROWS, S, S), dtype=np.uint8))
    info = {"name": folder.name, "fingerprint": f"of {folder.name}", "size": S, "oriented": False, "n": n,
            "in_um": True, "scalars_by": "instrument"}  # fmt: skip
    settings = {"fit": "keep", "mean_correction": False}
    (folder / "set.json").write_text(json.dumps(info | {"settings": settings, "shards": shards, "rejected": 0}))
    return folder


def finished(model: TwoBranchTraining | ClassifierTraining, work: Path) -> Run:
    """A finished training run that holds `model`."""
    common = RunSettings(work_dir=work)
    with started(str(model.hparams["kind"]), common, common, {"fingerprint": "other"}) as run:
        checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        torch.save(checkpoint, run.path / "best.ckpt")
    return run


@pytest.fixture
def model(work: Path) -> TwoBranchTraining:
    torch.manual_seed(0)
    made = TwoBranchTraining("all", CLASSES, [1.0] * 3, 1e-4, S, True, PACKING)
    made.fit_scaler(np.random.default_rng(1).lognormal(2, 1, (50, len(SCALARS))))
    finished(made, work)
    return made.eval()


def settings_for(folder: Path, work: Path, **changed: object) -> Settings:
    made = Settings(data=DataSettings(data=str(folder)), common=RunSettings(work_dir=work), precision="32")
    return replace(made, **changed)  # type: ignore[arg-type]


def result(run: Run) -> pd.DataFrame:
    return pd.read_parquet(run.path / predict.RESULT)


def expected(model: TwoBranchTraining, folder: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """All rows of a set, their embeddings and probabilities, straight from the network."""
    rows = pd.read_parquet(folder / "table.parquet")
    images = np.concatenate([np.load(path) for path in sorted((folder / "pixels").iterdir())])
    x = torch.from_numpy(images)[:, None].float() / 255
    with torch.inference_mode():
        z, logits = model.net(x, torch.tensor(rows[list(SCALARS)].to_numpy(dtype=np.float32)))
    return rows, z.numpy(), logits.softmax(dim=1).numpy()


@pytest.mark.parametrize("in_one_group", [False, True])
def test_each_core_particle_gets_what_the_network_says_of_it(
    model: TwoBranchTraining, tmp_path: Path, work: Path, in_one_group: bool
) -> None:
    folder = packed(tmp_path / "core", in_one_group=in_one_group)
    found = result(main(settings_for(folder, work)))
    rows, z, p = expected(model, folder)
    core = (rows["role"] == "core").to_numpy()
    assert 0 < core.sum() < len(rows)
    assert found["particle_id"].tolist() == rows.loc[core, "particle_id"].tolist()
    columns = [f"prob_{name}" for name in CLASSES]
    np.testing.assert_allclose(found[columns].to_numpy(), p[core], atol=1e-5)
    np.testing.assert_allclose(found[[f"e{i:02d}" for i in range(64)]].to_numpy(), z[core], atol=1e-5)
    assert found["predicted"].tolist() == [CLASSES[i] for i in found[columns].to_numpy().argmax(axis=1)]
    assert found["confidence"].tolist() == found[columns].max(axis=1).tolist()
    carried = ["sample", "core", "bag", "top_cm", "bottom_cm", "repeat", "volume_ml"]
    pd.testing.assert_frame_equal(found[carried], rows.loc[core, carried].reset_index(drop=True), check_dtype=False)
    assert found["e00"].dtype == found["confidence"].dtype == np.float32


def test_all_rows_or_the_core_alone(model: TwoBranchTraining, tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "core", shards=3)
    assert len(result(main(settings_for(folder, work, all_rows=True)))) == 18
    core = DataSettings(data=str(tmp_path / "unread"), core=str(folder))
    assert len(result(main(settings_for(folder, work, data=core)))) == 18, "--core is a core, whatever it was before"
    run = main(settings_for(folder, work))
    assert run.results["n"] == len(result(run)) == 4
    assert run.results["predicted"] == {name: int((result(run)["predicted"] == name).sum()) for name in CLASSES}
    assert run.info["parents"][0].startswith("icelearning/")


def test_labeled_particles_alone_are_no_core(model: TwoBranchTraining, tmp_path: Path, work: Path) -> None:
    with pytest.raises(UserError, match="no row of this set belongs to a core: give --all-rows"):
        main(settings_for(packed(tmp_path / "labeled", shards=2), work))


def test_csv_says_the_same(model: TwoBranchTraining, tmp_path: Path, work: Path) -> None:
    run = main(settings_for(packed(tmp_path / "core"), work, csv=True))
    told = pd.read_csv(run.path / "predictions.csv", dtype={f"e{i:02d}": np.float32 for i in range(64)})
    exact = result(run)
    pd.testing.assert_frame_equal(told, exact, check_dtype=False, check_exact=False, rtol=1e-6)


def test_a_classifier_run_is_taken_too(tmp_path: Path, work: Path) -> None:
    torch.manual_seed(1)
    made = ClassifierTraining(CLASSES, [1.0] * 3, 1e-3, S, n_measures=4).eval()
    finished(made, work)
    folder = packed(tmp_path / "core", shards=3)
    found = result(main(settings_for(folder, work, model="classifier", all_rows=True)))
    images = np.concatenate([np.load(path) for path in sorted((folder / "pixels").iterdir())])
    with torch.inference_mode():
        features = made.net.trunk(torch.from_numpy(images)[:, None].float() / 255)
    np.testing.assert_allclose(found[[f"e{i:03d}" for i in range(512)]].to_numpy(), features.numpy(), atol=1e-5)
    assert set(MODELS) == {"icelearning", "classifier"}


def test_a_classifier_run_does_not_judge_squares_made_in_another_way(tmp_path: Path, work: Path) -> None:
    run = finished(ClassifierTraining(CLASSES, [1.0] * 3, 1e-3, S, n_measures=4), work)
    run.record(data={"fingerprint": "other", "squares": {"fit": "squash", "mean_correction": False}})
    with pytest.raises(UserError, match=r"with fit = squash, this one has keep: give --fit squash"):
        main(settings_for(packed(tmp_path / "core", shards=3), work, model="classifier", all_rows=True))


def killed_when(command: list[str], parts: Path, most: int, delay: float) -> bool:
    """Run and kill with SIGKILL some time after `most` parts are written; True if it was killed before its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < until:
        if len(list(parts.glob("*/parts/0*.parquet"))) >= most:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_killed_classification_goes_on_and_ends_with_the_same_bytes(
    model: TwoBranchTraining, tmp_path: Path, work: Path
) -> None:
    folder = packed(tmp_path / "core", shards=150)
    unbroken = main(settings_for(folder, work, csv=True))
    for path in (work / "runs" / "predictions").iterdir():
        path.rename(tmp_path / path.name)
    whole = {name: (tmp_path / unbroken.path.name / name).read_bytes() for name in (predict.RESULT, "predictions.csv")}
    script = [sys.executable, str(PROJECT / "experiments" / "classify_core.py")]
    first = [*script, "--data", str(folder), "--precision", "32", "--csv", "--work-dir", str(work)]
    rng, parts = random.Random(), work / "runs" / "predictions"
    most = rng.randrange(1, 70)
    assert killed_when(first, parts, most, rng.random() / 20)
    (path,) = parts.iterdir()
    survived = {part.name: part.stat().st_mtime_ns for part in path.glob("parts/0*.parquet")}
    assert most <= len(survived) < 150
    assert not (path / predict.RESULT).exists()
    finished(TwoBranchTraining("all", ["other", "model"], [1.0] * 2, 1e-4, S, True, PACKING), work)  # newer, not meant
    again = [*script, "--resume", str(path)]
    if killed_when(again, parts, rng.randrange(len(survived), 150), rng.random() / 20):
        kept = {name: (path / "parts" / name) for name in survived}
        assert all(kept[n].stat().st_mtime_ns == before for n, before in survived.items() if kept[n].exists())
        subprocess.run(again, check=True, capture_output=True)
    for name, content in whole.items():
        assert (path / name).read_bytes() == content
    assert Run(path).info["status"] == "finished"
    assert not [left.name for left in path.rglob("*") if left.name.startswith(".") or left.name == "parts"]


class StoppedError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("step", ["pq.ParquetWriter", "write_json", "_write_csv", "shutil.rmtree"])
def test_a_kill_while_the_parts_are_joined_loses_nothing(
    model: TwoBranchTraining, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = packed(tmp_path / "core", shards=4)
    whole = main(settings_for(folder, work, csv=True))

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.setattr(f"encoders.predict.{step}", stop)
    with pytest.raises(StoppedError):
        main(settings_for(folder, work, csv=True))
    monkeypatch.undo()
    broken = max((work / "runs" / "predictions").iterdir())
    again = main(Settings(resume=broken))
    assert again.path == broken != whole.path
    for name in (predict.RESULT, "predictions.csv", "metrics.json"):
        assert (broken / name).read_bytes() == (whole.path / name).read_bytes()
    assert not (broken / "parts").exists()


def test_a_resume_onto_other_data_is_refused(model: TwoBranchTraining, tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "core", shards=3)
    run = main(settings_for(folder, work))
    info = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps(info | {"fingerprint": "changed"}))
    with pytest.raises(UserError, match=r"its packed set .*core is gone or changed"):
        main(Settings(resume=run.path))
    (trained,) = (work / "runs" / "icelearning").iterdir()
    for wrong in (trained, tmp_path / "nowhere", work / "runs" / "predictions" / "nowhere"):
        with pytest.raises(UserError, match=r"^--resume .*: not a classification to go on with; start a new one"):
            main(Settings(resume=wrong))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fit": "squash"}, "with fit = keep, this one has squash: give --fit keep"),
        ({"mean_correction": True}, "mean_correction = False, this one has True: give --no-mean-correction"),
        ({"size": 32}, None),
    ],
)
def test_a_set_packed_in_another_way_is_refused(
    model: TwoBranchTraining, tmp_path: Path, work: Path, changed: dict[str, object], message: str | None
) -> None:
    folder = packed(tmp_path / "core", shards=3)
    info = json.loads((folder / "set.json").read_text())
    info["settings"] |= changed
    (folder / "set.json").write_text(json.dumps(info))
    if message is None:
        np.save(folder / "pixels" / "00000.npy", np.zeros((ROWS, 32, 32), np.uint8))
        message = "trained on 16 px images, this data has 32 px: give --size 16"
    with pytest.raises(UserError, match=message):
        main(settings_for(folder, work))


@pytest.mark.parametrize(
    ("learned", "changed", "message"),
    [
        ({}, {"in_um": False}, r"in_um = True, this one has False: give --um-per-px"),
        (
            {},
            {"scalars_by": "pixels"},
            "scalars_by = instrument, this one has pixels: give crops with the",
        ),
        ({}, {"scalars_by": "nobody"}, "this one has nobody: give a set packed without --no-scalars"),
        ({"scalars_by": "pixels"}, {}, "scalars_by = pixels, this one has instrument: give --no-instrument-scalars"),
    ],
)
def test_scalars_measured_in_another_way_are_refused(
    model: TwoBranchTraining, tmp_path: Path, work: Path, learned: dict[str, str], changed: dict[str, object],
    message: str,
) -> None:  # fmt: skip
    folder = packed(tmp_path / "core", shards=3)
    info = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps(info | changed))
    model.hparams["packing"] = PACKING | learned
    finished(model, work)
    with pytest.raises(UserError, match=message):
        main(settings_for(folder, work))
    blind = TwoBranchTraining("all", CLASSES, [1.0] * 3, 1e-4, S, False, PACKING | learned)
    finished(blind, work)
    main(settings_for(folder, work))  # a model that reads no scalars does not care


def test_what_cannot_be_judged_is_said_in_one_line(tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "core", shards=3)
    with pytest.raises(UserError, match="--model vae: no such classifier; there are icelearning, classifier"):
        main(settings_for(folder, work, model="vae"))
    with pytest.raises(UserError, match=r"no finished run 'icelearning'.*train_icelearning\.py"):
        main(settings_for(folder, work))


@pytest.mark.parametrize(("name", "given"), [("held_out", ("grim",)), ("extra_labels", Path("marks.csv"))])
def test_what_is_for_a_training_is_refused(tmp_path: Path, work: Path, name: str, given: object) -> None:
    how = DataSettings(data=str(packed(tmp_path / "core", shards=3)), **{name: given})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')}: .* training.*; leave it away$"):
        main(settings_for(tmp_path, work, data=how))


def test_no_such_core_is_named_by_its_flag(model: TwoBranchTraining, work: Path) -> None:
    with pytest.raises(UserError, match=r"^--core /nowhere: no such folder"):
        main(settings_for(Path("synthetic"), work, data=DataSettings(core="/nowhere")))


def test_a_table_that_does_not_fit_its_pixels_is_refused(model: TwoBranchTraining, tmp_path: Path, work: Path) -> None:
    folder = packed(tmp_path / "core", shards=3)
    pq.write_table(pq.read_table(folder / "table.parquet").slice(0, 17), folder / "table.parquet")
    with pytest.raises(UserError, match="its table and its pixels differ in length"):
        main(settings_for(folder, work))


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_same_core_twice_gives_the_same_bytes(
    model: TwoBranchTraining, tmp_path: Path, work: Path, precision: str
) -> None:
    folder = packed(tmp_path / "core")
    one, other = (main(settings_for(folder, work, precision=precision)) for _ in range(2))
    assert (one.path / predict.RESULT).read_bytes() == (other.path / predict.RESULT).read_bytes()
    assert one.info["precision"] == {"32": "32-true", "bf16": "bf16-mixed"}[precision]
