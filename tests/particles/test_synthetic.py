"""The synthetic set: repeatable, true to its schema, and honest: nothing trivial finds the planted ones."""

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from particles.sources.source import BadCrop
from particles.sources.synthetic import CLASSES, KINDS, Synthetic

SMALL = Synthetic(seed=3, n_per_class=4, n_core=240, n_per_kind=2)
WHERE = ["sample", "volume_ml", "core", "bag", "top_cm", "bottom_cm", "repeat"]
COLUMNS = ["particle_id", "image", "label", "truth", "role", "split", *WHERE, "um_per_px"]
TRIVIAL: dict[str, Callable[[np.ndarray], float]] = {
    "width": lambda crop: crop.shape[1],
    "height": lambda crop: crop.shape[0],
    "area": lambda crop: crop.size,
    "longer side": lambda crop: max(crop.shape),
    "elongation": lambda crop: max(crop.shape) / min(crop.shape),
    "mean": lambda crop: float(crop.mean()),
    "spread": lambda crop: float(crop.std()),
    "background": lambda crop: float(np.median(border(crop))),
}


def border(crop: np.ndarray) -> np.ndarray:
    return np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]])


def crops(source: Synthetic) -> list[np.ndarray]:
    return [source.read(row) for row in source.rows().itertuples()]


@lru_cache(maxsize=3)
def core_of(seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Whether each core particle is planted, and its trivial scores."""
    source = Synthetic(seed=seed, n_per_class=0, n_core=1200)
    rows = source.rows()
    scores = [{name: score(crop) for name, score in TRIVIAL.items()} for crop in crops(source)]
    return rows["truth"].isin(KINDS).to_numpy(), pd.DataFrame(scores)


def test_same_settings_give_the_same_bytes_in_any_order() -> None:
    rows = SMALL.rows()
    first = {row.image: SMALL.read(row).tobytes() for row in rows.itertuples()}
    again = Synthetic(seed=3, n_per_class=4, n_core=240, n_per_kind=2)
    pd.testing.assert_frame_equal(rows, again.rows())
    for row in rows.sample(frac=1, random_state=0).head(60).itertuples():
        assert again.read(row).tobytes() == first[row.image]


def test_another_process_reads_the_same_bytes() -> None:
    rows = SMALL.rows().iloc[::17].to_dict("records")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(SMALL.read, rows))
    for row, crop in zip(rows, there, strict=True):
        np.testing.assert_array_equal(crop, SMALL.read(row))


def test_rows_do_not_travel_with_a_pickled_source() -> None:
    SMALL.rows()
    assert len(pickle.dumps(SMALL)) < 500


def test_another_seed_gives_other_particles() -> None:
    other = Synthetic(seed=4, n_per_class=4, n_core=240, n_per_kind=2)
    assert (SMALL.rows()["truth"] != other.rows()["truth"]).any()
    same = [a.shape == b.shape and (a == b).all() for a, b in zip(crops(SMALL), crops(other), strict=True)]
    assert not any(same)
    assert SMALL.describe() != other.describe()


def test_reads_named_tuples_series_and_mappings_alike() -> None:
    rows = SMALL.rows()
    expected = SMALL.read(next(rows.itertuples()))
    np.testing.assert_array_equal(SMALL.read(rows.iloc[0]), expected)
    np.testing.assert_array_equal(SMALL.read({"image": "000000"}), expected)


@pytest.mark.parametrize("image", ["999999", "dust", "-1", ""])
def test_an_unknown_image_is_refused_by_name(image: str) -> None:
    with pytest.raises(BadCrop, match=f"no image '{image}'"):
        SMALL.read({"image": image})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n_core": 100}, "core of 100 is too small"), ({"seed": -1}, "must not be negative")],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic(**settings)


def test_counts_roles_and_labels() -> None:
    source = Synthetic()
    rows = source.rows()
    labeled, core = rows[rows["role"] == "labeled"], rows[rows["role"] == "core"]
    assert labeled["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, source.n_per_class)
    assert (labeled["label"] == labeled["truth"]).all()
    assert len(core) == source.n_core
    assert core["label"].isna().all()
    counts = core["truth"].value_counts()
    assert {kind: counts[kind] for kind in KINDS} == dict.fromkeys(KINDS, source.n_per_kind)
    assert 0.9 < counts["dust"] / len(core) < 0.95
    assert set(counts.index) == set(CLASSES) | set(KINDS)


def test_planted_kinds_are_no_labels() -> None:
    assert not set(KINDS) & set(CLASSES)
    assert len(KINDS) >= 8
    assert not SMALL.rows()["label"].isin(KINDS).any()


def test_rows_carry_the_schema_and_ids_name_the_sample() -> None:
    rows = SMALL.rows()
    assert list(rows.columns) == COLUMNS
    assert rows["particle_id"].is_unique
    assert rows["image"].is_unique
    assert (rows["um_per_px"] == 0.2752).all()
    core = rows[rows["role"] == "core"]
    named = core["particle_id"].str.extract(r"^(SYN)_(\d+)_(\d+)_(\d+)_(\d+)_\d+$")
    for column, part in zip(WHERE[2:], named.columns, strict=True):
        found = named[part] if column == "core" else named[part].astype(float)
        assert (found == core[column]).all(), column
    assert (core["sample"] + "_" == core["particle_id"].str.extract(r"^(.*_)\d+$")[0]).all()
    assert core.groupby("sample")["volume_ml"].unique().map(list).map(lambda v: v == [0.05]).all()
    assert set(core["bag"]) == {3046, 3136, 3303, 3306}
    assert rows.loc[rows["role"] == "labeled", WHERE].isna().all(axis=None)


def test_the_table_of_the_house_accepts_the_rows() -> None:
    table = pytest.importorskip("particles.table")
    checked = table.validated(SMALL.rows(), "synthetic")
    assert checked["particle_id"].tolist() == SMALL.rows()["particle_id"].tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_place_and_key_do_not_tell_the_planted_ones(seed: int) -> None:
    rows = Synthetic(seed=seed).rows()
    core = rows[rows["role"] == "core"]
    planted = core["truth"].isin(KINDS)
    number = core["particle_id"].str.rsplit("_", n=1).str[1]
    for column in (core["image"], number, core["bag"], core["top_cm"], core["repeat"]):
        assert 0.4 < roc_auc_score(planted, column.astype(float)) < 0.6
    # Uniform over the list: no tenth of it is empty of planted particles or full of them.
    tenths = np.add.reduceat(planted.to_numpy(), np.arange(0, len(core), len(core) // 10))
    assert tenths.min() >= 1
    assert tenths.max() <= 20


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_trivial_finds_the_planted_ones(seed: int) -> None:
    planted, scores = core_of(seed)
    assert planted.sum() == 8 * len(KINDS)
    for name, column in scores.items():
        assert 0.35 < roc_auc_score(planted, column) < 0.65, name
        # Nor both tails at once. Elongation may: a ball's box is square and a needle's is not.
        if name != "elongation":
            assert roc_auc_score(planted, (column - column.median()).abs()) < 0.65, name


def test_background_is_that_of_the_instrument() -> None:
    levels = core_of(0)[1]["background"]
    assert levels.between(120, 150).mean() > 0.99
    assert levels.median() == pytest.approx(135, abs=4)
    assert levels.std() > 2


def test_particles_are_darker_than_their_background_and_within_their_crop() -> None:
    for row, crop in zip(SMALL.rows().itertuples(), crops(SMALL), strict=True):
        assert crop.dtype == np.uint8
        assert 12 <= min(crop.shape) <= max(crop.shape) <= 345
        level = np.median(border(crop))
        assert (crop < level - 12).any(), row.truth
        assert (np.abs(border(crop) - level) < 25).mean() > 0.8, row.truth


def test_the_oaks_are_near_twins_and_the_tephras_are_not() -> None:
    source = Synthetic(n_per_class=40, n_core=0)
    rows = source.rows()
    grey = np.array([np.median(crop) / np.median(border(crop)) for crop in crops(source)])
    mean = {name: grey[rows["truth"] == name].mean() for name in CLASSES}
    spread = grey[rows["truth"] == "qrob"].std()
    assert 0 < mean["qrob"] - mean["qsub"] < 2 * spread
    assert mean["camp"] - mean["grim"] > 2.5 * spread
