"""Damaged, hostile and empty ICELEARNING trees: what is refused, by which words, and that the rest is read."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted_tree import AREA, AUTHOR, SCALE, SOME, WIDTH, dust, listed, png, table, verdicts

from benchmarks.icelearning_tree import make_tree
from particles.sources import icelearning_csv
from particles.sources.icelearning import IceLearning, is_icelearning
from particles.sources.source import BadCrop
from provenance.errors import UserError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("ice"), 300, 3)


def test_an_absent_image_is_told_once(tmp_path: Path) -> None:
    dust(tmp_path, ["d_1.png", "d_2.png"])
    (tmp_path / "dust" / "d_1.png").unlink()
    table(tmp_path / "train.csv", [AREA, "imgpaths", "dust"], [[9, f"{AUTHOR}/dust/d_1.png", 1]])
    assert listed(tmp_path)["reject"].tolist() == ["no such image: dust/d_1.png", None]


@pytest.mark.parametrize("hot", [("0", "0"), ("1", "1"), ("2", "0"), ("1", "x"), ("1", "")])
def test_a_row_has_exactly_one_class(tmp_path: Path, hot: tuple[str, str]) -> None:
    for name in ("a", "b"):
        png(tmp_path / "train" / f"{name}.png")
    rows = [[1, "/c/train/a.png", "1", "0"], [1, "/c/train/b.png", *hot]]
    table(tmp_path / "all.csv", [AREA, "imgpaths", "dust", "qrob"], rows)
    found = listed(tmp_path)
    assert found["label"].tolist() == ["dust", None]
    assert found["reject"].tolist() == [
        None,
        f"all.csv:3: of its class columns exactly one must be 1, the others 0: dust {hot[0]}, qrob {hot[1]}",
    ]


def test_faulty_lines_are_named_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icelearning_csv, "BLOCK_ROWS", 3)
    names = [f"d_{i}.png" for i in range(9)]
    path = dust(tmp_path, names, [1, "1,5", "x", "", "nan", "inf", "-1e400", "0x10", "1_0"])
    lines = path.read_text().splitlines()
    lines.insert(4, "")
    lines[3] = lines[3].replace("x,", '"x",')  # quoted
    lines += [lines[1], "7", f"8,9,{AUTHOR}/dust/d_0.png", f"1,{AUTHOR}/dust/gone.png", "1,", "3"]
    path.write_text("\n".join(lines))
    png(tmp_path / "dust" / "extra.png")
    png(tmp_path / "dust" / ".hidden.png")
    found = listed(tmp_path)
    assert dict(zip(found["particle_id"], found["reject"], strict=True)) == {
        "dust.csv:3": "dust.csv:3: 3 fields under 2 columns",
        "d_2": "dust.csv:4: Area (ABD) is 'x', not a number",
        "d_3": None, "d_4": None, "d_5": None, "d_6": None,
        "d_7": "dust.csv:10: Area (ABD) is '0x10', not a number",
        "d_8": "dust.csv:11: Area (ABD) is '1_0', not a number",
        "d_0": "its image stands twice in dust.csv",
        "dust.csv:13": "dust.csv:13: 1 fields under 2 columns",
        "dust.csv:14": "dust.csv:14: 3 fields under 2 columns",
        "gone": "no such image: dust/gone.png",
        "": "dust.csv:16: no image path",
        "dust.csv:17": "dust.csv:17: 1 fields under 2 columns, the file ends within this row",
        "d_1": "no row in any CSV", "extra": "no row in any CSV",
    }  # fmt: skip
    used = found[found["reject"].isna()]
    assert used[["particle_id", AREA]].to_numpy().tolist() == [["d_0", 1.0], *([f"d_{i}", None] for i in (3, 4, 5, 6))]


def test_a_file_cut_in_the_middle_of_a_row_names_the_line(tree: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tree / "camp", tmp_path / "ice" / "camp").parent
    whole = (tree / "camp.csv").read_bytes()
    (root / "camp.csv").write_bytes(whole[: whole.rindex(b"/home") + 9])
    *rest, cut = [reason for reason in verdicts(root).values() if reason]
    assert rest == ["camp.csv:5: 57 fields under 64 columns, the file ends within this row"]
    assert cut == "no row in any CSV"


def test_damaged_images_are_refused_when_read(tmp_path: Path) -> None:
    dust(tmp_path, ["empty.png", "cut.png", "good.png"])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "dust" / "cut.png")
    whole = (tmp_path / "dust" / "cut.png").read_bytes()
    (tmp_path / "dust" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dust" / "empty.png").write_bytes(b"")
    png(tmp_path / "dust" / "good.png", 77)
    source, rows = IceLearning(tmp_path), pd.concat(IceLearning(tmp_path).rows()).set_index("particle_id")
    assert (source.read(rows.loc["good"]) == 77).all()
    with pytest.raises(BadCrop, match="empty file"):
        source.read(rows.loc["empty"])
    with pytest.raises(BadCrop, match="does not decode"):
        source.read(rows.loc["cut"])
    (tmp_path / "dust" / "good.png").unlink()
    with pytest.raises(BadCrop, match=r"no such image: dust/good\.png"):
        source.read(rows.loc["good"])


MIXED = (
    "dust.csv: decimal points and commas are mixed (line 2, column 'Width': '1.5'; "
    "line 2, column 'Area (ABD)': '1,5'); save it with '.' in numbers"
)
SHIFTED = (
    "dust.csv, line 2: 5 fields under 3 columns, perhaps decimal commas from column 'Area (ABD)' on; "
    "save it with '.' in numbers, or with ';' between fields"
)


@pytest.mark.parametrize(
    ("separator", "rows", "said"),
    [(";", [["1,5", "1.5"]], MIXED), (",", [["1,5", "2,5"], ["3,5", "4"]], SHIFTED)],
)
def test_numbers_that_cannot_be_told_are_refused(
    tmp_path: Path, separator: str, rows: list[list[str]], said: str
) -> None:
    png(tmp_path / "dust" / "a.png")
    table(tmp_path / "dust.csv", [AREA, WIDTH, "imgpaths"], [[*row, "/x/dust/a.png"] for row in rows], separator)
    with pytest.raises(UserError) as error:
        listed(tmp_path)
    assert str(error.value) == f"{tmp_path}/{said}"


@pytest.mark.parametrize("quote", ["", '"'], ids=["fast", "field by field"])
def test_a_missing_number_is_missing_in_any_case(tmp_path: Path, quote: str) -> None:
    given = ["n/a", "N/A", "N/a", "NULL", "Null", "na", "#n/a", "NAN", "-NaN", "-", ""]
    names = [f"d_{i}.png" for i in range(len(given) + 1)]
    dust(tmp_path, names, [f"{quote}{value}{quote}" for value in [*given, "2.5"]])
    found = listed(tmp_path)
    assert found["reject"].isna().all()
    assert found[AREA].isna().tolist() == [True] * len(given) + [False]


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "dust.csv", [AREA, AREA, "imgpaths"], [[1, 2, "/x/a.png"]])
    with pytest.raises(UserError, match=r"dust.csv, line 1: column 'Area \(ABD\)' stands twice"):
        listed(tmp_path)


def test_a_file_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    dust(tmp_path, ["a.png"])
    png(tmp_path / "b.png").rename(Path(os.fsdecode(os.fsencode(tmp_path / "dust") + b"/\xf6.png")))
    assert verdicts(tmp_path) == {"dust/a.png": None, "dust/�.png": "no row in any CSV"}


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "ice", tmp_path / "secret"
    for name in ("a.png", "file.png", "in.png"):
        png(secret / name)
    png(root / "dust" / "own.png")
    (root / "dust" / "file.png").symlink_to(secret / "file.png")
    (root / "dust" / "in.png").symlink_to(root / "dust" / "own.png")
    (root / "linked").symlink_to(secret, target_is_directory=True)
    paths = [
        "/x/dust/file.png",
        "/x/dust/in.png",
        "/x/linked/a.png",
        "/x/dust/../../secret/a.png",
        f"{secret}/a.png",
        "/x/dust/..",
    ]
    table(root / "list.csv", [AREA, "imgpaths"], [[1, path] for path in paths])
    table(secret / "more.csv", [AREA, "imgpaths"], [[1, "a.png"]])
    (root / "more.csv").symlink_to(secret / "more.csv")
    found = listed(root)
    assert found["reject"].tolist() == [
        "dust/file.png is a link out of the data folder",
        None,
        "its folder is a link out of the data folder",
        "its path goes up by '..'",
        "no such image: a.png",
        "no such image: dust/..",
        "no row in any CSV",
    ]
    for image in [*found["image"][[0, 2, 3, 4, 5]], str(secret / "a.png"), "../secret/a.png", "a\0.png", "x" * 5000]:
        with pytest.raises(BadCrop, match=r"out of the data folder|no such image"):
            IceLearning(root).read(SimpleNamespace(image=image))


def test_two_folders_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    for copy in ("old", "new"):
        png(tmp_path / copy / "train" / "dust" / f"{copy}.png")
        png(tmp_path / copy / "ash" / "dust" / f"ash_{copy}.png")
    table(
        tmp_path / "old" / "x.csv", [AREA, "imgpaths"], [[1, "/y/train/dust/old.png"], [1, "/y/ash/dust/ash_old.png"]]
    )
    table(tmp_path / "z.csv", [AREA, "imgpaths"], [[1, "/y/train/dust/new.png"], [1, "/y/new/train/dust/new.png"]])
    assert listed(tmp_path)[["particle_id", "image", "reject"]].to_numpy().tolist() == [
        ["old", "old/train/dust/old.png", None],
        ["ash_old", "old/ash/dust/ash_old.png", None],
        ["new", "new/train/dust/new.png", "its folder may be new/train/dust or old/train/dust"],
        ["new", "new/train/dust/new.png", None],
        ["ash_new", "new/ash/dust/ash_new.png", "no row in any CSV"],
    ]


def test_a_table_without_image_paths_is_told_and_so_are_its_images(tmp_path: Path) -> None:
    """Its rows are of nobody; else a whole core would be gone, and something else be searched."""
    dust(tmp_path, ["d_1.png"])
    png(tmp_path / "GRIP" / "GRIP_1_0_20_1_1.png")
    png(tmp_path / "notes" / "deeper" / "x.png")
    names = [AREA, WIDTH, "Length", "Perimeter", "Circularity"]
    table(tmp_path / "GRIP.csv", names, [[1, 2, 3, 4, 5]])
    table(tmp_path / "other.csv", names[:4], [[1, 2, 3, 4]])
    assert verdicts(tmp_path) == {
        "dust/d_1.png": None,
        "GRIP.csv": "a table without the column 'imgpaths': whose rows?",
        "GRIP/GRIP_1_0_20_1_1.png": "no row in any CSV",
        "notes/deeper/x.png": "no row in any CSV",
    }


@pytest.mark.parametrize("name", ["Area(ABD)", "area (abd)", "Area_ABD", " AREA  (ABD)"])
def test_a_scalar_is_known_however_it_is_spelled(tmp_path: Path, name: str) -> None:
    png(tmp_path / "dust" / "d.png")
    table(tmp_path / "dust.csv", [name, "imgpaths"], [[4.5, "/x/dust/d.png"]])
    assert listed(tmp_path)[AREA].tolist() == [4.5]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no CSV with the column 'imgpaths'"),
        ({"a.csv": ""}, "no CSV with the column 'imgpaths'"),
        ({"a.csv": "imgpaths,File_name\n1,2\n"}, "no CSV with the column 'imgpaths'"),
        ({"a.csv": f"{AREA},imgpaths\n", "b.csv": f"{AREA},imgpaths"}, "a.csv, b.csv has no rows below its header"),
    ],
)
def test_a_set_of_nothing_is_said(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        listed(tmp_path)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: no such folder"):
        listed(tmp_path / "gone")


def listed_or_refused(root: Path) -> pd.DataFrame | str:
    try:
        return listed(root)
    except UserError as error:
        return str(error)


HEADER = f"{AREA},{WIDTH},{SCALE},imgpaths,dust,camp\n".encode()
LINE = b"1.5,2,0.2752,/x/dust/a.png,1,0\n"


@SOME
@given(
    st.sampled_from([b"", HEADER, HEADER.replace(b",", b";"), b"\xef\xbb\xbf" + HEADER, HEADER + LINE]),
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([LINE, b'"', b"\n", b"\r", b",", b";", b"\0", b"1,5;"]))
    ),
)
def test_any_bytes_are_read_or_refused_by_name(header: bytes, body: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        png(Path(folder) / "dust" / "a.png")
        (Path(folder) / "x.csv").write_bytes(header + b"".join(body))
        is_icelearning(Path(folder))
        found = listed_or_refused(Path(folder))
    if isinstance(found, str):
        assert folder in found
        assert "\n" not in found
    else:
        assert set(found.loc[found["reject"].isna(), "image"]) <= {"dust/a.png"}
        assert found["reject"].isna().sum() <= 1


PART = st.text("abcXYZ019 _-µö", min_size=1, max_size=8).map(lambda name: name.strip() or "x")
PREFIX = st.lists(st.one_of(PART, st.sampled_from(["..", ".", "dust", "train", "C:"])), max_size=5)


@SOME
@given(PREFIX, st.sampled_from(["/", "\\"]), st.booleans())
def test_any_author_means_the_same_file(prefix: list[str], slash: str, rooted: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "ice"
        png(root / "train" / "dust" / "a_1.png")
        path = (slash if rooted else "") + slash.join([*prefix, "train", "dust", "a_1.png"])
        table(root / "x.csv", [AREA, "imgpaths"], [[1, path]])
        found = verdicts(root)
    if ".." in prefix:
        assert "its path goes up by '..'" in found.values()
        assert None not in found.values()
    else:
        assert found == {"train/dust/a_1.png": None}
