"""The page of how far latents agree: what stands in its cells, and what is said where there is nothing to compare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image
from planted_search import Planted, plant

from clustering.agreement import found_in, write_agreement
from figures import agreement
from figures.agreement import draw_agreement, heatmaps_of
from figures.finished import Redraw
from figures.particle_cards import found_text
from figures.report import rendered
from figures.report_results import results_of
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import read_json


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is written."""
    seen: list[str] = []
    write = Axes.text

    def watched(self: Axes, x: float, y: float, text: str, *rest: Any, **look: Any) -> Any:
        seen.append(text)
        return write(self, x, y, text, *rest, **look)

    monkeypatch.setattr(Axes, "text", watched)
    return seen


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """A search whose latents were compared."""
    made = plant(tmp_path / "work", n=40, latents=("classifier", "ae", "vae"))
    write_agreement(made.consensus, made.clustered, made.runs, 0)
    path = made.consensus.path / "outliers.parquet"
    ranks = {run.kind: read_parquet(run.path / "outliers.parquet").set_index("particle_id")["rank"]
             for run in made.clustered}  # fmt: skip
    ranked = read_parquet(path)
    found = found_in(pd.DataFrame(ranks)).loc[ranked["particle_id"]].to_numpy()
    write_parquet(ranked.assign(found_in=found), path)
    return made


def compared(n_latents: int = 2) -> dict[str, Any]:
    square = np.full((n_latents, n_latents), 0.25).tolist()
    square[0][0], square[0][1] = 1.0, None
    names = [f"latent {i}" for i in range(n_latents)]
    return {
        "latents": names, "n": 5000, "top": 100, "found": 50, "sample": 3000, "neighbors": 15,
        "found_in": [4900, *[100] * n_latents], "hdbscan_compared": [[0.5] * n_latents] * n_latents,
        "trustworthiness": {name: {"umap": 0.998, "tsne": 0.9} for name in names},
        **dict.fromkeys(("rank_correlation", "top_overlap", "kmeans_ari", "hdbscan_ari", "neighbor_overlap"), square),
    }  # fmt: skip


def test_the_numbers_stand_in_the_cells(texts: list[str], tmp_path: Path) -> None:
    found = pd.DataFrame({"latent 0": [True, False], "latent 1": [True, False]})
    draw_agreement(compared(), found, [2, 0], tmp_path / "a.png", "t")
    assert texts.count("0.25") == 4 * 2
    assert texts.count("0.25\nof 50 %") == 2
    assert texts.count("\N{EN DASH}") == 4, "a dash where there is no number"
    assert texts.count("> 0.99") == 2, "never rounded up to 1"
    assert {"2", "0"} <= set(texts)
    assert any("100 found in 2, 100 in 1" in text for text in texts)


def test_a_map_that_was_not_made_is_left_out() -> None:
    values = compared()
    for of in values["trustworthiness"].values():
        of.pop("tsne")
    assert heatmaps_of(values)[-1].columns == ("UMAP",)
    assert "by chance 0.005" in heatmaps_of(values)[2].told


def test_two_latents_share_by_chance_what_the_strangest_are_of_all() -> None:
    assert "by chance 0.02" in heatmaps_of(compared())[1].told


@pytest.mark.parametrize("n_latents", [2, 4])
def test_the_page_has_the_same_bytes_twice(n_latents: int, tmp_path: Path) -> None:
    found = pd.DataFrame(np.eye(40, n_latents, dtype=bool))
    drawn = [
        draw_agreement(compared(n_latents), found, [1] * 40, tmp_path / f"{i}.png", "t" * 300).read_bytes()
        for i in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert Image.open(tmp_path / "0.png").width < 2000


def test_a_consensus_is_drawn_by_command(planted: Planted, texts: list[str], tmp_path: Path) -> None:
    settings = Redraw(planted.consensus.path, tmp_path / "out", pdf=True)
    agreement.main(settings)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["agreement.pdf", "agreement.png"]
    ranked = read_parquet(planted.consensus.path / "outliers.parquet").sort_values("rank")
    assert ranked["found_in"].sum() == 3, "one particle a latent: the first percent of 40"
    assert texts[-1] in map(str, range(4))
    written = read_json(planted.consensus.path / "agreement.json")
    assert sum(k * n for k, n in enumerate(written["found_in"])) == 3


def test_a_dot_stands_where_a_latent_has_the_particle_in_its_first_percent(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def watched(of: dict[str, Any], found: pd.DataFrame, found_in: list[int], path: Path, title: str) -> Path:
        seen.update(found=found, found_in=found_in)
        return path

    monkeypatch.setattr(agreement, "draw_agreement", watched)
    agreement.main(Redraw(planted.consensus.path, tmp_path))
    assert seen["found"].shape == (len(seen["found_in"]), 3)
    assert seen["found"].sum(axis=1).tolist() == seen["found_in"]
    assert sum(seen["found_in"]) > 0


def test_what_cannot_be_drawn_is_said(planted: Planted, tmp_path: Path) -> None:
    settings = Redraw(planted.consensus.path, tmp_path)
    (planted.consensus.path / "agreement.json").unlink()
    with pytest.raises(UserError, match=r"no agreement\.json; run it again"):
        agreement.main(settings)
    alone = plant(tmp_path / "alone", latents=("vae",))
    with pytest.raises(UserError, match="one latent has none to agree with"):
        agreement.main(replace(settings, run=alone.consensus.path))


def test_a_particle_is_said_to_be_found_where_latents_were_compared(planted: Planted) -> None:
    assert found_text(3, 4) == "top 1 % in 3 of 4 latents"
    assert [found_text(*nothing) for nothing in ((0, 4), (None, 4), (np.nan, 4), (1, 1))] == [""] * 4
    ranked = read_parquet(planted.consensus.path / "outliers.parquet")
    said = int((ranked.nsmallest(20, "rank")["found_in"] > 0).sum())
    page = rendered(results_of(planted.particles, planted.consensus))
    assert 0 < page.count(" of 3 latents") == said < 20
    write_parquet(ranked.drop(columns="found_in"), planted.consensus.path / "outliers.parquet")
    assert " of 3 latents" not in rendered(results_of(planted.particles, planted.consensus))
