"""Classify every particle of a core: `python experiments/classify_core.py --model icelearning --data PATH`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from encoders.arithmetic import Precision, best_device, resolve_precision
from encoders.classifier import ClassifierTraining, load_classifier
from encoders.predict import RESULT, Judge, Shards, classify
from encoders.train_two_branch import packing_of
from encoders.two_branch import TwoBranchTraining, load_two_branch
from particles.sets import DataSettings, packed_folder, refuse_other_squares, squares_of
from provenance.errors import UserError
from provenance.files import read_json
from provenance.progress import show_table
from provenance.run import Run, RunSettings, find, resumed, started
from provenance.settings import entry, replayed

KIND = "predictions"


@dataclass(frozen=True)
class Settings:
    """Class, confidence and embedding of every particle of a core."""

    model: str = "icelearning"
    """icelearning or classifier: the newest finished training run; <kind>/<id> pins one."""
    all_rows: bool = False
    """Classify labeled particles too."""
    csv: bool = False
    """Write predictions.csv too."""
    precision: Precision = "auto"
    """auto: bf16 where the processor has instructions for it, twice as fast; 32: float32 everywhere."""
    resume: Path | None = None
    """Folder of a killed run to go on with, with the settings it was started with."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


MODELS: dict[str, Callable[[Path], TwoBranchTraining | ClassifierTraining]] = {
    "icelearning": load_two_branch,
    "classifier": load_classifier,
}


def main(settings: Settings) -> Run:
    """Classify every particle of a core with a trained classifier; --resume goes on after a kill."""
    if settings.resume:
        return _go_on(settings.resume.resolve(), settings.csv)
    kind = settings.model.partition("/")[0]
    if kind not in MODELS:
        raise UserError(f"--model {settings.model}: no such classifier; there are {', '.join(MODELS)}")
    if settings.data.held_out:
        raise UserError("--held-out: classes are held out of training, not of a classification; leave it away")
    if settings.data.extra_labels:
        raise UserError("--extra-labels: marks are for a training to learn from, not a classification; leave it away")
    model = find(settings.model, settings.common.work, "best.ckpt", data=None)
    data, flag = (settings.data.core, "--core") if settings.data.core else (settings.data.data, "--data")
    folder = packed_folder(data, settings.data, settings.common, print, flag)
    with started(KIND, settings, settings.common, _identity(folder), [model]) as run:
        run.record(precision=resolve_precision(settings.precision))
        return _classified(run, model, folder, settings)


def _go_on(path: Path, csv: bool) -> Run:
    """The settings, the model and the set are those of the killed run, whatever is newest now."""
    run = Run(path)
    if run.kind != KIND or not (path / "run.json").is_file() or "precision" not in run.info:
        raise UserError(f"--resume {path}: not a classification to go on with; start a new one without --resume")
    folder, data = Path(run.info["data"]["path"]), run.info["data"]
    if not (folder / "set.json").is_file() or _identity(folder) != data:
        raise UserError(f"--resume {path}: its packed set {folder} is gone or changed; start anew without --resume")
    before = replayed(Settings, path)
    settings = replace(before, csv=csv or before.csv)
    with resumed(run):
        return _classified(run, Run(path.parent.parent / run.info["parents"][0]), folder, settings)


def _classified(run: Run, model: Run, folder: Path, settings: Settings) -> Run:
    every = settings.all_rows or settings.data.core is not None or not settings.data.use_labels
    trained = MODELS[model.kind](model.path / "best.ckpt")
    if isinstance(trained, TwoBranchTraining):
        _refuse_other_packing(trained, packing_of(folder), model.name)
    else:
        refuse_other_squares(model.name, model.info["data"].get("squares", {}), squares_of(folder))
    device = best_device()
    judge = Judge(trained.to(device), bf16=run.info["precision"] == "bf16-mixed")
    run.record(device=str(device))
    classify(judge, Shards(folder), run.path, every, settings.csv)
    found = run.results
    shares = [[name, n, n / found["n"]] for name, n in found["predicted"].items()]
    show_table(f"{found['n']} particles, classified by {model.name}", ["class", "particles", "share"], shares)
    print(run.path / RESULT)
    return run


def _identity(folder: Path) -> dict[str, Any]:
    info = read_json(folder / "set.json")
    return {"name": info["name"], "fingerprint": info["fingerprint"], "path": str(folder)}


def _refuse_other_packing(model: TwoBranchTraining, given: dict[str, Any], name: str) -> None:
    """Squares and scalars made in another way: the model would answer, and be wrong."""
    learned = dict(model.hparams["packing"])
    of_scalars = {key: learned.pop(key) for key in ("in_um", "scalars_by") if key in learned}
    refuse_other_squares(name, learned, given)
    for key, value in of_scalars.items():
        if model.hparams["with_scalars"] and given[key] != value:
            raise UserError(f"{name} learned from a set with {key} = {value}, this one has {given[key]}: "
                            f"give {_way_out(key, value, given[key])}")  # fmt: skip


def _way_out(key: str, learned: Any, given: Any) -> str:
    """What makes the scalars of a set like those that a model has learned from."""
    if key == "in_um":
        return "--um-per-px" if learned else "crops without --um-per-px"
    if given == "nobody":
        return "a set packed without --no-scalars, or a model trained with --no-use-scalars"
    if learned == "pixels":
        return "--no-instrument-scalars"
    return "crops with the instrument's table, or a model trained with --no-instrument-scalars"


if __name__ == "__main__":
    entry(Settings, main)
