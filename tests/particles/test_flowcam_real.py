"""Real FlowCam runs against what the instrument exported of them: scalars, crops, masks, volumes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from particles.scalars import SCALARS, measure
from particles.sources.flowcam import FlowCam
from particles.sources.folder import Folder
from particles.sources.listing import read_listing

# Not stored, so recomputed from columns of four decimals: how far that may lie from four exported decimals.
ABSOLUTE = dict.fromkeys(["Aspect Ratio", "Circularity", "Convexity", "Transparency"], 1e-4) | dict.fromkeys(
    ["Fiber Curl", "Fiber Straightness", "Geodesic Aspect Ratio", "Geodesic Length", "Geodesic Thickness"], 2.5e-4
)
RELATIVE = {"Volume (ABD)": 1.2e-4, "Volume (ESD)": 1e-6}  # from a diameter of four decimals


def table(source: FlowCam) -> pd.DataFrame:
    return pd.concat(source.rows(), ignore_index=True)


def assert_exported(rows: pd.DataFrame, exported: pd.DataFrame) -> None:
    names = [name for name in SCALARS if name in exported]
    assert len(names) == 32, "all but the two biovolumes"
    for name in names:
        ours, theirs = rows[name].to_numpy(dtype=float), exported[name].to_numpy(dtype=float)
        np.testing.assert_allclose(ours, theirs, rtol=RELATIVE.get(name, 0), atol=ABSOLUTE.get(name, 0), err_msg=name)


@pytest.mark.real
def test_real_scalars_are_those_that_the_instrument_exports(data_root: Path) -> None:
    rows = table(FlowCam(data_root / "flowcam_runs"))
    assert len(rows) == 5000
    assert rows["reject"].isna().all()
    assert not rows[list(SCALARS)].isna().any(axis=None)
    for run, of_run in rows.groupby("sample"):
        exported = pd.read_csv(data_root / "flowcam_runs" / str(run) / f"{run}.csv", encoding="utf-8-sig")
        assert of_run["particle_id"].tolist() == [f"{run}_{guid}" for guid in exported["Original Reference ID"]]
        assert_exported(of_run, exported)
    published = pd.read_csv(data_root / "flowcam" / "particles.csv")
    ids = published["File_name"].str.removesuffix(".png")
    assert len(ids) == 3000
    assert_exported(rows.set_index("particle_id").loc[ids], published)


@pytest.mark.real
def test_real_crops_are_those_that_the_instrument_exports(data_root: Path) -> None:
    source, folder = FlowCam(data_root / "flowcam_runs"), Folder(data_root / "flowcam")
    rows = table(source)
    listed = folder.rows()
    exported = listed[listed["reject"].isna()].set_index("particle_id")["image"]  # particles.csv does not name images
    rows = rows[rows["particle_id"].isin(exported.index)]
    assert len(rows) == len(exported) == 3000
    for row in rows.itertuples():
        image = exported[row.particle_id]
        with Image.open(folder.root / image) as png:
            np.testing.assert_array_equal(source.cut(row), np.asarray(png))
        np.testing.assert_array_equal(source.read(row), folder.read(SimpleNamespace(image=image)))


@pytest.mark.real
def test_real_masks_count_the_pixels_of_the_listing(data_root: Path) -> None:
    source = FlowCam(data_root / "flowcam_runs")
    rows = table(source)
    raw = pd.concat([c for file in sorted(source.root.glob("*/*.lst")) for c in read_listing(file)], ignore_index=True)
    for place in range(0, 5000, 10):
        row = rows.iloc[place]
        mask = source.mask(row)
        assert mask.sum() == raw["raw_area"][place]
        measured = measure(source.read(row), row["um_per_px"], mask, source.fringe_px(row))
        assert measured["Area (ABD)"] == pytest.approx(row["Area (ABD)"], abs=1e-4)
        assert measured["Convex Perimeter"] == pytest.approx(row["Convex Perimeter"], rel=2e-4)
    volumes = rows.groupby("sample", sort=False)["volume_ml"].first()
    assert volumes.tolist() == [0.1418, 0.0971, 0.0290, 0.0174, 0.0193]


@pytest.mark.real
def test_real_flat_fields_even_out_the_background(data_root: Path) -> None:
    plain, even = (FlowCam(data_root / "flowcam_runs", flat_field=asked) for asked in (False, True))
    for _, of_run in table(plain).iloc[::5].groupby("sample"):
        levels = [[_border_level(source.read(row)) for row in of_run.itertuples()] for source in (plain, even)]
        spread = np.std(levels, axis=1)
        assert spread[1] < 0.95 * spread[0]
        assert np.median(levels[0]) == pytest.approx(np.median(levels[1]), abs=40)


def _border_level(crop: np.ndarray) -> float:
    return float(np.median(np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]])))
