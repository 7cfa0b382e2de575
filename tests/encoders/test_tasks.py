from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.tasks import TASKS, Task, balanced_split, classes_of, small_classes
from provenance.errors import UserError

SEVEN = ["dust", "camp", "grim", "corylus", "qrob", "qsub", "cont"]


def mapped(labels: list[str | None], task: Task) -> list[str | None]:
    found = classes_of(pd.Series(labels, dtype="string"), task, "set")
    return [None if name is pd.NA else name for name in found.tolist()]


def test_each_task_groups_the_labels_as_published() -> None:
    assert mapped([*SEVEN, None], "7-class") == [*SEVEN, None]
    assert mapped(SEVEN, "6-class") == [*SEVEN[:6], None]
    assert mapped(SEVEN, "3-class") == ["dust", "tephra", "tephra", "pollen", "pollen", "pollen", None]
    assert mapped(SEVEN, "pollen") == [None, None, None, "corylus", "qrob", "qsub", None]


def test_all_takes_any_labels_as_they_are() -> None:
    assert mapped(["6", None, "2", "Junk, <b>"], "all") == ["6", None, "2", "Junk, <b>"]


def test_a_set_without_the_classes_is_told_what_it_has_and_what_fits() -> None:
    with pytest.raises(UserError, match=r"^ash: --task 7-class needs cont, the set has camp, .*; give --task 6-class "
                                        r"or --task 3-class or --task pollen or --task all$"):  # fmt: skip
        classes_of(pd.Series(SEVEN[:6], dtype="string"), "7-class", "ash")
    with pytest.raises(UserError, match=r"needs corylus, qrob, qsub, the set has 2, 6; give --task all$"):
        classes_of(pd.Series(["6", "2"], dtype="string"), "pollen", "digits")
    with pytest.raises(UserError, match=r"the set has no labels; give --data a set with two labeled classes$"):
        classes_of(pd.Series([None], dtype="string"), "3-class", "bare")
    with pytest.raises(UserError, match=r"needs two labeled classes, it has dust; give --data"):
        classes_of(pd.Series(["dust", None, "dust"], dtype="string"), "all", "one")


def test_one_error_is_one_line() -> None:
    for task in ("all", *TASKS):
        with pytest.raises(UserError) as error:
            classes_of(pd.Series([None], dtype="string"), task, "bare")  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def drawn(counts: dict[str, int], seed: int = 0, n_val: int = 20, n_test: int = 30) -> tuple[list[str], list[str]]:
    classes = [name for name, n in counts.items() for _ in range(n)]
    ids = [f"{name}-{i}" for i, name in enumerate(classes)]
    return classes, balanced_split(ids, classes, seed, n_val, n_test).tolist()


def test_as_many_of_each_class_and_fewer_where_a_class_is_small() -> None:
    counts = Counter(zip(*drawn({"a": 1000, "b": 200, "c": 40, "d": 3}), strict=True))
    assert {k: n for k, n in counts.items() if k[1] == "test"} == {
        ("a", "test"): 30, ("b", "test"): 30, ("c", "test"): 6, ("d", "test"): 1,
    }  # fmt: skip
    assert [counts[name, "val"] for name in "abcd"] == [20, 20, 6, 1]
    assert [counts[name, "train"] for name in "abcd"] == [950, 150, 28, 1]


def test_small_classes_are_said_in_one_line() -> None:
    line = small_classes(["a"] * 1000 + ["b"] * 40 + ["c"] * 3, 20, 30)
    assert line == "small classes keep 15% each to validate and to test instead of 30: b 6, c 1"
    assert small_classes(["a"] * 1000, 20, 30) is None


def test_too_few_to_draw_from_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"class 'd' has 2 particle\(s\).*at least 3.*--held-out d"):
        drawn({"a": 10, "d": 2})


@given(order=st.permutations(range(60)), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_draw_depends_on_ids_and_seed_alone(order: list[int], seed: int) -> None:
    ids, classes = [f"p{i}" for i in range(60)], [("a", "b")[i % 2] for i in range(60)]
    before = dict(zip(ids, balanced_split(ids, classes, seed, 4, 4).tolist(), strict=True))
    shuffled = [ids[i] for i in order]
    after = balanced_split(shuffled, [classes[i] for i in order], seed, 4, 4).tolist()
    assert dict(zip(shuffled, after, strict=True)) == before


def test_another_seed_draws_others() -> None:
    first, second = (drawn({"a": 500, "b": 500}, seed=s)[1] for s in (0, 1))
    both = sum(a == b == "test" for a, b in zip(first, second, strict=True))
    assert both < 15  # of 60; 3.6 are expected by chance


def test_one_more_particle_moves_at_most_one_other() -> None:
    ids = [f"p{i}" for i in range(400)]
    before = balanced_split(ids, ["a"] * 400, 0, 30, 30)
    after = balanced_split([*ids, "new"], ["a"] * 401, 0, 30, 30)[:-1]
    assert (before != after).sum() <= 2  # one out of test into val, one out of val into train


def test_a_prescribed_test_split_is_never_learned_from() -> None:
    ids, classes = [f"p{i}" for i in range(300)], ["a"] * 200 + ["b"] * 100
    kept = np.arange(300) % 200 < 50  # of a: 0-49, of b: 200-249
    kept[200:] = False  # b has none: its test is drawn of all
    split = balanced_split(ids, classes, 0, 10, 15, kept)
    assert set(split[kept]) == {"test", ""}
    assert Counter(split[kept])["test"] == 15
    assert "test" not in split[:200][~kept[:200]]
    assert Counter(split[200:].tolist()) == {"test": 15, "val": 10, "train": 75}
