import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.train_icelearning import Settings, main
from provenance.errors import UserError
from provenance.settings import parse

FLAGS = (
    "--task 3-class --n-per-class 10 --n-core 30 --n-per-kind 0 --size 16 --n-val 3 --n-test 3 --epochs 1 "
    "--batch-size 64 --precision 32"
)


def test_the_script_trains_tells_and_draws(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = main(parse(Settings, FLAGS.split()))
    told = capsys.readouterr().out
    assert str(run.path) == told.splitlines()[-1]
    (picture,) = (work / "figures").glob("*/confusion-icelearning.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in told
    found = json.loads((run.path / "metrics.json").read_text())
    assert list(found["classes"]) == ["dust", "pollen", "tephra"]
    confusion = pd.read_csv(run.path / "confusion.csv", index_col="truth")
    assert confusion.sum(axis=1).to_dict() == {name: found["classes"][name]["support"] for name in found["classes"]}
    # of 10 dust, 30 pollen, 20 tephra: 15 % at most, three at most
    assert confusion.sum(axis=1).to_dict() == {"dust": 1, "pollen": 3, "tephra": 3}
    assert f"accuracy: {found['accuracy']:.4f}" in told
    assert found["accuracy"] == pytest.approx(sum(confusion.loc[c, c] for c in confusion) / 7)


def test_the_learning_rate_is_the_published_one_and_can_be_changed() -> None:
    assert parse(Settings, []).fit.lr == 1e-4
    assert parse(Settings, ["--lr", "1e-3"]).fit.lr == 1e-3
    settings = parse(Settings, ["--no-use-scalars", "--task", "pollen"])
    assert (settings.classifier.use_scalars, settings.classifier.task) == (False, "pollen")
    assert settings.data.pack.scalars, "what is packed is another matter"


def test_a_class_that_is_not_there_is_named(work: Path) -> None:
    with pytest.raises(UserError, match=r"--task 7-class needs .*, the set has 0, 1, .*; give --task all"):
        main(parse(Settings, ["--data", "digits", "--task", "7-class", "--size", "16"]))
