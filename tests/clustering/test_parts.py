import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clustering import parts
from clustering.outliers import OutlierSettings, Scoring
from clustering.parts import HERE, Arrays, Rows, Vectors, in_memory, over_rows
from clustering.placing import Placing
from provenance.engine import EngineSettings, Work
from provenance.errors import UserError

RAY = EngineSettings("ray")


@dataclass(frozen=True)
class Sums:
    """Finds the sum of each row, its square, and the number of the row."""

    def __call__(self) -> Rows:
        def find(z: np.ndarray, step: slice) -> Arrays:
            numbers = np.arange(step.start, step.stop)
            return {"sum": z.sum(1), "both": np.stack([z.sum(1), z.sum(1) ** 2], axis=1), "number": numbers}

        return find


def vectors(tmp_path: Path) -> Vectors:
    """The last 70 of 100 rows of a file, in another order."""
    everything = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    np.save(tmp_path / "z.npy", everything)
    rows = np.random.default_rng(1).permutation(np.arange(30, 100))
    return Vectors(everything, rows, tmp_path / "z.npy", tmp_path / "run" / "parts")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cluster of one: the worker is a copy, parts come in any order; gives the numbers of those done."""
    did: list[int] = []

    def each_part(
        sizes: Sequence[int], done: Callable[[int], bool], make: Callable[[], Work], where: EngineSettings, what: str
    ) -> None:
        assert where.engine == "ray"
        work = copy.deepcopy(make)()
        for part in reversed(range(len(sizes))):
            assert not done(part)
            assert work(part) == sizes[part]
            assert done(part)
            did.append(part)

    monkeypatch.setattr(parts, "each_part", each_part)
    monkeypatch.setattr(parts, "SLICE", 16)
    return did


def test_parts_are_joined_in_the_order_of_the_rows(tmp_path: Path, cluster: list[int]) -> None:
    some, told = vectors(tmp_path), list[int]()
    there = over_rows(some, Sums(), RAY, "adding up", told.append)
    assert cluster == [4, 3, 2, 1, 0]
    assert sum(told) == 70
    np.testing.assert_array_equal(there["sum"], some.copied().sum(1))
    np.testing.assert_array_equal(there["number"], np.arange(70))
    here = over_rows(some, Sums(), HERE, "adding up", told.append)
    assert list(here) == list(there)
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])
    assert sum(told) == 140
    assert not (tmp_path / "run" / "parts").exists(), "parts are for the while they are made"


def test_rows_of_rows_are_found_in_the_file(tmp_path: Path, cluster: list[int]) -> None:
    some = vectors(tmp_path)
    chosen = np.array([5, 66, 0, 12])
    np.testing.assert_array_equal(over_rows(some.at(chosen), Sums(), RAY, "x")["sum"], some.copied()[chosen].sum(1))
    assert over_rows(some.at(chosen[:0]), Sums(), HERE, "x") == {}


def test_vectors_in_no_file_stay_in_this_process(tmp_path: Path, cluster: list[int]) -> None:
    z = np.ones((20, 2), np.float32)
    np.testing.assert_array_equal(over_rows(in_memory(z), Sums(), RAY, "x")["sum"], np.full(20, 2.0))
    assert cluster == []


def test_places_and_scores_are_the_same_wherever_they_are_found(tmp_path: Path, cluster: list[int]) -> None:
    some = vectors(tmp_path)
    rng = np.random.default_rng(3)
    fitted = rng.normal(size=(40, 3)).astype(np.float32)
    placing = Placing(fitted, {"one": rng.integers(-1, 3, 40)}, {"umap": rng.normal(size=(40, 2))})
    labels = pd.Series(["dust", "camp"] * 20, dtype="string")
    scoring = Scoring(fitted, labels, np.full(70, -1), OutlierSettings(k=3, trees=10), seed=0)
    for make in (placing, scoring):
        here, there = (over_rows(some, make, where, "x") for where in (HERE, RAY))
        assert set(here) == set(there)
        for name in here:
            np.testing.assert_allclose(here[name], there[name], rtol=1e-6)
    assert {"knn", "whitened", "mahalanobis", "isolation_forest"} == set(here)


@pytest.mark.ray
def test_a_real_cluster_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SLICE", 16)
    some = vectors(tmp_path)
    fitted = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    placing = Placing(fitted, {"one": np.arange(40) % 3}, {"umap": fitted[:, :2]})
    here, there = (over_rows(some, placing, where, "x") for where in (HERE, EngineSettings("ray", workers=2)))
    assert set(here) == {"one", "umap"}
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-6)


def test_a_shard_that_is_gone_is_named(tmp_path: Path, cluster: list[int]) -> None:
    some = vectors(tmp_path)
    (tmp_path / "z.npy").unlink()
    with pytest.raises(UserError, match=r"z\.npy: .*run it again"):
        over_rows(some, Sums(), RAY, "x")
