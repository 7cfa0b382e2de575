"""The digit sets: known counts, known pixels, the splits their makers gave."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from particles.sources.digits import Digits, Mnist
from particles.splits import assign
from particles.table import validated
from provenance.errors import UserError


def test_scikit_digits_are_all_there() -> None:
    rows = validated(Digits().rows(), "digits")
    assert len(rows) == 1797
    assert rows["label"].value_counts().sort_index().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert rows["particle_id"].iloc[[0, -1]].tolist() == ["digit_0000", "digit_1796"]
    assert (rows["truth"] == rows["label"]).all()


def test_scikit_digits_have_their_pixels() -> None:
    rows = Digits().rows()
    first = Digits().read(rows.iloc[0])
    assert (first.shape, first.dtype) == ((8, 8), np.uint8)
    # 0 0 5 13 9 1 0 0 of 16 in the data set's own description
    assert first[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert Digits().read(rows.iloc[1796]).max() == 255


def test_missing_mnist_says_where_it_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no MNIST under") as error:
        Mnist(tmp_path).rows()
    assert str(tmp_path / "mnist" / "MNIST" / "raw") in str(error.value)
    assert "--data digits" in str(error.value)


def test_cut_mnist_files_are_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"\0\0\x08")
    with pytest.raises(UserError, match="the MNIST files are not whole"):
        Mnist(tmp_path).rows()


@pytest.fixture(scope="module")
def mnist_rows() -> pd.DataFrame:
    import os

    return validated(Mnist(Path(os.environ["NUNATAK_DATA"])).rows(), "mnist")


@pytest.mark.mnist
def test_mnist_is_all_there(mnist_rows: pd.DataFrame) -> None:
    assert mnist_rows["split"].value_counts().to_dict() == {"train": 60000, "test": 10000}
    counts = mnist_rows.groupby("split")["label"].value_counts()
    assert (counts["train", "1"], counts["train", "5"], counts["test", "0"]) == (6742, 5421, 980)
    assert mnist_rows["label"].iloc[:5].tolist() == ["5", "0", "4", "1", "9"]
    assert mnist_rows["label"].iloc[60000:60005].tolist() == ["7", "2", "1", "0", "4"]


@pytest.mark.mnist
def test_mnist_has_its_pixels(mnist_rows: pd.DataFrame, data_root: Path) -> None:
    five = Mnist(data_root).read(mnist_rows.iloc[0])
    assert (five.shape, five.dtype, five.max()) == ((28, 28), np.uint8, 255)
    assert five[5, 12:18].tolist() == [3, 18, 18, 18, 126, 136]
    seven = Mnist(data_root).read(mnist_rows.iloc[60000])
    assert seven.sum() == 18454


@pytest.mark.mnist
def test_mnist_keeps_its_test_split(mnist_rows: pd.DataFrame) -> None:
    rows = assign(mnist_rows, held_out=["2", "6"])
    core = rows[rows["role"] == "core"]
    assert len(core) == 10000
    assert core["particle_id"].str.startswith("mnist_test_").all()
    assert core["is_outlier"].sum() == 1032 + 958
    train = rows[rows["role"] == "labeled"]
    assert len(train) == 60000 - 5958 - 5918
    assert dict(train["split"].value_counts(normalize=True)) == pytest.approx({"train": 0.9, "val": 0.1}, abs=0.005)
