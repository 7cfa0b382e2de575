import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
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
        ForkingPickler.dumps(make)  # as it is sent to another process
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
    here = over_rows(replace(some, folder=None), Sums(), HERE, "adding up", told.append)
    assert list(here) == list(there)
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])
    assert sum(told) == 140
    some.forget()
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
        here, there = over_rows(replace(some, folder=None), make, HERE, "x"), over_rows(some, make, RAY, "x")
        assert set(here) == set(there)
        for name in here:
            np.testing.assert_allclose(here[name], there[name], rtol=1e-6)
    assert {"knn", "cosine", "whitened", "mahalanobis", "isolation_forest"} == set(here)


@dataclass(frozen=True)
class Scaled:
    """Multiplies; stops like a kill at a slice that begins at `killed_at`, and notes those it was asked for."""

    by: np.ndarray
    asked: tuple[list[int], ...]
    killed_at: int | None = None

    def __call__(self) -> Rows:
        def find(z: np.ndarray, step: slice) -> Arrays:
            if step.start == self.killed_at:
                raise KeyboardInterrupt
            self.asked[0].append(step.start)
            return {"x": z @ self.by}

        return find


@pytest.fixture
def same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Scaled was asked, and when it dies, does not decide what it finds."""
    digest = parts._digest
    monkeypatch.setattr(parts, "_digest", lambda value: digest((value[0].by, *value[1:])))
    monkeypatch.setattr(parts, "SLICE", 16)


def test_the_same_command_goes_on_where_it_was_killed(tmp_path: Path, same_name: None) -> None:
    some, by, first, then, told = vectors(tmp_path), np.arange(3.0), list[int](), list[int](), list[int]()
    with pytest.raises(KeyboardInterrupt):
        over_rows(some, Scaled(by, (first,), killed_at=48), HERE, "x")
    found = over_rows(some, Scaled(by, (then,)), HERE, "x", told.append)
    assert (first, then) == ([0, 16, 32], [48, 64])
    assert sum(told) == 70
    np.testing.assert_array_equal(
        found["x"], over_rows(replace(some, folder=None), Scaled(by, (then,)), HERE, "x")["x"]
    )


def test_a_cut_part_is_found_again(tmp_path: Path, same_name: None) -> None:
    some, by, first, then = vectors(tmp_path), np.arange(3.0), list[int](), list[int]()
    whole = over_rows(some, Scaled(by, (first,)), HERE, "x")
    (cut,) = (tmp_path / "run" / "parts").glob("*/00002.npz")
    cut.write_bytes(cut.read_bytes()[:-40])
    found = over_rows(some, Scaled(by, (then,)), HERE, "x")
    assert then == [32]
    np.testing.assert_array_equal(found["x"], whole["x"])


def test_other_code_begins_anew(tmp_path: Path, same_name: None, monkeypatch: pytest.MonkeyPatch) -> None:
    some, asked = vectors(tmp_path), list[int]()
    for commit in ("a", "b"):
        monkeypatch.setattr(parts, "code", lambda commit=commit: {"commit": commit})
        over_rows(some, Scaled(np.arange(3.0), (asked,)), HERE, "x")
    assert len(asked) == 10


def test_other_values_or_rows_begin_anew(tmp_path: Path, same_name: None) -> None:
    some, asked = vectors(tmp_path), list[int]()
    for of, by in (
        (some, np.arange(3.0)),
        (some, np.arange(3.0) + 1e-9),
        (some.at(np.arange(69, -1, -1)), np.arange(3.0)),
    ):
        before = len(asked)
        found = over_rows(of, Scaled(by, (asked,)), HERE, "x")
        assert len(asked) == before + 5
        np.testing.assert_array_equal(found["x"], of.copied() @ by)
    some.forget()
    assert not (tmp_path / "run" / "parts").exists()


def test_digest_tells_every_field_apart() -> None:
    z, labels = np.eye(3, dtype=np.float32), pd.Series(["dust", pd.NA, "camp"], dtype="string")
    scoring = Scoring(z, labels, np.full(3, -1), OutlierSettings(), seed=0)
    others = [
        replace(scoring, bulk=z.astype(float)), replace(scoring, bulk=z[:, :2]), replace(scoring, own=np.zeros(3, int)),
        replace(scoring, labels=labels[::-1]), replace(scoring, settings=OutlierSettings(k=3)),
        replace(scoring, seed=1),
        Placing(z, {"a": z}, {}), Placing(z, {}, {"a": z}), Placing(z, {"b": z}, {}),
    ]  # fmt: skip
    assert len({parts._digest(one) for one in [scoring, *others]}) == 1 + len(others)
    assert parts._digest(scoring) == parts._digest(copy.deepcopy(scoring))


@pytest.mark.ray
def test_a_real_cluster_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SLICE", 16)
    some = vectors(tmp_path)
    fitted = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    placing = Placing(fitted, {"one": np.arange(40) % 3}, {"umap": fitted[:, :2]})
    here = over_rows(replace(some, folder=None), placing, HERE, "x")
    there = over_rows(some, placing, EngineSettings("ray", workers=2), "x")
    assert set(here) == {"one", "umap"}
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-6)


def test_a_shard_that_is_gone_is_named(tmp_path: Path, cluster: list[int]) -> None:
    some = vectors(tmp_path)
    (tmp_path / "z.npy").unlink()
    with pytest.raises(UserError, match=r"z\.npy: .*run it again"):
        over_rows(some, Sums(), RAY, "x")
