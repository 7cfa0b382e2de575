from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from figures import cluster_sheets, gallery, style
from figures.cards import SIDE, Card, bar_of, draw_sections, enlarged, scale_bar
from figures.cluster_sheets import cluster_title, draw_clusters, members
from figures.gallery import draw_outliers, outlier_sheet, short_reasons
from figures.particle_cards import cards_of
from particles.pixels import PixelStore, write_shard
from particles.sets import ParticleSet

S = 32


@pytest.fixture
def pixels(tmp_path: Path) -> PixelStore:
    stack = np.random.default_rng(0).integers(0, 256, (30, S, S), dtype=np.uint8)
    write_shard(tmp_path / "00000.npy", stack)
    return PixelStore([tmp_path / "00000.npy"])


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[Card]]]:
    """What a sheet is drawn from."""
    seen: list[dict[str, list[Card]]] = []
    draw = gallery.draw_sections

    def watched(parts: Any, *rest: Any) -> Path:
        seen.append({name: list(cards) for name, cards in parts.items()})
        return draw(parts, *rest)

    monkeypatch.setattr(gallery, "draw_sections", watched)
    return seen


@pytest.fixture
def table() -> pd.DataFrame:
    """30 particles whose pixels lie in reverse order in the store; every third without a scale."""
    um = pd.array([0.5, 0.25, pd.NA] * 10, dtype="Float64")
    return pd.DataFrame(
        {
            "particle_id": [f"p{i}" for i in range(30)], "position": np.arange(30)[::-1], "width_px": 40,
            "height_px": 20, "scale": 0.8, "um_per_px": um,
            "label": pd.array(["dust", "camp"] * 15, dtype="string"),
            "is_outlier": pd.array([True, False, pd.NA] * 10, dtype="boolean"),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("um_per_px", "size", "length"),
    [
        (0.344, 64, 5),
        (0.5, 64, 10),
        (0.05, 64, 1),
        (1.0, 64, 20),
        (5.0, 64, 100),
        (0.01, 64, 0.2),
        (50, 48, 1000),
    ],
)
def test_the_scale_bar_is_round_and_as_long_as_it_says(um_per_px: float, size: int, length: float) -> None:
    bar = scale_bar(um_per_px, size)
    assert bar.length == pytest.approx(length)
    assert bar.image_px == pytest.approx(bar.length / um_per_px)
    assert 0.16 * size < bar.image_px <= 0.42 * size + 1e-6
    assert bar.text == f"{length:g} µm"


def test_without_a_scale_the_bar_counts_px_of_the_original_crop() -> None:
    bar = bar_of(Card(np.zeros((64, 64), np.uint8), "p", crop_px_per_packed_px=0.5))
    assert (bar.text, bar.image_px) == ("10 px", 20)


def test_the_drawn_bar_and_the_drawn_crop_are_true_to_the_px(tmp_path: Path) -> None:
    image = np.full((64, 64), 180, dtype=np.uint8)
    image[:20] = np.random.default_rng(1).integers(0, 256, (20, 64))
    card = Card(image, "p", um_per_packed_px=0.5)
    drawn = np.asarray(Image.open(draw_sections({"": [card]}, tmp_path / "s.png", "t")).convert("L"))
    left, top = 44, 44 + style.heading_height(None)
    crop = drawn[top : top + SIDE, left : left + SIDE]
    assert (crop[2:100, 2:-2] == enlarged(image)[2:100, 2:-2]).all()
    black = (crop[-15, :] < 40).sum()
    assert black == pytest.approx(bar_of(card).image_px * SIDE / 64, abs=1.5)


def test_cards_join_by_id_and_carry_their_scale(table: pd.DataFrame, pixels: PixelStore) -> None:
    ids = ["p7", "p2"]
    cards = cards_of(table, pixels, ids, lines={"p7": ["strange"]}, ranks={"p7": 1}, marks={"p2": "true outlier"})
    assert [card.title for card in cards] == ids
    assert (cards[0].image == pixels[[22]][0]).all()
    assert cards[0].um_per_packed_px == pytest.approx(0.25 / 0.8)
    assert cards[0].lines == ("crop 10 \N{MULTIPLICATION SIGN} 5 µm", "strange")
    assert (cards[0].rank, cards[0].mark, cards[1].rank, cards[1].mark) == (1, None, None, "true outlier")
    assert cards[1].um_per_packed_px is None
    assert cards[1].lines == ("crop 40 \N{MULTIPLICATION SIGN} 20 px",)


def test_reasons_that_latents_share_stand_once() -> None:
    text = "badly reconstructed (vae, top 0.1 %); easily isolated (ae, top 2 %)"
    text += "; badly reconstructed (ae, top 3 %)"
    assert short_reasons(text) == ("badly reconstructed (vae, ae)", "easily isolated (ae)")
    assert short_reasons("looks odd; ") == ("looks odd",)
    assert [short_reasons(nothing) for nothing in ("", None, pd.NA)] == [(), (), ()]


def test_a_card_says_in_how_many_latents_a_particle_was_found(
    table: pd.DataFrame, pixels: PixelStore, sections: list[dict[str, list[Card]]], tmp_path: Path
) -> None:
    ranked = pd.DataFrame({"particle_id": table["particle_id"], "rank": np.arange(1, 31), "p_value": 0.01})
    both = ranked.assign(found_in=[3, 0] * 15, known_as_strange=pd.array([0, None] * 15, dtype="Int64"))
    draw_outliers(both, table, pixels, tmp_path / "o.png", "t", n=2, latents=4)
    draw_outliers(ranked, table, pixels, tmp_path / "o.png", "t", n=1)
    lines = [card.lines[1:] for parts in sections for cards in parts.values() for card in cards]
    first = ("p = 0.01 (least possible)", "top 1 % in 3 of 4 latents")
    assert lines == [first, ("p = 0.01",), ("p = 0.01",)]


def test_the_least_p_is_said_to_be_that_of_its_class(
    table: pd.DataFrame, pixels: PixelStore, sections: list[dict[str, list[Card]]], tmp_path: Path
) -> None:
    ranked = pd.DataFrame({"particle_id": ["p2", "p7", "p4"], "rank": [2, 1, 3], "p_value": [0.016, 0.02, 0.03]})
    ranked = ranked.assign(known_as_strange=pd.array([0, 0, 1], dtype="Int64"), discovery=False)
    particles = ParticleSet("tiny", table, pixels, "print", tmp_path, True)
    outlier_sheet(particles, ranked, tmp_path, 2, pd.Series({"p2": "dust", "p4": "dust", "p7": "camp"}))
    lines = [card.lines[1:] for card in sections[0][""]]
    assert lines == [("p = 0.02 (least for camp)",), ("p = 0.016 (least for dust)",), ("p = 0.03",)]


def test_a_card_names_the_file_where_the_id_does_not(table: pd.DataFrame, pixels: PixelStore) -> None:
    images = ["run 1/collage_01.tif?box=1,2,3,4", "run 1/p1.png", "000002", pd.NA]
    known = table.head(4).assign(image=pd.array(images, dtype="string"))
    lines = [card.lines[1:] for card in cards_of(known, pixels, ["p0", "p1", "p2", "p3"])]
    assert lines == [("collage_01.tif",), (), (), ()]


def test_the_outlier_sheet_frames_the_true_ones(table: pd.DataFrame, pixels: PixelStore, tmp_path: Path) -> None:
    ranked = pd.DataFrame({"particle_id": table["particle_id"], "rank": np.arange(1, 31), "reasons": [None, ""] * 15})
    path = draw_outliers(ranked, table, pixels, tmp_path / "o.png", "Strangest", n=3, columns=3)
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    green = (np.abs(drawn - [0, 158, 115]).max(axis=2) < 3).any(axis=0)
    columns = [44 + i * (SIDE + 26) for i in range(3)]
    assert [bool(green[x + SIDE // 2]) for x in columns] == [True, False, False]


def test_sheets_have_the_size_they_should_and_the_same_bytes_twice(
    table: pd.DataFrame, pixels: PixelStore, tmp_path: Path
) -> None:
    cards = cards_of(table, pixels, [f"p{i}" for i in range(10)])
    first = draw_sections({"": cards}, tmp_path / "a.png", "A sheet", "below", columns=5)
    second = draw_sections({"": cards}, tmp_path / "b.png", "A sheet", "below", columns=5)
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(first).size[0] == 2 * 44 + 5 * SIDE + 4 * 26
    assert "Software" not in Image.open(first).info


@pytest.mark.parametrize(
    "cards",
    [
        [],
        [Card(np.zeros((8, 8), np.uint8), "")],
        [
            Card(
                np.zeros((28, 28), np.uint8),
                "x" * 300 + "$a$\n</b>",
                ("word " * 90, "y" * 200),
                rank=123456,
                mark="m",
            )
        ],
    ],
)
def test_odd_sheets_are_drawn(cards: list[Card], tmp_path: Path) -> None:
    width, height = Image.open(draw_sections({"": cards}, tmp_path / "s.png", "title " * 50, "sub " * 80)).size
    assert width == 2 * 44 + 4 * SIDE + 3 * 26
    assert height < 800


def test_sheets_stand_by_size_and_noise_last(table: pd.DataFrame, pixels: PixelStore, tmp_path: Path) -> None:
    labels = pd.Series([0] * 10 + [7] * 12 + [-1] * 8, index=table["particle_id"])
    xy = np.random.default_rng(0).normal(size=(30, 2))
    drawn = draw_clusters(labels, xy, table, pixels, tmp_path, "hdbscan", n=6)
    assert [path.name for path in drawn] == [
        "hdbscan-01-cluster-7.png",
        "hdbscan-02-cluster-0.png",
        "hdbscan-03-noise.png",
    ]
    all_noise = draw_clusters(labels * 0 - 1, xy, table, pixels, tmp_path / "n", "dbscan", n=6)
    assert [path.name for path in all_noise] == ["dbscan-01-noise.png"]
    single = draw_clusters(labels[:1], xy[:1], table, pixels, tmp_path / "s", "kmeans", n=6)
    assert [path.name for path in single] == ["kmeans-01-cluster-0.png"]


@pytest.mark.parametrize(("predicted", "said"), [(True, "predicted dust"), (False, "dust")])
def test_a_class_is_called_predicted_where_it_is(
    predicted: bool, said: str, table: pd.DataFrame, pixels: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(cluster_sheets, "draw_sections", lambda *what: drawn.append(what) or what[1])
    labels, classes = pd.Series([0] * 30, index=table["particle_id"]), pd.Series("dust", index=table["particle_id"])
    draw_clusters(
        labels, np.zeros((30, 2)), table, pixels, tmp_path, "hdbscan", 4, classes, predicted=predicted, of="vae, tiny"
    )
    sections, _, title, subtitle = drawn[0]
    assert {card.lines[1] for cards in sections.values() for card in cards} == {said}
    assert title == f"cluster 0: 30 particles, 100 % {said}"
    assert subtitle == "HDBSCAN of vae, tiny: 1 of 1 by size; 4 of 30 shown"


def test_members_are_the_nearest_and_a_seeded_draw_of_the_rest() -> None:
    xy = np.stack([np.arange(101.0) - 50, np.zeros(101)], axis=1)
    central, drawn = members(xy, 11, seed=3)
    assert sorted(central) == [47, 48, 49, 50, 51, 52] or sorted(central) == [48, 49, 50, 51, 52, 53]
    assert central[0] == 50
    assert len(drawn) == len(set(drawn)) == 5
    assert not set(central) & set(drawn)
    assert (members(xy, 11, seed=3)[1] == drawn).all()
    assert len(members(xy, 11, seed=3, with_center=False)[0]) == 0
    assert [len(part) for part in members(xy[:4], 11, seed=3)] == [4, 0]


def test_cluster_titles_say_what_share_of_what() -> None:
    title = cluster_title(3, pd.Series(["dust"] * 78 + ["camp"] * 22))
    assert title == "cluster 3: 100 particles, 78 % dust"
    assert cluster_title(-1, pd.Series([pd.NA], dtype="string")) == "noise (-1): 1 particle"
    assert cluster_title(1, pd.Series(["dust"]), "predicted ") == "cluster 1: 1 particle, 100 % predicted dust"
    part = cluster_title(0, pd.Series(["b", "a", pd.NA, pd.NA], dtype="string"))
    assert part == "cluster 0: 4 particles, 50 % a (of 2 with a class)"


def test_the_false_discovery_line_stands_where_the_discoveries_end(
    table: pd.DataFrame, pixels: PixelStore, tmp_path: Path, sections: list[dict[str, list[Card]]]
) -> None:
    ranks = np.random.default_rng(0).permutation(30) + 1
    ranked = pd.DataFrame({"particle_id": table["particle_id"], "rank": ranks, "p_value": ranks / 1000})
    draw_outliers(ranked.assign(discovery=ranks <= 7), table, pixels, tmp_path / "some.png", "", n=12)
    above, below = sections[0].values()
    assert [card.rank for card in above] == list(range(1, 8))
    assert [card.rank for card in below] == list(range(8, 13))
    assert "10 %" in next(iter(sections[0]))
    assert above[2].lines[1] == "p = 0.003"
    draw_outliers(ranked.assign(discovery=ranks == 9), table, pixels, tmp_path / "one.png", "", n=12)
    assert [[card.rank for card in cards] for cards in sections.pop().values()] == [[9], [*range(1, 9), 10, 11, 12]]
    draw_outliers(ranked.assign(discovery=False), table, pixels, tmp_path / "none.png", "", n=12)
    draw_outliers(ranked.assign(discovery=True), table, pixels, tmp_path / "all.png", "", n=12)
    assert [len(parts) for parts in sections] == [2, 1, 1]
    assert list(sections[1]) == [""]
