from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from figures import style
from figures.map_colors import entries_of
from figures.map_dots import dot_diameter, opacity, top_rows
from figures.map_marks import place_labels
from figures.maps import draw_map_panel


def test_noise_is_the_last_entry_grey_named_counted_and_never_renumbered() -> None:
    entries = entries_of(np.array([5, -1, 2, -1, 5]), "clusters")
    assert [entry.text for entry in entries] == ["cluster 2: 1", "cluster 5: 2", "noise (-1): 2"]
    assert [entry.number for entry in entries] == [2, 5, None]
    assert entries[-1].color == style.GREY
    assert entries[-1].rows.tolist() == [1, 3]
    assert entries[1].color == style.cluster_color(5)


def test_classes_keep_their_color_when_some_are_absent() -> None:
    every = ["camp", "corylus", "dust"]
    full = {entry.name: entry.color for entry in entries_of(every, "classes")}
    some = entries_of(pd.array(["dust", pd.NA, "dust"], dtype="string"), "classes", classes=every)
    assert [(entry.name, entry.color, entry.rows.tolist()) for entry in some] == [
        ("dust", full["dust"], [0, 2]),
        ("unlabeled", style.GREY, [1]),
    ]


def test_top_rows_are_the_highest_first_without_nan() -> None:
    assert top_rows(np.array([1.0, np.nan, 3.0, 3.0, 2.0]), 3).tolist() == [2, 3, 4]
    assert top_rows(np.array([np.nan]), 3).tolist() == []


def test_dots_shrink_and_fade_where_there_are_many() -> None:
    diameters = [dot_diameter(n, 960) for n in (1, 1_000, 10_000, 100_000, 10**7)]
    assert diameters == sorted(diameters, reverse=True)
    assert (diameters[0], diameters[-1]) == (9.0, 1.5)
    xy = np.concatenate([np.zeros((500, 2)), [[1.0, 1.0]]])
    alpha = opacity(xy, 960, 5)
    assert alpha[0] == pytest.approx(0.2)
    assert alpha[-1] == pytest.approx(0.9)
    assert opacity(np.zeros((1, 2)), 960, 5).shape == (1,)


def test_labels_hide_neither_one_another_nor_a_ring() -> None:
    points = np.random.default_rng(0).uniform(380, 480, (20, 2))
    spots = place_labels(points, 960)
    apart = np.abs(spots[:, None] - spots[None]) >= (28, 22)
    assert apart.any(axis=2)[~np.eye(20, dtype=bool)].all()
    assert (np.abs(spots[:, None] - points[None]) >= (14, 11)).any(axis=2).all()
    edge = place_labels(np.array([[0.0, 0.0], [960.0, 960.0]]), 960)
    assert (edge >= (14, 11)).all()
    assert (edge <= (946, 949)).all()


def middle_of(drawn: Path, column: int) -> np.ndarray:
    """The pixel in the middle of a map of a panel without a subtitle: (3,) RGB."""
    y, x = 44 + style.heading_height(None) + 40 + 280, 44 + 40 + column * (560 + 36) + 280
    return np.asarray(Image.open(drawn).convert("RGB"))[y, x].astype(int)


def test_noise_lies_below_the_clusters(tmp_path: Path) -> None:
    """A dot of cluster 0 shows among 50 of noise at its place; the cluster's number stands elsewhere."""
    xy = np.concatenate([np.zeros((51, 2)), np.full((3, 2), 5.0), [[-9.0, -9.0], [9.0, 9.0]]])
    labels = np.array([0] + [-1] * 50 + [0] * 3 + [-1] * 2)
    drawn = draw_map_panel(xy, None, [None] * 56, labels, np.zeros(56), tmp_path / "m.png", "t", top=0)
    red, _, blue = middle_of(drawn, 1)
    assert blue - red > 20


def test_the_strangest_is_solid_even_in_a_crowd(tmp_path: Path) -> None:
    xy = np.concatenate([np.zeros((300, 2)), [[-9.0, -9.0], [9.0, 9.0]]])
    score = np.concatenate([[1.0], np.zeros(299), [0.0, 0.0]])
    drawn = draw_map_panel(xy, None, [None] * 302, np.full(302, -1), score, tmp_path / "m.png", "t", top=1)
    assert np.abs(middle_of(drawn, 2) - 255 * np.array(style.score_colors()(1.0)[:3])).max() <= 2


@pytest.mark.parametrize(
    ("classes", "clusters", "score"),
    [
        (["a", "<b>$x$", None, "冰"], np.full(4, -1), np.arange(4.0)),
        ([None] * 4, np.zeros(4, int), np.full(4, np.nan)),
    ],
)
def test_odd_maps_are_drawn_alike_twice(
    classes: list[str | None], clusters: np.ndarray, score: np.ndarray, tmp_path: Path
) -> None:
    """One of the highest scores lies nowhere."""
    xy = np.array([[0.0, 0.0], [1.0, 5.0], [np.nan, 1.0], [2.0, 2.0]])
    first = draw_map_panel(xy, None, classes, clusters, score, tmp_path / "a.png", "t")
    second = draw_map_panel(xy, None, classes, clusters, score, tmp_path / "b.png", "t")
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(first).size == (2 * 44 + 40 + 3 * 560 + 2 * 36, 44 + 48 + 40 + 560 + 36 - 12 + 80 + 44)


def test_a_map_of_one_particle(tmp_path: Path) -> None:
    """Its ring and its rank stand in the middle of the map of scores."""
    one = np.zeros((1, 2)), None, ["a"], np.array([3]), np.ones(1)
    plain, ranked = (draw_map_panel(*one, tmp_path / f"{top}.png", "t", top=top) for top in (0, 1))
    differs = np.asarray(Image.open(plain)) != np.asarray(Image.open(ranked))
    y, x = np.nonzero(differs.any(axis=2))
    assert np.ptp(x) < 60
    assert 44 + 40 + 2 * (560 + 36) + 280 - 20 < x.mean() < 44 + 40 + 2 * (560 + 36) + 280 + 30
    assert abs(y.mean() - (44 + style.heading_height(None) + 40 + 280)) < 30


def test_the_panel_has_a_row_a_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xy, labels, score = rng.normal(size=(60, 2)), rng.integers(-1, 40, 60), rng.normal(size=60)
    two = draw_map_panel(xy, xy, ["a", None] * 30, labels, score, tmp_path / "2.png", "t")
    one = draw_map_panel(xy, None, ["a", None] * 30, labels, score, tmp_path / "1.png", "t")
    empty = draw_map_panel(xy * np.nan, None, [None] * 60, labels * 0 - 1, score, tmp_path / "0.png", "t")
    (width, height), (narrow, low) = Image.open(two).size, Image.open(one).size
    assert width == narrow == 44 + 40 + 3 * 560 + 2 * 36 + 44
    assert height - low == 560 + 36
    assert Image.open(empty).size[0] == width
