from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from figures.confusion import _percent, confusion, draw_confusion, shares

TRUTH = ["a", "a", "a", "b", "b", "c"]
GUESS = ["a", "a", "b", "b", "a", "b"]


def test_rows_are_truth_and_columns_prediction() -> None:
    counts = confusion(TRUTH, GUESS, ["a", "b", "c", "d"])
    assert counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_recall_precision_and_accuracy() -> None:
    rows, recall, precision, accuracy = shares(confusion(TRUTH, GUESS, ["a", "b", "c"]))
    assert np.allclose(rows.sum(axis=1), 1)
    assert np.allclose(recall, [2 / 3, 1 / 2, 0])
    assert np.allclose(precision, [2 / 3, 1 / 3, np.nan], equal_nan=True)
    assert accuracy == pytest.approx(0.5)


def test_shares_are_rounded_and_only_all_is_100_percent() -> None:
    said = [_percent(share) for share in (8 / 59, 0.0, 0.0004, 0.9994, 0.99999, 1.0, np.nan)]
    assert said == ["13.6 %", "0.0 %", "0.0 %", "99.9 %", "99.9 %", "100 %", "–"]


def test_a_name_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="not among the classes: c"):
        confusion(TRUTH, GUESS, ["a", "b"])


@pytest.mark.parametrize("classes", [["a", "b", "c"], ["a", "b", "c", "a class with a very long name <b> $x$"]])
def test_it_is_drawn_alike_twice(classes: list[str], tmp_path: Path) -> None:
    first = draw_confusion(pd.Series(TRUTH), pd.Series(GUESS), classes, tmp_path / "a.png", "t")
    second = draw_confusion(TRUTH, GUESS, classes, tmp_path / "b.png", "t")
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(first).size[1] > 84 * (len(classes) + 1)


def test_one_class_and_no_particle(tmp_path: Path) -> None:
    assert draw_confusion(["a"], ["a"], ["a"], tmp_path / "1.png", "t").exists()
    assert draw_confusion([], [], ["a"], tmp_path / "0.png", "t").exists()
