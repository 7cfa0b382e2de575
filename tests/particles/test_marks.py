"""Marks from the explorer: read strictly, and turned into labels."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from particles.marks import marks_digest, read_marks, with_extra_labels
from particles.sets import DataSettings, open_set
from particles.squares import PackSettings
from particles.table import empty_rows
from provenance.errors import UserError
from provenance.run import RunSettings


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_stars_and_labels_are_read_in_any_order_of_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "﻿rank,label,particle_id,star\n1,diatom,a,1\n2,,b,\n3,  ,c,true\n4,Ä <b>,d,0\n")
    marks = read_marks(path)
    assert marks["particle_id"].tolist() == ["a", "b", "c", "d"]
    assert marks["star"].tolist() == [True, False, True, False]
    assert marks["label"].fillna("-").tolist() == ["diatom", "-", "-", "Ä <b>"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheets_own_separator_is_read(tmp_path: Path, separator: str) -> None:
    text = "particle_id,star,label\na,1,diatom\nb,,\n".replace(",", separator)
    marks = read_marks(written(tmp_path / "m.csv", text))
    assert marks["particle_id"].tolist() == ["a", "b"]
    assert marks["label"].fillna("-").tolist() == ["diatom", "-"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("particle_id,star\na,1\n", r"no rows with the column\(s\) label"),
        ("particle_id,star,label\n", "no rows with the column"),
        ("", "no rows with the column"),
        ("particle_id,star,label\na,1,x\nb,,\na,,y\n", "'a' stands in rows 2 and 4"),
        ("particle_id,star,label\n,1,x\n", "row 2 has no particle_id"),
        (f"particle_id,star,label\na,1,{'x' * 201}\n", "row 2, column label: longer than 200"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_marks(written(tmp_path / "m.csv", text))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("marks") / "m.csv"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        marks = read_marks(path)
        assert marks["particle_id"].is_unique
        assert (marks["particle_id"].str.len() > 0).all()


def table() -> pd.DataFrame:
    rows = empty_rows(4)
    rows["particle_id"] = ["a", "b", "c", "d"]
    rows["role"], rows["truth"] = ["labeled", "core", "core", "core"], ["dust", "diatom", "dust", pd.NA]
    rows["label"], rows["split"] = ["dust", pd.NA, pd.NA, pd.NA], ["test", pd.NA, "test", pd.NA]
    return rows


def marks(**labels: str | None) -> pd.DataFrame:
    names = pd.array(list(labels), dtype="string")
    return pd.DataFrame({"particle_id": names, "star": True, "label": pd.array(list(labels.values()), dtype="string")})


def test_a_labeled_mark_makes_a_core_particle_a_labeled_one() -> None:
    rows = with_extra_labels(table(), marks(c="odd", b="odd", d=None), Path("m.csv"))
    assert rows["role"].tolist() == ["labeled", "labeled", "labeled", "core"]
    assert rows["label"].fillna("-").tolist() == ["dust", "odd", "odd", "-"]
    assert rows["split"].fillna("-").tolist() == ["test", "train", "train", "-"]
    assert rows["truth"].fillna("-").tolist() == ["dust", "diatom", "dust", "-"], "what is true stays true"
    assert rows["marked"].tolist() == [False, True, True, False]


def test_a_label_for_a_particle_of_another_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"m.csv: particle_id 'zz' is not in this set \(1 such rows\)"):
        with_extra_labels(table(), marks(b="odd", zz="odd"), Path("m.csv"))


def test_the_digest_is_of_the_labels_alone() -> None:
    assert marks_digest(marks(a="x", b="y", c=None)) == marks_digest(marks(b="y", a="x"))
    assert marks_digest(marks(a="x")) != marks_digest(marks(a="y"))


def test_a_class_of_the_users_own_joins_the_known_ones(tmp_path: Path) -> None:
    common = RunSettings(work_dir=tmp_path)
    data = DataSettings(n_per_class=6, n_core=60, n_per_kind=3, pack=PackSettings(size=8, scalars=False))
    before = open_set(data, common, lambda _: None)
    core = before.table[before.table["role"] == "core"]
    fresh = core["particle_id"].head(30)
    lines = "".join(f"{name},1,thin\n" for name in fresh)
    extra = DataSettings(
        **{**vars(data), "extra_labels": written(tmp_path / "m.csv", f"particle_id,star,label\n{lines}")}
    )
    after = open_set(extra, common, lambda _: None)
    assert after.classes == sorted([*before.classes, "thin"])
    assert after.table.loc[after.table["label"] == "thin", "particle_id"].tolist() == fresh.tolist()
    assert after.fingerprint != before.fingerprint
    assert len(after.table) == len(before.table)
    assert set(after.table.loc[after.table["label"] == "thin", "split"]) == {"train"}


def test_one_mark_alone_is_too_few_and_the_way_out_is_one_for_marks(tmp_path: Path) -> None:
    common = RunSettings(work_dir=tmp_path)
    data = DataSettings(n_per_class=6, n_core=60, n_per_kind=3, pack=PackSettings(size=8, scalars=False))
    table = open_set(data, common, lambda _: None).table
    name = table.loc[table["role"] == "core", "particle_id"].iloc[0]
    extra = replace(data, extra_labels=written(tmp_path / "m.csv", f"particle_id,star,label\n{name},1,weird\n"))
    with pytest.raises(
        UserError, match=r"class 'weird' has 1 particle\(s\), at least 5 are needed: mark more or take"
    ) as e:
        open_set(extra, common, lambda _: None)
    assert "--held-out" not in str(e.value), "which would take the marked particle out of the search"


def test_marks_become_labels_where_the_test_split_plays_the_core(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("camp", "dust"):
        (tmp_path / "lake" / name).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(rng.integers(0, 255, (9, 9)).astype(np.uint8)).save(
                tmp_path / "lake" / name / f"{name}{i}.png"
            )
    common = RunSettings(work_dir=tmp_path)
    data = DataSettings(data=str(tmp_path / "lake"), pack=PackSettings(size=8, scalars=False))
    before = open_set(data, common, lambda _: None).table
    searched = before.loc[before["role"] == "core", "particle_id"].head(8).tolist()
    text = "particle_id,star,label\n" + "".join(f"{name},1,odd\n" for name in searched)
    after = open_set(replace(data, extra_labels=written(tmp_path / "m.csv", text)), common, lambda _: None)
    assert after.table.loc[after.table["label"] == "odd", "particle_id"].tolist() == searched
    held = replace(data, extra_labels=tmp_path / "m.csv", held_out=("odd",))
    left = open_set(held, common, lambda _: None).table
    assert not set(left.loc[left["split"] != "test", "particle_id"]) & set(searched), "nothing may learn from them"
