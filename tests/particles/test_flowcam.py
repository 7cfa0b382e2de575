"""FlowCam runs, real and planted: crops, masks, scalars and volumes are the instrument's; faults are named."""

import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted_run import BOXES, COLUMNS, FRINGE, RUN, SCALE, first_data_line, guid, listing_text, planted, write_run

from particles.packing import pack
from particles.scalars import SCALARS
from particles.sources.collage import Place, place_of
from particles.sources.flowcam import FlowCam, is_flowcam
from particles.sources.source import BadCrop, Masked
from particles.squares import PackSettings
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json


def table(root: Path, **options: Any) -> pd.DataFrame:
    return pd.concat(FlowCam(root, **options).rows(), ignore_index=True)


def row_of(root: Path, place: int = 0) -> SimpleNamespace:
    return SimpleNamespace(image=table(root)["image"][place])


def test_rows_say_what_the_listing_says(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    rows = table(tmp_path)
    assert rows["particle_id"].tolist() == [f"{RUN}_{guid(n)}" for n in (1, 2, 3)]
    assert rows["reject"].isna().all()
    assert rows["label"].isna().all()
    assert set(rows["role"]) == {"core"}
    assert set(rows["sample"]) == {RUN}
    assert rows["volume_ml"].tolist() == [0.029] * 3
    assert rows["um_per_px"].tolist() == [SCALE] * 3
    place = ["core", "bag", "top_cm", "bottom_cm", "repeat"]
    assert rows.loc[0, place].tolist() == ["GRIP", 3046, 0.0, 20.0, 1]


def test_scalars_that_are_not_stored_follow_from_those_that_are(tmp_path: Path) -> None:
    write_run(tmp_path)
    first = table(tmp_path).iloc[0]
    expected = {
        "Aspect Ratio": 0.4, "Circularity": 0.625, "Convexity": 0.8, "Particles Per Chain": 2.0,
        "Biovolume (Cylinder)": np.pi / 4 * 20, "Biovolume (P. Spheroid)": np.pi / 6 * 20,
        # sides 12 and 4 px: perimeter 32, area 48
        "Geodesic Length": 6.0, "Geodesic Thickness": 2.0, "Geodesic Aspect Ratio": 1 / 3, "Fiber Curl": 0.2,
        "Fiber Straightness": 5 / 6, "Volume (ESD)": np.pi / 6 * 512, "Diameter (ESD)": 8.0, "Symmetry": 1.0,
    }  # fmt: skip
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    assert first["Transparency"] == pytest.approx(1 - first["Diameter (ABD)"] / 8)
    assert set(SCALARS) <= set(first.index)


def test_a_straight_line_has_the_values_the_instrument_gives_it(tmp_path: Path) -> None:
    line = {"raw_legendre_major": "0", "raw_legendre_minor": "0", "raw_convex_hull_area": "0", "length": "0"}
    write_run(tmp_path, [planted(1) | line | {"length": "4", "width": "1"}, planted(2) | line])
    rows = table(tmp_path)
    assert rows.loc[0, ["Aspect Ratio", "Convexity"]].tolist() == [0.25, 0.0]
    assert rows.loc[1, ["Aspect Ratio", "Fiber Curl"]].isna().all()


def test_crops_masks_and_fringe_come_from_the_place_in_the_collage(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "b")
    source = FlowCam(tmp_path)
    assert isinstance(source, Masked)
    collage = np.asarray(Image.open(tmp_path / "a" / "b" / f"{RUN}_000001.tif"))
    masks = np.asarray(Image.open(tmp_path / "a" / "b" / f"{RUN}_000001_bin.tif"))
    for row, (x, y, w, h) in zip(table(tmp_path).itertuples(), BOXES, strict=True):
        np.testing.assert_array_equal(source.cut(row), collage[y : y + h, x : x + w])
        luma = Image.fromarray(collage[y : y + h, x : x + w].copy()).convert("L")
        np.testing.assert_array_equal(source.read(row), np.asarray(luma))
        np.testing.assert_array_equal(source.mask(row), masks[y : y + h, x : x + w] == 255)
        assert source.fringe_px(row) == FRINGE


def test_a_crop_is_its_own_and_a_changed_collage_is_read_again(tmp_path: Path) -> None:
    write_run(tmp_path)
    source, row = FlowCam(tmp_path), row_of(tmp_path)
    before = source.cut(row)
    before[:] = 0
    assert source.cut(row).any(), "the collage in memory is not touched"
    collage = tmp_path / f"{RUN}_000001.tif"
    Image.fromarray(np.full((24, 30), 77, np.uint8)).save(collage)
    os.utime(collage, ns=(1, 1))
    assert source.cut(row).tolist() == [[77] * 12] * 10


def test_without_masks_the_particle_is_found_in_the_crop(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / f"{RUN}_000001_bin.tif").unlink()
    collage = np.full((24, 30), 200, np.uint8)
    collage[3:7, 4:9] = 90
    Image.fromarray(collage).save(tmp_path / f"{RUN}_000001.tif")
    np.testing.assert_array_equal(FlowCam(tmp_path).mask(row_of(tmp_path)), collage[:10, :12] == 90)


def test_flat_field_takes_out_what_the_empty_cell_shows(tmp_path: Path) -> None:
    write_run(tmp_path)
    flat = np.asarray(Image.open(tmp_path / "cal_image_000001.tif")).astype(float)
    collage = np.zeros((24, 30), np.uint8)
    x, y, w, h = BOXES[1]
    box = flat[4 : 4 + h, 10 : 10 + w]  # src of particle 2
    collage[y : y + h, x : x + w] = box  # an empty crop, as uneven as the flow cell
    Image.fromarray(collage).save(tmp_path / f"{RUN}_000001.tif")
    source = FlowCam(tmp_path, flat_field=True)
    assert source.read(row_of(tmp_path, 1)).tolist() == [[round(flat.mean())] * w] * h
    assert source.read(row_of(tmp_path, 0)).max() == 0
    np.testing.assert_array_equal(source.cut(row_of(tmp_path, 1)), box)
    (tmp_path / "cal_image_000001.tif").unlink()
    with pytest.raises(BadCrop, match=r"^cal_image_000001\.tif is missing$"):
        source.read(row_of(tmp_path))


def test_flat_field_clips_and_survives_dead_pixels(tmp_path: Path) -> None:
    write_run(tmp_path)
    flat = np.full((40, 60), 100, np.uint8)
    flat[2, 5] = 0  # the corner of particle 1
    Image.fromarray(flat).save(tmp_path / "cal_image_000001.tif")
    Image.fromarray(np.full((24, 30), 60, np.uint8)).save(tmp_path / f"{RUN}_000001.tif")
    crop = FlowCam(tmp_path, flat_field=True).read(row_of(tmp_path))
    assert (crop[0, 0], crop[5, 5]) == (255, 60)


def test_the_packed_set_keeps_the_instruments_scalars(tmp_path: Path) -> None:
    cut_short = planted(3) | {"image_w": "x"}
    write_run(tmp_path / "runs", [planted(1), planted(2), cut_short])
    pack(FlowCam(tmp_path / "runs"), tmp_path / "packed", PackSettings(size=16), lambda line: None)
    packed = read_parquet(tmp_path / "packed" / "table.parquet")
    assert packed["particle_id"].tolist() == [f"{RUN}_{guid(1)}", f"{RUN}_{guid(2)}"]
    assert packed["Length"].tolist() == [5.0, 5.0]
    assert packed[["width_px", "height_px"]].to_numpy().tolist() == [[12, 10], [9, 10]]
    assert read_json(tmp_path / "packed" / "set.json")["rejected"] == 1
    line = first_data_line(2)
    assert f"{RUN}.lst:{line}: image_w is 'x', not a number" in (tmp_path / "packed" / "rejected.csv").read_text()


def test_listings_without_guids_number_their_particles(tmp_path: Path) -> None:
    listing = write_run(tmp_path)
    listing.write_text(listing_text([planted(1), planted(3)], COLUMNS[:-1]))
    assert table(tmp_path)["particle_id"].tolist() == [f"{RUN}_1", f"{RUN}_3"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("monday", "tuesday"):
        write_run(tmp_path / folder)
    write_run(tmp_path / "wednesday", run="QCY_1_2_3")
    rows = table(tmp_path)
    assert rows["particle_id"].is_unique
    assert rows["sample"].unique().tolist() == [f"monday/{RUN}", f"tuesday/{RUN}", "QCY_1_2_3"]
    assert rows["core"].unique().tolist() == ["GRIP", "QCY"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "does not decode|is not an image"),
        (lambda file: file.write_text("hello"), "is not an image that can be read"),
        (
            lambda file: Image.new("L", (11, 24)).save(file),
            r"is 11 x 24 px, but the box is 12 x 10 px at \(0, 0\)",
        ),
        (lambda file: Image.new("L", (9000, 1)).save(file), "is 9000 x 1 px, larger than 8192 px"),
    ],
)
def test_a_bad_collage_is_named(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    write_run(tmp_path / "run")
    damage(tmp_path / "run" / f"{RUN}_000001.tif")
    with pytest.raises(BadCrop, match=f"{RUN}_000001.tif ({reason})"):
        FlowCam(tmp_path).read(row_of(tmp_path))


def test_no_link_and_no_key_leads_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_run(root)
    write_run(tmp_path / "other", run="other")
    (root / "linked").symlink_to(tmp_path / "other", target_is_directory=True)
    (root / "linked.lst").symlink_to(tmp_path / "other" / "other.lst")
    assert table(root)["sample"].unique().tolist() == [RUN]
    key = row_of(root).image
    collage = root / f"{RUN}_000001.tif"
    collage.unlink()
    collage.symlink_to(tmp_path / "other" / collage.name)
    for image in (key, f"../other/{key}", f"{tmp_path}/other/{key}"):
        with pytest.raises(BadCrop, match="lies outside of"):
            FlowCam(root).read(SimpleNamespace(image=image))


@pytest.mark.parametrize(
    ("summary", "volume"),
    [
        (b"\tFluid Volume Imaged: 0,0290 ml\r\n", 0.029),
        (b"\xb5\tFluid Volume Imaged: 12 ml", 12.0),
        (b"Fluid Volume Imaged: 0.0000 ml", None),
        (b"Fluid Volume Imaged: unknown", None),
        (None, None),
    ],
)
def test_volume_is_what_the_summary_says(tmp_path: Path, summary: bytes | None, volume: float | None) -> None:
    write_run(tmp_path)
    file = tmp_path / f"{RUN}_run_summary.txt"
    file.unlink() if summary is None else file.write_bytes(summary)
    volumes = table(tmp_path)["volume_ml"]
    assert volumes.isna().all() if volume is None else volumes.tolist() == [volume] * 3


def test_a_scale_that_does_not_fit_is_said_once(tmp_path: Path) -> None:
    rows = [planted(n) for n in (1, 2, 3)]
    write_run(tmp_path, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table(tmp_path)
        write_run(tmp_path, [rows[0] | {"abd_area": "1000"}, *rows[1:]])
        table(tmp_path)  # a third is not most
    write_run(tmp_path, [row | {"abd_area": str(4 * float(row["abd_area"]))} for row in rows])
    with pytest.warns(UserWarning, match=f"{RUN}: Area .ABD. is 4.00 times") as said:
        table(tmp_path)
    assert len(said) == 1


def test_what_is_a_flowcam_folder(tmp_path: Path) -> None:
    assert not is_flowcam(tmp_path / "gone")
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "notes.lst").write_text("017\nmilk\n")
    assert not is_flowcam(tmp_path)
    listing = write_run(tmp_path / "a" / "b" / "c")
    assert not is_flowcam(tmp_path), "three folders deep"
    assert is_flowcam(tmp_path / "a")
    shutil.copy(listing, tmp_path / "a" / ".hidden.lst")
    assert not is_flowcam(tmp_path)
    shutil.copy(listing, tmp_path / "a" / "b" / "RUN.LST")
    assert is_flowcam(tmp_path)


@pytest.mark.parametrize("make", ["gone", "empty"])
def test_a_folder_without_runs_is_named(tmp_path: Path, make: str) -> None:
    if make == "empty":
        (tmp_path / make).mkdir()
    with pytest.raises(UserError, match=f"{make}: no (such folder|FlowCam run)"):
        FlowCam(tmp_path / make).rows()


def test_a_changed_file_changes_the_description(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    source = FlowCam(tmp_path)
    seen = [source.describe()]
    assert pickle.loads(pickle.dumps(source)).describe() == seen[0]
    (tmp_path / "elsewhere" / "letter.txt").write_text("not beside a listing")
    assert source.describe() == seen[0]
    os.utime(tmp_path / "run" / f"{RUN}_000001.tif", ns=(1, 1))
    seen.append(source.describe())
    (tmp_path / "run" / "cal_image_000002.tif").touch()
    seen += [source.describe(), FlowCam(tmp_path, flat_field=True).describe()]
    assert len({str(description) for description in seen}) == 4


@given(
    file=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1),
    box=st.tuples(*[st.integers(0, 10**8)] * 4),
    src=st.tuples(*[st.integers(-(2**31), 2**31)] * 2),
    cal=st.integers(0, 999_999),
    fringe=st.floats(0, 1e9),
)
def test_a_key_leads_back_to_its_place(
    file: str, box: tuple[int, int, int, int], src: tuple[int, int], cal: int, fringe: float
) -> None:
    place = Place(file, box, src, cal, fringe)
    assert place_of(place.key()) == place
