"""Who may be learned from: the rules of the split, and that no held-out particle slips through."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particles.splits import SMALLEST_CLASS, assign, hash_share
from particles.table import empty_rows, validated
from provenance.errors import UserError

KNOWN_SHARES = [0.8965991978568164, 0.1375481839028423, 0.9250342078836913]


def table(labeled: dict[str, int], core: Sequence[str | None] = (), split: str | None = None) -> pd.DataFrame:
    """`labeled`: class -> count. `core`: truth of each core particle, None where nobody knows."""
    truth = [name for name, count in labeled.items() for _ in range(count)]
    rows = empty_rows(len(truth) + len(core))
    rows["particle_id"] = [f"p{i}" for i in range(len(rows))]
    rows["image"] = rows["particle_id"]
    rows["label"] = pd.array([*truth, *[None] * len(core)], dtype="string")
    rows["truth"] = pd.array([*truth, *core], dtype="string")
    rows["role"] = ["labeled"] * len(truth) + ["core"] * len(core)
    rows["split"] = pd.array([split] * len(rows), dtype="string")
    return validated(rows, "test")


def ids(rows: pd.DataFrame) -> set[str]:
    return set(rows["particle_id"])


def test_hash_share_is_the_same_everywhere() -> None:
    share = hash_share(["a", "GRIP_3046_0_20_1_1081", "Grímsvötn"], "split")
    assert share == pytest.approx(KNOWN_SHARES, abs=1e-12)


def test_hash_share_depends_on_id_and_salt_alone() -> None:
    names = [f"p{i}" for i in range(4000)]
    share = hash_share(names, "split")
    np.testing.assert_array_equal(hash_share(names[::-1], "split"), share[::-1])
    np.testing.assert_array_equal(hash_share(names[17:18], "split"), share[17:18])
    assert abs(np.corrcoef(share, hash_share(names, "val"))[0, 1]) < 0.05
    assert (share >= 0).all()
    assert (share < 1).all()
    assert np.histogram(share, 10, (0, 1))[0] == pytest.approx([400] * 10, rel=0.15)


def test_the_split_of_an_id_never_changes() -> None:
    """Or runs of today could not be compared with those of last year."""
    rows = assign(table({"dust": 30}, [None]))
    chosen = {split: [i[1:] for i in group] for split, group in rows.head(30).groupby("split")["particle_id"]}
    assert chosen["val"] == ["3", "15", "27"]
    assert chosen["test"] == ["8", "10", "11", "17", "18"]


def test_labeled_particles_are_split_7_1_2() -> None:
    rows = assign(table({"dust": 2000, "camp": 2000}, [None]))
    share = rows[rows["role"] == "labeled"]["split"].value_counts(normalize=True)
    assert dict(share) == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.02)


def test_a_core_is_for_training_and_validation() -> None:
    rows = assign(table({"dust": 10}, [None] * 2000))
    core = rows[rows["role"] == "core"]
    assert dict(core["split"].value_counts(normalize=True)) == pytest.approx({"train": 0.9, "val": 0.1}, abs=0.02)
    assert len(core) == 2000


def test_the_split_does_not_depend_on_company() -> None:
    few, many = assign(table({"dust": 50}, [None] * 5)), assign(table({"dust": 50, "camp": 70}, [None] * 9))
    both = few.merge(many, on="particle_id")
    same = both[both["role_x"] == both["role_y"]]
    assert len(same) >= 50
    assert (same["split_x"] == same["split_y"]).all()


def test_with_labels_only_the_test_split_is_the_core() -> None:
    rows = assign(table({"dust": 100, "camp": 100}))
    assert ((rows["role"] == "core") == (rows["split"] == "test")).all()
    core = rows[rows["role"] == "core"]
    assert 20 < len(core) < 60
    assert core["label"].isna().all()
    assert core["truth"].notna().all()
    assert not core["is_outlier"].any(), "all are of known classes"
    assert rows[rows["role"] == "labeled"]["is_outlier"].isna().all()


def test_with_a_core_the_labeled_test_split_stays_labeled() -> None:
    rows = assign(table({"dust": 100}, ["dust", "diatom", None]))
    assert (rows.loc[rows["role"] == "labeled", "label"] == "dust").all()
    assert (rows["role"] == "labeled").sum() == 100
    assert rows["is_outlier"].tolist()[100:] == [False, True, pd.NA]


def test_a_held_out_class_is_an_outlier_of_the_test_split() -> None:
    before, rows = assign(table({"2": 100, "3": 100})), assign(table({"2": 100, "3": 100}), held_out=["2"])
    twos = rows[rows["truth"] == "2"]
    assert ids(twos) == ids(before[(before["truth"] == "2") & (before["split"] == "test")])
    assert set(twos["role"]) == {"core"}
    assert twos["label"].isna().all()
    assert twos["is_outlier"].all()
    threes = rows[rows["truth"] == "3"]
    assert ids(threes) == ids(before[before["truth"] == "3"])
    among = threes[threes["role"] == "core"]
    assert ids(among) == ids(threes[threes["split"] == "test"]), "known ones to look strange among"
    assert len(among) > 5
    assert among["is_outlier"].tolist() == [False] * len(among)


def test_a_held_out_class_joins_a_core_that_has_none_of_it() -> None:
    rows = assign(table({"dust": 50, "camp": 50}, ["dust", "diatom", None]), held_out=["camp"])
    core = rows[rows["role"] == "core"]
    assert core["is_outlier"].tolist()[-3:] == [False, True, pd.NA]
    assert len(core) > 3
    assert (core["truth"].iloc[:-3] == "camp").all()
    assert (core["split"].iloc[:-3] == "test").all(), "each is sought as if it were the only one"
    assert core["label"].isna().all()


def test_of_a_held_out_class_a_core_keeps_its_own_alone_and_learns_from_them() -> None:
    given = table({"dust": 50, "camp": 50, "grim": 50}, ["dust"] * 40 + ["camp"] * 40)
    rows, plain = assign(given, held_out=["camp", "grim"]), assign(given)
    core = rows[rows["role"] == "core"]
    of = {name: core[core["truth"] == name] for name in ("dust", "camp", "grim")}
    assert ids(of["camp"]) == {f"p{i}" for i in range(190, 230)}
    both = plain.merge(of["camp"], on="particle_id")
    assert (both["split_x"] == both["split_y"]).all(), "as without --held-out"
    assert set(of["camp"]["split"]) == {"train", "val"}
    assert ids(of["grim"]) == ids(plain[(plain["label"] == "grim") & (plain["split"] == "test")])
    assert set(of["grim"]["split"]) == {"test"}
    assert core.loc[core["truth"] != "dust", "is_outlier"].all()


def test_without_labels_all_is_one_core() -> None:
    rows = assign(table({"dust": 300, "camp": 2}, [None] * 4), use_labels=False)
    assert set(rows["role"]) == {"core"}
    assert rows["label"].isna().all()
    assert len(rows) == 306
    assert set(rows["split"]) == {"train", "val"}
    assert rows["is_outlier"].isna().all(), "without known classes nobody can say what is strange"


def test_without_labels_a_held_out_class_is_only_judged_by() -> None:
    rows = assign(table({"dust": 30, "camp": 8}, ["camp", None]), held_out=["camp"], use_labels=False)
    assert len(rows) == 40, "what was never labeled need not be dropped"
    assert rows["label"].isna().all()
    assert rows["is_outlier"].tolist() == [False] * 30 + [True] * 9 + [pd.NA]


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_labels_a_prescribed_split_is_void(split: str) -> None:
    rows = assign(table({"7": 300}, split=split), use_labels=False)
    assert dict(rows["split"].value_counts(normalize=True)) == pytest.approx({"train": 0.9, "val": 0.1}, abs=0.06)


def test_a_prescribed_split_is_kept_and_validation_carved_from_its_train() -> None:
    given = pd.concat([table({"7": 1000}, split="train"), table({"7": 200}, split="test")], ignore_index=True)
    given["particle_id"] = [f"m{i}" for i in range(1200)]
    rows = assign(given)
    assert (rows["split"].iloc[1000:] == "test").all()
    assert (rows["role"].iloc[1000:] == "core").all()
    share = rows["split"].iloc[:1000].value_counts(normalize=True)
    assert dict(share) == pytest.approx({"train": 0.9, "val": 0.1}, abs=0.03)


def test_which_of_a_prescribed_train_validate_never_changes() -> None:
    """Nor does it follow from the draw of sets that prescribe nothing."""
    rows = assign(table({"7": 300}, [None], split="train")).head(300)
    wanted = hash_share(rows["particle_id"].tolist(), "val") < 0.1
    np.testing.assert_array_equal(rows["split"] == "val", wanted)


def test_a_prescribed_validation_split_is_the_only_one() -> None:
    given = pd.concat([table({"7": 200}, split=split) for split in ("train", "val", "test")], ignore_index=True)
    given["particle_id"] = [f"m{i}" for i in range(600)]
    assert (assign(given)["split"] == given["split"]).all(), "nothing is carved from a train that has its val beside it"


def test_of_a_prescribed_train_marks_are_not_carved() -> None:
    rows = assign(table({"7": 300, "odd": 300}, split="train").assign(marked=[False] * 300 + [True] * 300))
    assert set(rows.loc[rows["marked"], "split"]) == {"train"}
    share = rows.loc[~rows["marked"], "split"].value_counts(normalize=True)
    assert dict(share) == pytest.approx({"train": 0.9, "val": 0.1}, abs=0.06)
    assert not assign(table({"7": 9}))["marked"].any()


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(UserError, match="class 'camp' has 4 particle") as error:
        assign(table({"dust": 50, "camp": SMALLEST_CLASS - 1}))
    assert "at least 5 are needed: add crops or marks of it, take its crops or its marks out" in str(error.value)
    assert "--held-out camp" in str(error.value)
    with pytest.raises(UserError, match=r"class 'grim' has 4 .*; as small: camp \(3\), cont \(1\)$"):
        assign(table({"dust": 50, "grim": 4, "camp": 3, "cont": 1}))
    assign(table({"dust": 50, "camp": SMALLEST_CLASS}))
    assign(table({"dust": 50, "camp": 4}), held_out=["camp"])  # the way out that the message names


@pytest.mark.parametrize(
    ("rows", "has"), [(table({"0": 9, "1": 9}), "it has 0, 1"), (table({}, [None]), "it has none")]
)
def test_an_unknown_held_out_class_is_named(rows: pd.DataFrame, has: str) -> None:
    with pytest.raises(UserError, match=f"--held-out banana: this data has no such class; {has}"):
        assign(rows, held_out=["banana"])


def test_a_class_that_the_hash_keeps_out_of_train_is_refused() -> None:
    names = np.array([f"q{i}" for i in range(200)])
    rows = table({"dust": 50, "camp": 6})
    rows.loc[rows["label"] == "camp", "particle_id"] = names[hash_share(names.tolist(), "split") < 0.3][:6]
    with pytest.raises(UserError, match=r"has 6 particle\(s\), but none in the train split.*--held-out camp"):
        assign(rows)
    rows.loc[55, "particle_id"] = names[hash_share(names.tolist(), "split") >= 0.3][0]
    assert (assign(rows)["split"].iloc[50:] == "train").tolist() == [False] * 5 + [True]


def test_holding_out_every_class_needs_a_core() -> None:
    with pytest.raises(UserError, match="--held-out names every class: nothing is left to learn from"):
        assign(table({"dust": 50, "camp": 50}), held_out=["camp", "dust"])
    rows = assign(table({"dust": 50, "camp": 50}, [None] * 20), held_out=["camp", "dust"])
    assert set(rows["role"]) == {"core"}


def trained_on(rows: pd.DataFrame, split: str | None) -> set[str]:
    """Classes with a training particle, by the rules of the split as they are written down."""
    labeled = rows[rows["role"] == "labeled"]
    names = labeled["particle_id"].tolist()
    in_train = {
        None: hash_share(names, "split") >= 0.3,
        "train": hash_share(names, "val") >= 0.1,
    }.get(split, np.zeros(len(names), bool))
    return set(labeled.loc[in_train, "label"])


NAMES = st.sampled_from(["dust", "camp", "grim"])
CORES = st.lists(st.sampled_from(["dust", "camp", "diatom", None]), max_size=12)


@settings(database=None, derandomize=True, deadline=None, max_examples=60)
@given(
    labeled=st.dictionaries(NAMES, st.integers(SMALLEST_CLASS, 25), min_size=1),
    core=CORES,
    split=st.sampled_from([None, "train", "test", "val"]),
    data=st.data(),
)
def test_nothing_learns_from_what_is_held_out(
    labeled: dict[str, int], core: list[str | None], split: str | None, data: st.DataObject
) -> None:
    held_out = data.draw(st.lists(st.sampled_from(sorted(labeled)), unique=True))
    given_rows = table(labeled, core, split)
    known = set(labeled) - set(held_out)
    if (not core and not known) or known - trained_on(given_rows, split):
        with pytest.raises(UserError, match="names every class" if not known else "are needed"):
            assign(given_rows, held_out)
        return
    rows = assign(given_rows, held_out)
    hidden = ids(given_rows[(given_rows["role"] == "labeled") & given_rows["truth"].isin(held_out)])
    seen = rows[rows["split"].isin(["train", "val"])]
    assert not ids(seen) & hidden
    assert not set(rows["label"].dropna()) & set(held_out)
    assert rows["particle_id"].is_unique
    assert (given_rows["particle_id"].to_numpy()[rows["position"]] == rows["particle_id"]).all()
    assert rows["position"].is_monotonic_increasing
    assert rows["split"].isin(["train", "val", "test"]).all()
    assert ids(given_rows) - ids(rows) <= hidden, "nobody else is dropped"
    assert ((rows["role"] == "labeled") == rows["label"].notna()).all()
    known_ids = ids(given_rows[(given_rows["role"] == "labeled") & given_rows["truth"].isin(known)])
    mine = rows[rows["particle_id"].isin(known_ids)]
    plays_core = (mine["split"] == "test") & (not core)
    assert ((mine["role"] == "core") == plays_core).all(), "the test split is the core where there is no other"
    judged = rows[rows["is_outlier"].notna()]
    strange = ~judged["truth"].isin(known) if known else judged["truth"].isin(held_out)
    assert (judged["is_outlier"].astype(bool) == strange).all()
    assert (judged["role"] == "core").all()
