"""ICELEARNING trees, in all their forms: what is listed, under which label, with which numbers, from which file."""

import csv
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_tree import AREA, AUTHOR, SCALE, SOME, WIDTH, dust, listed, png, table

from benchmarks.icelearning_tree import make_tree
from particles.scalars import SCALARS
from particles.sources.folder import read_grey
from particles.sources.icelearning import IceLearning, is_icelearning
from particles.table import ROW_COLUMNS


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("ice"), 300, 3)


def told(paths: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Particle id -> its line, read without any of our code."""
    found = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            found |= {row["imgpaths"].rpartition("/")[2].removesuffix(".png"): row for row in csv.DictReader(file)}
    return found


def test_a_whole_tree_gives_what_its_tables_say(tree: Path) -> None:
    lines = told(sorted(tree.rglob("*.csv")))
    rows = listed(tree.parent).set_index("particle_id")
    assert set(rows.index) == set(lines)
    assert rows["reject"].isna().all()
    for name, line in lines.items():
        row = rows.loc[name]
        assert [row[scalar] for scalar in SCALARS] == [float(line[scalar]) for scalar in SCALARS]
        label = next(
            (label for label in ("dust", "camp", "grim", "corylus", "qrob", "qsub", "cont") if line.get(label) == "1"),
            None,
        )
        assert (row["label"], row["truth"], row["role"]) == (label, label, "labeled" if label else "core")
        assert row["um_per_px"] == 0.2752
        height, width = read_grey(tree.parent / row["image"]).shape
        assert (height, width) == (int(line["Image Height"]), int(line["Image Width"]))
        assert Path(row["image"]).stem == name
    assert rows.loc["GRIP_3303_40_55_1_2", ["core", "bag", "top_cm", "bottom_cm", "repeat", "sample"]].tolist() == [
        "GRIP", 3303, 40.0, 55.0, 1, "GRIP_3303_40_55_1"
    ]  # fmt: skip
    assert rows.loc["dust_11nov_4_fc80_20x_1", ["core", "bag", "sample"]].tolist() == [
        None,
        None,
        "dust_11nov_4_fc80_20x",
    ]


def test_rows_are_the_same_twice_and_in_a_copy_of_the_source(tree: Path) -> None:
    source = IceLearning(tree)
    first, again = (pd.concat(s.rows()) for s in (source, pickle.loads(pickle.dumps(source))))
    pd.testing.assert_frame_equal(first, again)
    assert list(first.columns) == [*ROW_COLUMNS, "reject", *SCALARS]


@pytest.mark.parametrize(
    ("part", "ids"),
    [
        ("test/GRIP_raw", {f"GRIP_{bag}" for bag in (3046, 3136, 3303, 3306)}),
        ("test/GRIP_raw/GRIP_3136_0_20_1", {"GRIP_3136"}),
    ],
)
def test_any_part_of_the_tree_can_be_the_root(tree: Path, tmp_path: Path, part: str, ids: set[str]) -> None:
    root = shutil.copytree(tree / part, tmp_path / Path(part).name)
    if not list(root.glob("*.csv")):
        shutil.copy(tree / "test/GRIP_raw/GRIP_3136_raw.csv", root)
    rows = listed(root)
    assert rows["reject"].isna().all()
    assert {"_".join(name.split("_")[:2]) for name in rows["particle_id"]} == ids
    assert (rows["role"] == "core").all()
    assert all((root / image).is_file() for image in rows["image"])


def test_one_table_beside_its_folder_is_a_core(tmp_path: Path) -> None:
    name = "QCY_27_3_2_fc80_20x_000001.png"
    png(tmp_path / "QCY_27_3_2_fc80_20x" / name)
    table(tmp_path / "QCY.csv", [AREA, "imgpaths"], [[2, f"C:\\Users\\me\\QCY_27_3_2_fc80_20x\\{name}"]])
    [row] = listed(tmp_path).to_dict("records")
    assert row["image"] == f"QCY_27_3_2_fc80_20x/{name}"
    assert [row[key] for key in ("role", "label", "core", "bag", "top_cm", "repeat", "reject")] == [
        "core", None, "QCY", 27, None, 2, None
    ]  # fmt: skip


def test_train_gives_only_what_no_class_table_has(tmp_path: Path) -> None:
    dust(tmp_path, ["d_1.png", "d_2.png"])
    png(tmp_path / "camp" / "c_1.png")
    paths = [
        f"{AUTHOR}/dust/d_1.png",
        f"{AUTHOR}/dust/d_2.png",
        f"{AUTHOR}\\campanian\\c_1.png",
        f"{AUTHOR}/dust/no.png",
    ]
    rows = [[9, path, int("dust" in path), int("camp" in path)] for path in [*paths, paths[2]]]
    table(tmp_path / "train.csv", [AREA, "imgpaths", "dust", "campanian"], rows)
    found = listed(tmp_path)
    assert found[["image", "label", AREA, "reject"]].to_numpy().tolist() == [
        ["dust/d_1.png", "dust", 1.5, None],
        ["dust/d_2.png", "dust", 1.5, None],
        ["camp/c_1.png", "camp", 9.0, None],
        ["dust/no.png", "dust", 9.0, "no such image: dust/no.png"],
        ["camp/c_1.png", "camp", 9.0, "its image stands twice in train.csv"],
    ]


def test_a_labeled_particle_is_not_in_the_core_too(tmp_path: Path) -> None:
    name = "GRIP_3046_0_20_1_1081.png"
    png(tmp_path / "cont" / name)
    png(tmp_path / "test" / "GRIP_raw" / "GRIP_3046_0_20_1" / name)
    table(
        tmp_path / "test" / "GRIP_raw" / "GRIP_3046_raw.csv",
        ["Sample", AREA, "imgpaths"],
        [["s", 1, f"/a/GRIP_3046_0_20_1/{name}"]],
    )
    table(tmp_path / "cont.csv", [AREA, "imgpaths", "dust", "cont"], [[1, f"/a/cont/{name}", "0.0", "1.0"]])
    found = listed(tmp_path)
    assert found[["label", "role", "bag", "reject"]].to_numpy().tolist() == [
        ["cont", "labeled", 3046, None],
        [None, "core", 3046, "a particle of this name was listed before"],
    ]


@pytest.mark.parametrize(
    ("where", "folder", "label"),
    [
        ("dust.csv", "dust", "dust"),
        ("dust/list.csv", "dust", "dust"),
        ("campanian.csv", "camp", "camp"),
        ("spores.csv", "spores", "spores"),
        ("list.csv", "dust", None),
        ("test/dust.csv", "test/dust", None),
        ("GRIP_1_raw.csv", "GRIP_1_raw", None),
    ],
)
def test_a_table_without_classes_is_of_its_folder(tmp_path: Path, where: str, folder: str, label: str | None) -> None:
    png(tmp_path / folder / "a_1.png")
    table(tmp_path / where, [AREA, "imgpaths"], [[1, f"/b/{folder}/a_1.png"]])
    [row] = listed(tmp_path).to_dict("records")
    assert (row["label"], row["role"]) == (label, "labeled" if label else "core")
    assert row["reject"] is None


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        png(tmp_path / "dust" / name)
    rows = [
        ["1,5", "2,75e1", "0,5544", "/x/dust/a.png"],
        ["3", '"4,25"', "0", "/x/dust/b.png"],
        ["1.234,5", "1", "", "/x/dust/c.png"],
    ]
    table(tmp_path / "dust.csv", [AREA, WIDTH, SCALE, "imgpaths"], rows, ";")
    found = listed(tmp_path)
    assert found[["image", AREA, WIDTH, "um_per_px"]].to_numpy().tolist()[:2] == [
        ["dust/a.png", 1.5, 27.5, 0.5544],
        ["dust/b.png", 3.0, 4.25, 0.2752],
    ]
    assert found["reject"].tolist() == [None, None, "dust.csv:4: Area (ABD) is '1.234,5', not a number"]


@pytest.mark.parametrize(("separator", "decimal"), [(";", "."), (";", ","), ("\t", "."), ("\t", ","), (",", ".")])
def test_every_separator_gives_the_same_numbers(tmp_path: Path, separator: str, decimal: str) -> None:
    values = [0.1, 1234.5678, 2.5e-7, 0.2752, 3.0]
    path = dust(tmp_path, [f"d_{i}.png" for i in range(5)], values)
    lines = [line.replace(",", separator) for line in path.read_text().splitlines()]
    path.write_text(
        "\n".join(
            [
                lines[0],
                *(
                    line.partition(separator)[0].replace(".", decimal) + separator + line.partition(separator)[2]
                    for line in lines[1:]
                ),
            ]
        )
    )
    assert listed(tmp_path)[AREA].tolist() == values


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "latin-1"])
def test_non_ascii_names_are_found_in_any_coding(tmp_path: Path, coding: str) -> None:
    names = ["Grímsvötn_1.png", "b µ,2.png", "c_3.png"]
    for name in names:
        png(tmp_path / "grim" / name)
    lines = [f"{AREA},imgpaths", *(f'{i},"/Ísland/grim/{name}"' for i, name in enumerate(names))]
    (tmp_path / "grim.csv").write_bytes("\r\n".join(lines).encode(coding))
    found = listed(tmp_path)
    assert found["image"].tolist() == [f"grim/{name}" for name in names]
    assert found[AREA].tolist() == [0.0, 1.0, 2.0]
    assert found["reject"].isna().all()


def test_columns_that_one_table_lacks_are_missing_there(tmp_path: Path) -> None:
    dust(tmp_path, ["d_1.png"])
    png(tmp_path / "camp" / "c_1.png")
    table(tmp_path / "camp.csv", [WIDTH, "imgpaths"], [[7, "/x/camp/c_1.png"]])
    found = listed(tmp_path)
    assert [name for name in found.columns if name in SCALARS] == [AREA, WIDTH]
    assert found[["particle_id", AREA, WIDTH]].to_numpy().tolist() == [["c_1", None, 7.0], ["d_1", 1.5, None]]


def test_trees_are_told_from_other_folders(tmp_path: Path, tree: Path) -> None:
    assert is_icelearning(tree)
    assert is_icelearning(tree.parent)
    assert not is_icelearning(tree / "dust")
    png(tmp_path / "a" / "b.png")
    table(tmp_path / "a" / "particles.csv", ["Particle ID", AREA, "File_name"], [[1, 2, "b.png"]])
    assert not is_icelearning(tmp_path)
    table(tmp_path / "a" / "more.CSV", ["Particle ID", "imgpaths"], [[1, "b.png"]])
    assert is_icelearning(tmp_path)


def test_a_changed_tree_changes_the_description(tmp_path: Path) -> None:
    path = dust(tmp_path, ["a.png", "b.png"])
    source = IceLearning(tmp_path)
    before = [source.describe()]
    assert source.describe() == before[0]
    for change in (
        lambda: path.write_text(path.read_text() + "\n"),
        lambda: png(tmp_path / "dust" / "c.png"),
        lambda: os.utime(tmp_path / "dust" / "a.png", ns=(1, 1)),
        lambda: (tmp_path / "dust" / "b.png").rename(tmp_path / "dust" / "d.png"),
    ):
        change()
        before.append(source.describe())
    assert len({str(description) for description in before}) == 5
    assert IceLearning(tmp_path, um_per_px=1.0).describe() != before[-1]


NAME = (
    st.text("abcXYZ019 _-µö,;'", min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda name: name not in ("", ".", ".."))
)
REAL = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**9), 10**9))


@SOME
@given(
    st.dictionaries(NAME.map(lambda name: f"p{name}"), st.tuples(REAL, REAL), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_table_comes_back_as_rows(content: dict[str, tuple[Any, Any]], separator: str, quoting: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in content:
            png(Path(folder) / "qsub" / f"{name}.png")
        with (Path(folder) / "qsub.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=separator, quoting=quoting)
            writer.writerow(["Particle ID", AREA, WIDTH, "imgpaths"])
            writer.writerows([i, *content[name], f"/q/qsub/{name}.png"] for i, name in enumerate(content))
        rows = listed(Path(folder))
    found = {row["particle_id"]: (row[AREA], row[WIDTH]) for row in rows.to_dict("records")}
    assert rows["reject"].isna().all()
    assert rows["label"].tolist() == ["qsub"] * len(content)
    assert found == {name: tuple(None if v is None else float(v) for v in values) for name, values in content.items()}


@pytest.mark.real
def test_real_crops_with_a_table_of_ours(data_root: Path, tmp_path: Path) -> None:
    names = ("camp", "cont", "corylus", "dust", "grim", "qrob", "qsub")
    crops = {}
    for name in names:
        [crop] = shutil.copytree(data_root / "icelearning_crops" / name, tmp_path / name).glob("*.png")
        table(tmp_path / f"{name}.csv", [AREA, "imgpaths"], [[1, f"{AUTHOR}/{name}/{crop.name}"]])
        crops[crop.stem] = name
    rows = pd.concat(IceLearning(tmp_path).rows())
    assert dict(zip(rows["particle_id"], rows["label"], strict=True)) == crops
    assert rows.set_index("label").loc["cont", ["core", "bag", "sample"]].tolist() == ["GRIP", 3046, "GRIP_3046_0_20_1"]
    assert rows.set_index("label").loc["camp", "sample"] == "camp_11nov_4_fc80_20x"
    for row in rows.itertuples():
        assert np.ptp(IceLearning(tmp_path).read(row)) > 10, "shows something"
