"""A folder of crops, good and bad: what is found, who is labeled, which grey a pixel gets, what is left out."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from particles.packing import pack
from particles.sources import folder
from particles.sources.folder import Folder, read_grey
from particles.sources.source import BadCrop
from particles.squares import PackSettings
from particles.table import read_parquet, validated
from provenance.errors import UserError
from provenance.files import read_json

GREYS = np.array([[0, 1, 127, 128], [200, 254, 255, 10], [90, 91, 92, 93]], np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(path, **options)
    return path


def crop(path: Path, grey: int = 90, shape: tuple[int, int] = (9, 8)) -> Path:
    pixels = np.full(shape, 200, np.uint8)
    pixels[2:-2, 2:-2] = grey
    return saved(path, pixels)


def over(color: tuple[int, ...], mode: str) -> Image.Image:
    return Image.new(mode, (3, 2), color)


def palette_image(transparent: bool) -> Image.Image:
    """Indices 0, 1, 2 with palette black, white, (10, 20, 30) reversed from their order."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0, 60, 60, 60])
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "a.PNG"])
def test_grey_files_decode_exactly(tmp_path: Path, name: str) -> None:
    grey = read_grey(saved(tmp_path / name, GREYS))
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, GREYS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_decodes_exactly(tmp_path: Path, compression: str) -> None:
    np.testing.assert_array_equal(read_grey(saved(tmp_path / "a.tif", GREYS, compression=compression)), GREYS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_decodes_closely(tmp_path: Path, mode: str) -> None:
    smooth = np.linspace(60, 180, 24 * 16).reshape(16, 24).astype(np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth).convert(mode), quality=95)
    assert np.abs(read_grey(path).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("color", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((130, 130, 130), 130)]
)
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_color_becomes_luma(tmp_path: Path, color: tuple[int, ...], grey: int, suffix: str) -> None:
    assert read_grey(saved(tmp_path / f"a.{suffix}", over(color, "RGB"))).tolist() == [[grey] * 3] * 2


@pytest.mark.parametrize(
    ("mode", "color", "grey"),
    [
        ("RGBA", (0, 0, 0, 0), 255),
        ("RGBA", (0, 0, 0, 255), 0),
        ("RGBA", (0, 0, 0, 128), 127),
        ("RGBA", (255, 0, 0, 255), 76),
        ("LA", (100, 255), 100),
        ("LA", (100, 0), 255),
        ("LA", (0, 51), 204),
    ],
)
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str, color: tuple[int, ...], grey: int) -> None:
    assert read_grey(saved(tmp_path / "a.png", over(color, mode))).tolist() == [[grey] * 3] * 2


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    assert read_grey(saved(tmp_path / "a.png", palette_image(False))).tolist() == [[255, 0, 60]]
    assert read_grey(saved(tmp_path / "b.png", palette_image(True))).tolist() == [[255, 255, 60]]


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert read_grey(saved(tmp_path / "a.png", image)).tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_by_the_range_of_the_type(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_grey(saved(tmp_path / f"a.{suffix}", GREYS.astype(np.uint16) * 257)), GREYS)
    half = np.array([[0, 300, 32768, 50000]], np.uint16)
    assert read_grey(saved(tmp_path / f"b.{suffix}", half)).tolist() == [[0, 1, 128, 195]]
    dark = np.array([[0, 100, 200, 250]], np.uint16)
    assert read_grey(saved(tmp_path / f"c.{suffix}", dark)).tolist() == [[0, 0, 1, 1]], "whatever else it holds"


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_fewer_bits_in_a_16_bit_file_fill_the_range(tmp_path: Path, bits: int, white: int) -> None:
    values = np.array([[0, white // 4, white // 2, white]], np.uint16)
    path = saved(tmp_path / "a.png", values)
    assert read_grey(path, bits).tolist() == np.rint(values * (255 / white)).tolist()
    assert read_grey(path, bits)[0, -1] == 255
    if bits < 16:
        with pytest.raises(BadCrop, match=f"outside 0 to {white}, the range of --bit-depth {bits}"):
            read_grey(saved(tmp_path / "b.png", values + np.uint16(1)), bits)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_8_bit_values_in_a_wider_type_are_read(tmp_path: Path, kind: type) -> None:
    np.testing.assert_array_equal(read_grey(saved(tmp_path / "a.tif", GREYS.astype(kind)), 8), GREYS)


def test_the_bit_depth_leaves_8_bit_files_alone(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_grey(saved(tmp_path / "a.png", GREYS), 12), GREYS)


def packed_backgrounds(root: Path, out: Path, bit_depth: int = 0) -> tuple[list[float], list[str]]:
    """Background of each crop once packed, and what was said."""
    said: list[str] = []
    pack(Folder(root, bit_depth=bit_depth), out, PackSettings(size=8, scalars=False), said.append)
    return read_parquet(out / "table.parquet")["background"].tolist(), said


def test_crops_of_a_12_bit_camera_are_scaled_alike_and_the_remedy_is_said(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    for name, background in (("a", 3600), ("b", 250), ("c", 2400)):
        saved(root / f"{name}.png", np.full((9, 9), background, np.uint16))
    saved(root / "d.png", np.full((9, 9), 200, np.uint8))
    values, said = packed_backgrounds(root, tmp_path / "full")
    assert values == [14, 1, 9, 200]
    assert said == [
        "lake: the brightest pixel of its 16-bit crops (3 looked at) is 3600 of 65535, so they come out nearly black: "
        "give --bit-depth 12 if that is what the camera has"
    ]
    assert packed_backgrounds(root, tmp_path / "twelve", 12) == ([224, 16, 149, 200], [])


@pytest.mark.parametrize(("brightest", "advised"), [(255, 8), (256, 10), (4095, 12), (16383, 14), (16384, None)])
def test_the_bit_depth_that_fits_is_the_smallest(tmp_path: Path, brightest: int, advised: int | None) -> None:
    saved(tmp_path / "a.tif", np.array([[3, brightest]], np.uint16))
    damaged(tmp_path)
    found = Folder(tmp_path).advice()
    assert found is None if advised is None else f"--bit-depth {advised} " in str(found)


def test_a_large_set_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LOOKED_AT", 4)
    for i in range(12):
        saved(tmp_path / f"{i:02d}.png", np.full((3, 3), 1000 + i, np.uint16))
    assert "16-bit crops (4 looked at) is 1009 of" in str(Folder(tmp_path).advice()), "00, 03, 06, 09"


@pytest.mark.parametrize("bits", [-1, 7, 17])
def test_a_bit_depth_that_no_file_has_is_refused(tmp_path: Path, bits: int) -> None:
    with pytest.raises(UserError, match=f"^--bit-depth {bits}: give 8 to 16, or 0"):
        Folder(tmp_path, bit_depth=bits)


@pytest.mark.parametrize(
    ("values", "reason"), [([[0.0, np.nan]], "no number"), ([[-1.0, 5.0]], "outside"), ([[7e4, 5.0]], "outside")]
)
def test_a_tiff_that_is_no_picture_is_refused(tmp_path: Path, values: list[list[float]], reason: str) -> None:
    with pytest.raises(BadCrop, match=reason):
        read_grey(saved(tmp_path / "a.tif", np.array(values, np.float32)))


def damaged(folder: Path) -> dict[str, str]:
    """Files that are no crops, and what the reason must say."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("particle_id,area\n1,2\n")
    (folder / "wrong.bmp").write_bytes(b"BM" + bytes(30))
    whole = saved(folder / "cut.png", noise).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    whole = saved(folder / "half.jpg", noise).read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    saved(folder / "dot.png", np.zeros((1, 1), np.uint8))
    saved(folder / "line.png", np.zeros((1, 40), np.uint8))
    saved(folder / "wide.png", np.zeros((2, 20000), np.uint8))
    return {
        "empty.png": "empty file",
        "text.png": "not an image",
        "wrong.bmp": "does not decode",
        "cut.png": "does not decode",
        "half.jpg": "does not decode",
        "dot.png": "1 x 1 px, smaller than 2 px",
        "line.png": "40 x 1 px, smaller than 2 px",
        "wide.png": "20000 x 2 px, larger than 8192 px",
    }


def test_bad_crops_are_listed_and_the_rest_is_packed(tmp_path: Path) -> None:
    root, out, said = tmp_path / "lake", tmp_path / "packed", []
    for i in range(3):
        crop(root / f"good{i}.png", 60 + i)
    reasons = damaged(root)
    pack(Folder(root), out, PackSettings(size=16), said.append)
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        rejected = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rejected) == set(reasons)
    for image, reason in reasons.items():
        assert reason in rejected[image]["reason"], image
    table = read_parquet(out / "table.parquet")
    assert table["particle_id"].tolist() == ["good0", "good1", "good2"]
    assert len(np.load(out / "pixels" / "00000.npy")) == 3
    assert read_json(out / "set.json")["rejected"] == len(reasons)
    assert len(said) == 1
    assert said[0].startswith(f"8 of 11 crops left out, listed in {out / 'rejected.csv'}; most often (2): ")


def test_a_folder_of_bad_crops_only(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    n = len(damaged(root))
    with pytest.raises(
        UserError, match=f"lake: none of its {n} crops can be used; most often .*; each is in .*rejected.csv"
    ):
        pack(Folder(root), tmp_path / "packed", PackSettings())
    assert (tmp_path / "packed" / "rejected.csv").read_text().count("\n") == n + 1
    assert not (tmp_path / "packed" / "set.json").exists()


def test_a_larger_least_size_is_kept_to(tmp_path: Path) -> None:
    crop(tmp_path / "in" / "small.png", shape=(14, 40))
    crop(tmp_path / "in" / "large.png", shape=(15, 40))
    pack(Folder(tmp_path / "in"), tmp_path / "out", PackSettings(min_size=15), lambda line: None)
    assert read_parquet(tmp_path / "out" / "table.parquet")["particle_id"].tolist() == ["large"]


@pytest.mark.parametrize("make", ["nothing", "text", "hidden"])
def test_a_folder_without_images(tmp_path: Path, make: str) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    if make == "text":
        (root / "notes.txt").write_text("no crops here")
    if make == "hidden":
        crop(root / "._a.png")
    with pytest.raises(UserError, match="lake: no particles found"):
        pack(Folder(root), tmp_path / "packed", PackSettings())


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Folder(tmp_path / "gone").rows()


def test_subfolders_are_classes_and_loose_crops_the_core(tmp_path: Path) -> None:
    for name in ("dust/d1.png", "dust/deep/d2.JPG", "Grímsvötn/Öræfa 1.png", "loose.bmp", "b.tiff"):
        crop(tmp_path / name)
    (tmp_path / "dust" / "list.csv").write_text("not a crop")
    rows = validated(Folder(tmp_path, um_per_px=0.2752).rows(), "lake")
    columns = ["label", "truth", "role"]
    rows[columns] = rows[columns].fillna("")
    found = {row.particle_id: (row.label, row.truth, row.role) for row in rows.itertuples()}
    assert found == {
        "d1": ("dust", "dust", "labeled"),
        "d2": ("dust", "dust", "labeled"),
        "Öræfa 1": ("Grímsvötn", "Grímsvötn", "labeled"),
        "loose": ("", "", "core"),
        "b": ("", "", "core"),
    }
    assert (rows["um_per_px"] == 0.2752).all()
    assert rows["split"].isna().all()
    assert rows["image"].tolist() == sorted(rows["image"])


def test_a_core_sorted_by_sample_has_no_labels(tmp_path: Path) -> None:
    for name in (
        "GRIP_3046_0_20_1/GRIP_3046_0_20_1_7.png", "grip_3306_20_40_2/deep/x.png", "QCY_27_3_2_fc80_20x/y.png",
        "GRIP_3046/GRIP_3046_0_20_1_8.png", "dust/GRIP_3303_40_55_1/z.png",
    ):  # fmt: skip
        crop(tmp_path / name)
    rows = validated(Folder(tmp_path).rows(), "lake").set_index("particle_id")
    labels = rows["label"].dropna().to_dict()
    assert labels == {"z": "dust", "GRIP_3046_0_20_1_8": "GRIP_3046"}, "that one is no name of a sample"
    assert rows["truth"].dropna().to_dict() == labels
    assert (rows["role"] == "core").tolist() == rows["label"].isna().tolist()
    of_name = rows.loc["GRIP_3046_0_20_1_7", ["core", "bag", "top_cm", "bottom_cm", "repeat"]]
    assert of_name.tolist() == ["GRIP", 3046, 0.0, 20.0, 1]
    assert rows.loc["x", ["core", "bag", "top_cm", "bottom_cm", "repeat"]].isna().all()


def test_folders_of_splits_are_no_classes_but_prescribe_the_splits(tmp_path: Path) -> None:
    for name in ("Train/dust/1.png", "Train/camp/2.png", "TEST/dust/1.png", "Validation/dust/4.png", "val/camp/5.png",
                 "grim/6.png", "TEST/7.png", "Train/GRIP_3046_0_20_1/8.png", "train.png"):  # fmt: skip
        crop(tmp_path / name)
    rows = validated(Folder(tmp_path).rows(), "lake")
    rows[["label", "split"]] = rows[["label", "split"]].fillna("")
    assert {row.image: (row.label, row.split, row.role) for row in rows.itertuples()} == {
        "Train/dust/1.png": ("dust", "train", "labeled"),
        "Train/camp/2.png": ("camp", "train", "labeled"),
        "TEST/dust/1.png": ("dust", "test", "labeled"),
        "Validation/dust/4.png": ("dust", "val", "labeled"),
        "val/camp/5.png": ("camp", "val", "labeled"),
        "grim/6.png": ("grim", "", "labeled"),
        "TEST/7.png": ("", "", "core"),
        "Train/GRIP_3046_0_20_1/8.png": ("", "", "core"),
        "train.png": ("", "", "core"),
    }


@pytest.mark.parametrize("folders", [("train", "val"), ("test",), ("train",)])
def test_a_split_without_its_counterpart_prescribes_nothing(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        crop(tmp_path / name / "dust" / f"{name}.png")
    crop(tmp_path / "test" / "loose.png")
    rows = Folder(tmp_path).rows()
    assert rows["split"].isna().all()
    assert rows["label"].dropna().tolist() == ["dust"] * len(folders)


def test_non_ascii_names_are_packed(tmp_path: Path) -> None:
    crop(tmp_path / "Ísjaki" / "Grímsvötn" / "Öræfa µ 1.png")
    pack(Folder(tmp_path / "Ísjaki"), tmp_path / "packed", PackSettings(size=16))
    table = read_parquet(tmp_path / "packed" / "table.parquet")
    assert table["image"].tolist() == ["Grímsvötn/Öræfa µ 1.png"]
    assert table["label"].tolist() == ["Grímsvötn"]
    assert read_json(tmp_path / "packed" / "set.json")["name"] == "Ísjaki"


def test_rows_lead_to_their_own_pixels(tmp_path: Path) -> None:
    for i, name in enumerate(("b/1.png", "a/2.png", "0.png")):
        crop(tmp_path / name, grey=10 * i)
    source = Folder(tmp_path)
    greys = {row.particle_id: int(source.read(row)[4, 4]) for row in source.rows().itertuples()}
    assert greys == {"1": 0, "2": 10, "0": 20}


@pytest.mark.parametrize(
    "ids",
    [
        {"a/1.png": "a/1", "b/1.png": "b/1", "b/2.png": "2", "c/3.png": "3"},
        {"1.png": "1", "a/1.png": "a/1"},
        {"a/1.png": "a/1.png", "a/1.bmp": "a/1.bmp", "a/2.png": "2"},
        {"a/1.PNG": "a/1.PNG", "a/1.png": "a/1.png", "b/1.png": "b/1"},
        {"1.png": "1.png", "1.bmp": "1.bmp", "a/1.png": "a/1"},
        {"1.png": "1.png", "1.bmp": "1.bmp", "1.png.png": "1.png.png"},  # whose stem is the first one's path
        {"1.png": "1.png", "1.bmp": "1.bmp", "a/1.png.png": "a/1.png"},
        {"a/b.png": "a/b.png", "a/b.tif": "a/b.tif", "a/b.png.png": "b.png", "c/b.tif": "c/b"},
    ],
)
def test_namesakes_alone_get_a_longer_id(tmp_path: Path, ids: dict[str, str]) -> None:
    for name in ids:
        crop(tmp_path / name)
    rows = validated(Folder(tmp_path).rows(), "lake")
    assert dict(zip(rows["image"], rows["particle_id"], strict=True)) == ids


def test_a_crop_added_changes_the_ids_of_its_namesakes_alone(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "3.png"):
        crop(tmp_path / name)
    before = set(Folder(tmp_path).rows()["particle_id"])
    crop(tmp_path / "b" / "1.png")
    assert before - set(Folder(tmp_path).rows()["particle_id"]) == {"1"}


@pytest.mark.parametrize("name", ["core", "Core", "UNLABELED", "unlabelled"])
def test_a_folder_named_core_is_no_class(tmp_path: Path, name: str) -> None:
    for path in (f"{name}/a.png", f"train/{name}/b.png", "dust/c.png", f"dust/{name}/d.png", "core2/e.png"):
        crop(tmp_path / path)
    rows = Folder(tmp_path).rows().set_index("particle_id")
    assert rows["label"].dropna().to_dict() == {"c": "dust", "d": "dust", "e": "core2"}
    assert rows["truth"].dropna().to_dict() == {"c": "dust", "d": "dust", "e": "core2"}
    assert set(rows.index[rows["role"] == "core"]) == {"a", "b"}


FIVE = "Area (ABD),Width,Length,Perimeter,Circularity"


def test_tables_that_say_not_whose_scalars_they_hold_are_listed_and_not_used(tmp_path: Path) -> None:
    root, said = tmp_path / "lake", []
    for name in ("train/dust/1.png", "train/dust/2.png"):
        crop(root / name)
    for name, header in (
        ("dust.csv", FIVE), ("train/GRIP_1.csv", f"Sample;{FIVE}".replace(",", ";")), ("notes.csv", "who,when"),
        (".hidden.csv", FIVE),
    ):  # fmt: skip
        (root / name).write_text(f"{header}\n")
    assert Folder(root).lost_tables == ["dust.csv", "train/GRIP_1.csv"]
    pack(Folder(root), tmp_path / "packed", PackSettings(size=16), said.append)
    with (tmp_path / "packed" / "rejected.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == dict.fromkeys(Folder(root).lost_tables, "a table without the column 'imgpaths': whose rows?")
    assert read_parquet(tmp_path / "packed" / "table.parquet")["particle_id"].tolist() == ["1", "2"]
    assert read_json(tmp_path / "packed" / "set.json")["scalars_by"] == "pixels"


def test_a_table_of_scalars_is_no_crop(tmp_path: Path) -> None:
    (tmp_path / "dust.csv").write_text(FIVE)
    with pytest.raises(UserError, match="no particles found"):
        validated(Folder(tmp_path).rows(), tmp_path.name)
    before = Folder(tmp_path).describe()
    (tmp_path / "camp.csv").write_text(FIVE)
    assert Folder(tmp_path).describe() != before, "or it would not be listed"


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    crop(tmp_path / "in" / "mine.png")
    crop(tmp_path / "secret" / "other.png")
    (tmp_path / "in" / "file.png").symlink_to(tmp_path / "secret" / "other.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "secret", target_is_directory=True)
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "in" / "nowhere.png")
    assert Folder(tmp_path / "in").rows()["image"].tolist() == ["mine.png"]


def test_a_folder_named_like_a_crop_is_no_crop(tmp_path: Path) -> None:
    crop(tmp_path / "a.png" / "b.png")
    assert Folder(tmp_path).rows()["image"].tolist() == ["a.png/b.png"]


def test_a_changed_file_changes_the_description(tmp_path: Path) -> None:
    crop(tmp_path / "a.png", 50)
    before = Folder(tmp_path).describe()
    assert Folder(tmp_path).describe() == before
    crop(tmp_path / "b.png", 50)
    assert Folder(tmp_path).describe() != before
    assert Folder(tmp_path, um_per_px=1.0).describe() != Folder(tmp_path).describe()
    assert Folder(tmp_path, bit_depth=12).describe() != Folder(tmp_path).describe()


@pytest.mark.real
def test_real_crops_decode(data_root: Path) -> None:
    source = Folder(data_root / "icelearning_crops")
    rows = source.rows()
    assert len(rows) >= 9
    for row in rows.head(40).itertuples():
        grey = source.read(SimpleNamespace(image=row.image))
        assert grey.ndim == 2
        assert np.ptp(grey) > 10, "shows something"
