"""`--data ...` -> an open set: what a path is taken for, two sets in one run, and what must not be mixed."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from particles import sets
from particles.pixels import fit_square
from particles.segment import background_level
from particles.sets import DataSettings, ParticleSet, find_source, open_set
from particles.sources.digits import Digits, Mnist
from particles.sources.folder import Folder
from particles.sources.synthetic import Synthetic
from particles.squares import PackSettings
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.run import RunSettings

TinySet = Callable[[str, Mapping[str, int]], Path]
QUICK = PackSettings(size=16, scalars=False)


def opened(data: Path | str, core: Path | str | None = None, **settings: object) -> ParticleSet:
    how = DataSettings(data=str(data), core=str(core) if core else None, pack=QUICK, **settings)  # type: ignore[arg-type]
    return open_set(how, RunSettings(), lambda line: None)


def true_pixels(root: Path, image: str) -> np.ndarray:
    crop = np.asarray(Image.open(root / image))
    return fit_square(crop, 16, "keep", background_level(crop))[0]


def test_names_come_first(tmp_path: Path) -> None:
    how = DataSettings(data_dir=tmp_path, n_per_class=5, n_core=40, n_per_kind=1)
    assert find_source("synthetic", how, seed=3) == Synthetic(3, 5, 40, 1)
    assert find_source("mnist", how, seed=3) == Mnist(tmp_path)
    assert find_source("digits", how, seed=3) == Digits()


def test_a_path_is_a_folder_of_crops(tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, said = tiny_set("lake", {"ash": 2}), []
    how = DataSettings(um_per_px=0.2752)
    assert find_source(str(root), how, 0, said.append) == Folder(root, 0.2752)
    assert find_source(str(root), DataSettings(bit_depth=12), 0, lambda _: None) == Folder(root, bit_depth=12)
    assert said == [f"data: {root} is a folder of crops"]
    monkeypatch.chdir(tmp_path)
    assert find_source("lake", how, 0, said.append) == Folder(root, 0.2752), "from here"


def test_a_name_may_lie_in_the_data_folder(tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny_set("lake", {"ash": 2})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("NUNATAK_DATA", raising=False)
    with pytest.raises(UserError) as error:
        find_source("lake", DataSettings(), 0)
    assert str(error.value) == (
        "--data lake: no such folder; built in are synthetic, mnist, digits; looked in the current folder; "
        f"{tmp_path}/elsewhere/data is not there (--data-dir or $NUNATAK_DATA names another)"
    )
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt: is a file; give the folder"):
        find_source(str(tmp_path / "notes.txt"), DataSettings(), 0)
    with pytest.raises(UserError, match=rf"in the current folder and in {tmp_path} \(there: elsewhere, lake\)$"):
        find_source("lak", DataSettings(data_dir=tmp_path), 0)
    with pytest.raises(UserError, match=r"digits$"):
        find_source(str(tmp_path / "lak"), DataSettings(data_dir=tmp_path), 0)
    assert find_source("lake", DataSettings(data_dir=tmp_path), 0, lambda line: None) == Folder(root)
    monkeypatch.setenv("NUNATAK_DATA", str(tmp_path))
    assert find_source("lake", DataSettings(), 0, lambda line: None) == Folder(root)


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"n_core": 50}, "core of 50 is too small"), ({"n_per_class": -1}, "must not be negative")],
)
def test_an_impossible_synthetic_set_is_the_users_mistake(counts: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_source("synthetic", DataSettings(**counts), 0)


def test_rows_and_pixels_fit(tiny_set: TinySet) -> None:
    root = tiny_set("lake", {"ash": 9, "dust": 9, "": 7})
    lake = opened(root)
    assert (lake.name, lake.classes, lake.oriented, lake.pixels.size) == ("lake", ["ash", "dust"], False, 16)
    assert len(lake.table) == len(lake.pixels) == 25
    for row in lake.table.itertuples():
        np.testing.assert_array_equal(lake.pixels[[row.position]][0], true_pixels(root, row.image))


def test_positions_for_training(tiny_set: TinySet) -> None:
    lake = opened(tiny_set("lake", {"ash": 30, "": 30}))
    table = lake.table
    train, core = lake.training_positions("train", True), lake.training_positions("train", False)
    assert set(core) < set(train)
    assert set(train) == set(table.loc[table["split"] == "train", "position"])
    assert set(core) == set(table.loc[(table["split"] == "train") & (table["role"] == "core"), "position"])


def test_a_set_is_packed_once(tiny_set: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny_set("lake", {"ash": 6})
    first = opened(root)
    monkeypatch.setattr(sets, "pack", lambda *args: pytest.fail("packed again"))
    again = opened(root)
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)
    assert first.folder.parent == RunSettings().work / "packed"


def test_a_new_crop_is_noticed(tiny_set: TinySet) -> None:
    root = tiny_set("lake", {"ash": 6})
    first = opened(root)
    Image.fromarray(np.full((9, 9), 33, np.uint8)).save(root / "ash" / "new.png")
    second = opened(root)
    assert len(second.table) == 7
    assert second.fingerprint != first.fingerprint


def test_a_packed_set_is_recognized(tiny_set: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tiny_set("lake", {"ash": 6}))
    monkeypatch.setattr(sets, "pack", lambda *args: pytest.fail("packed again"))
    said: list[str] = []
    again = open_set(DataSettings(data=str(first.folder)), RunSettings(), said.append)
    assert (again.fingerprint, again.name, len(again.table)) == (first.fingerprint, "lake", 6)
    assert said == [
        f"data: {first.folder} is a packed set; size, fit and corrections are those it was packed with",
        "labels from subfolders: ash (6); --no-use-labels if these are samples",
        "no core of its own: the test split of the labeled particles is searched in its place",
    ]


def test_a_core_is_searched_not_learned_from(tiny_set: TinySet) -> None:
    known, core = tiny_set("known", {"ash": 8, "dust": 8}), tiny_set("core", {"odd": 2, "ash": 3, "": 4})
    both = opened(known, core)
    assert both.name == "known+core"
    assert both.classes == ["ash", "dust"]
    mine = both.table[both.table["role"] == "core"]
    assert len(mine) == 9
    assert mine["label"].isna().all()
    assert mine["particle_id"].str.startswith("core_").all()
    strange = mine.groupby(mine["particle_id"].str.split("_").str[1])["is_outlier"].agg(list)
    assert strange.to_dict() == {"odd": [True] * 2, "ash": [False] * 3, "loose": [pd.NA] * 4}
    for row in mine.itertuples():
        np.testing.assert_array_equal(both.pixels[[row.position]][0], true_pixels(core, row.image))


def test_a_particle_of_both_sets_is_learned_from_and_not_searched(tiny_set: TinySet, tmp_path: Path) -> None:
    known = tiny_set("known", {"ash": 8})
    shutil.copytree(known / "ash", tmp_path / "again")
    core = tiny_set("core", {"": 5})
    for crop in core.iterdir():
        shutil.copy(crop, tmp_path / "again")
    said: list[str] = []
    how = DataSettings(data=str(known), core=str(tmp_path / "again"), pack=QUICK)
    both = open_set(how, RunSettings(), said.append)
    assert "8 particles of --core are in --data too: they are left out of the core" in said
    searched = both.table[both.table["role"] == "core"]
    assert set(searched["particle_id"]) == {path.stem for path in core.iterdir()}
    for row in searched.itertuples():
        alone = opened(core)
        place = alone.table.set_index("particle_id").loc[row.particle_id, "position"]
        np.testing.assert_array_equal(both.pixels[[row.position]], alone.pixels[[place]])


def test_a_core_of_nothing_new_is_refused(tiny_set: TinySet, tmp_path: Path) -> None:
    known = tiny_set("known", {"ash": 8, "dust": 8})
    with pytest.raises(
        UserError, match=r"^--core: all of its 8 particles are in --data too, nothing is left to search"
    ):
        opened(known, shutil.copytree(known / "ash", tmp_path / "again"))


def test_a_core_has_no_splits_of_its_own(tiny_set: TinySet) -> None:
    core = tiny_set("core", {"odd": 40, "ash": 40})
    for split, name in (("train", "odd"), ("test", "ash")):
        (core / split).mkdir()
        (core / name).rename(core / split / name)
    searched = opened(tiny_set("known", {"ash": 8}), core).table.query("role == 'core'")
    assert len(searched) == 80
    assert set(searched["split"]) == {"train", "val"}, "all of it is learned from"
    assert searched["truth"].value_counts().to_dict() == {"odd": 40, "ash": 40}


def test_tables_that_are_not_used_are_said_with_the_way_out(tiny_set: TinySet) -> None:
    root, said = tiny_set("lake", {"dust": 2}), []
    (root / "dust.csv").write_text("Area (ABD),Width,Length,Perimeter,Circularity\n1,2,3,4,5\n")
    find_source(str(root), DataSettings(), 0, said.append)
    assert said == [
        f"data: {root} is a folder of crops",
        "scalars NOT used, for no column 'imgpaths' says whose they are: dust.csv; to use them, add that column with "
        "each row's image (dust/a.png), then labels come from the tables too",
    ]


def test_labels_from_subfolders_are_said_where_they_are_used(
    tiny_set: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(**given: Any) -> list[str]:
        lines: list[str] = []
        open_set(DataSettings(pack=QUICK, **given), RunSettings(), lines.append)
        return [line for line in lines if line.startswith("labels")]

    lake, loose = str(tiny_set("lake", {"dust": 6, "bag 3": 6, "": 6})), str(tiny_set("loose", {"": 6}))
    line = "labels from subfolders: bag 3 (6), dust (6); --no-use-labels if these are samples"
    assert said(data=lake) == said(data=lake) == [line], "not only when it is packed"
    assert said(data=str(opened(lake).folder)) == [line], "nor only of what is not"
    assert said(data=lake, use_labels=False) == said(data=loose) == said(data=loose, core=lake) == []
    assert said(data=lake, core=loose) == [line]
    monkeypatch.setattr(sets, "_LABELS_SAID", 2)
    assert said(data=str(tiny_set("many", {"c": 6, "a": 7, "b": 8, "d": 5})))[0].split("; ")[0] == (
        "labels from subfolders: a (7), b (8) and 2 more"
    )


def test_one_id_for_two_crops_is_refused(tiny_set: TinySet, tmp_path: Path) -> None:
    known = tiny_set("known", {"ash": 8})
    (tmp_path / "again").mkdir()
    Image.fromarray(np.zeros((30, 31), np.uint8)).save(tmp_path / "again" / "known_ash_2.png")
    with pytest.raises(UserError, match="'known_ash_2' names one crop in --data and another in --core"):
        opened(known, tmp_path / "again")


def test_crops_of_one_name_and_one_size_are_told_apart_by_their_pixels(
    tiny_set: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "_COMPARED_AT_ONCE", 3)
    known = tiny_set("known", {"ash": 8})
    shutil.copytree(known / "ash", tmp_path / "again")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "again" / "new.png")
    assert len(opened(known, tmp_path / "again").table) == 9
    changed = tmp_path / "again" / "known_ash_6.png"
    crop = np.array(Image.open(changed))
    crop[len(crop) // 2] ^= 128
    Image.fromarray(crop).save(changed)
    with pytest.raises(UserError, match=r"'known_ash_6' names one crop .* \(1 such ids\): rename"):
        opened(known, tmp_path / "again")


def test_scalars_measured_in_different_ways_are_not_compared(tiny_set: TinySet, tmp_path: Path) -> None:
    packed = opened(tiny_set("known", {"ash": 8})).folder
    info = read_json(packed / "set.json")
    for name, other, way_out in (
        ("scalars_by", "instrument", "--no-instrument-scalars"),
        ("in_um", True, "--um-per-px"),
    ):
        core = shutil.copytree(packed, tmp_path / name)
        write_json(core / "set.json", info | {name: other})
        with pytest.raises(UserError, match=f"cannot be compared.*{name}.*{way_out}"):
            opened(packed, core)


def test_folders_that_are_no_classes_are_no_truth(tiny_set: TinySet) -> None:
    both = opened(tiny_set("known", {"ash": 8}), tiny_set("core", {"bag12": 6}))
    searched = both.table[both.table["role"] == "core"]
    assert searched["is_outlier"].isna().all()
    assert searched["truth"].isna().all()


def test_sets_of_different_size_are_refused(tiny_set: TinySet) -> None:
    packed = opened(tiny_set("known", {"ash": 8})).folder
    how = DataSettings(data=str(packed), core=str(tiny_set("core", {"": 4})), pack=PackSettings(size=20))
    with pytest.raises(UserError, match=r"size: 16 and 20\): pack both with the same --size"):
        open_set(how, RunSettings(), lambda line: None)


def test_a_run_with_other_roles_has_another_fingerprint(tiny_set: TinySet) -> None:
    known, core = tiny_set("known", {"ash": 8, "dust": 8}), tiny_set("core", {"": 4})
    runs = [
        opened(known),
        opened(known, core),
        opened(known, held_out=("ash",)),
        opened(known, held_out=("dust",)),
        opened(known, use_labels=False),
    ]
    assert len({run.fingerprint for run in runs}) == len(runs)
    assert len({run.name for run in runs}) == 4, "hidden labels do not change the name"
    twice = [opened(known, core, held_out=names).fingerprint for names in (("ash", "dust"), ("dust", "ash"))]
    assert twice[0] == twice[1], "the order of the flags is no matter"
    assert runs[2].classes == ["dust"]
    assert runs[4].classes == []


def test_a_set_of_labels_alone_keeps_a_class_to_learn_from(tiny_set: TinySet) -> None:
    known, core = tiny_set("known", {"ash": 8, "dust": 8}), tiny_set("core", {"": 4})
    with pytest.raises(UserError, match=r"--held-out names every class: .* hold out fewer"):
        opened(known, held_out=("ash", "dust"))
    assert opened(known, core, held_out=("ash", "dust")).classes == []


def test_no_data_is_not_the_folder_one_stands_in(tiny_set: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_set("lake", {"ash": 6}))
    with pytest.raises(UserError, match=r"^--data"):
        opened("")


def test_cut_pixels_are_named(tiny_set: TinySet) -> None:
    root = tiny_set("lake", {"ash": 6})
    shard = opened(root).folder / "pixels" / "00000.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"00000\.npy: packed pixels cannot be read"):
        opened(root)
