from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from PIL import Image

from figures import paper
from figures.linked import draw_linked
from provenance.errors import UserError

IDS = [f"p{i}" for i in range(30)]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[ConnectionPatch]:
    """Every line that is drawn from map to map."""
    seen: list[ConnectionPatch] = []
    add = Figure.add_artist

    def watched(self: Figure, artist: Any, clip: bool = False) -> Any:
        if isinstance(artist, ConnectionPatch):
            seen.append(artist)
        return add(self, artist, clip)

    monkeypatch.setattr(Figure, "add_artist", watched)
    return seen


def maps(*names: str) -> dict[str, pd.DataFrame]:
    """Each latent has the particles in an order of its own."""
    rng = np.random.default_rng(0)
    return {name: pd.DataFrame(rng.normal(size=(30, 2)), index=rng.permutation(IDS)) for name in names}


def ranked() -> pd.DataFrame:
    return pd.DataFrame({"particle_id": IDS, "rank": np.random.default_rng(1).permutation(30) + 1})


def test_lines_join_the_same_particle_whatever_the_order(lines: list[ConnectionPatch], tmp_path: Path) -> None:
    places, ranks = maps("ae", "vae", "planar-vae"), ranked()
    draw_linked(places, ranks, pd.Series(["dust"] * 30), tmp_path / "l.png", "t", top=4)
    assert len(lines) == 2 * 4
    strangest = ranks.sort_values("rank")["particle_id"].head(4)
    for one, other in (("ae", "vae"), ("vae", "planar-vae")):
        wanted = {(*places[one].loc[name], *places[other].loc[name]) for name in strangest}
        assert wanted <= {(*line.xy1, *line.xy2) for line in lines}


def test_a_particle_that_one_map_lacks_is_joined_where_it_is(lines: list[ConnectionPatch], tmp_path: Path) -> None:
    places, ranks = maps("ae", "vae", "classifier"), ranked()
    first = ranks.sort_values("rank")["particle_id"].iloc[0]
    places["classifier"] = places["classifier"].drop(index=first)
    draw_linked(places, ranks, pd.Series([None] * 30), tmp_path / "l.png", "t", top=1)
    assert len(lines) == 1


def test_one_map_has_no_lines_and_none_is_said(lines: list[ConnectionPatch], tmp_path: Path) -> None:
    draw_linked(maps("vae"), ranked(), pd.Series(["x" * 200] * 30), tmp_path / "l.png", "t")
    assert not lines
    with pytest.raises(UserError, match="no map of any latent"):
        draw_linked({}, ranked(), pd.Series([None] * 30), tmp_path / "n.png", "t")


def test_pdf_is_written_beside_the_png_only_where_asked_and_repeats(tmp_path: Path) -> None:
    classes = pd.Series(["dust"] * 30)
    for name in "ab":
        with paper.with_pdf():
            draw_linked(maps("ae", "vae"), ranked(), classes, tmp_path / f"{name}.png", "t")
    draw_linked(maps("ae", "vae"), ranked(), classes, tmp_path / "c.png", "t")
    assert sorted(path.name for path in tmp_path.glob("*.pdf")) == ["a.pdf", "b.pdf"]
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/FontFile2" in pdf, "TrueType fonts are embedded"
    assert b"/Type3" not in pdf
    assert pdf == (tmp_path / "b.pdf").read_bytes()
    assert (np.asarray(Image.open(tmp_path / "a.png")) == np.asarray(Image.open(tmp_path / "c.png"))).all()
