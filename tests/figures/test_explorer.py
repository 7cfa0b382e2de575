import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from figures import style
from figures.explorer import page_data, script_json, sprite_sheets, write_explorer

EVIL = "</script><b onmouseover=alert(1)>x"


def points(n: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "particle_id": [EVIL, *(f"p{i}" for i in range(1, n))],
            "class": pd.array([EVIL, *([pd.NA] * (n - 1))], dtype="string"),
            "rank": pd.array([2, 1, *([pd.NA] * (n - 2))][:n], dtype="Int64"), "score": rng.random(n),
            "reasons": ["improbable (vae, top 1 %); <i>", *([None] * (n - 1))], "size_um": [np.nan] * n,
            "vae:umap_x": [1.0, np.nan, *([3.0] * (n - 2))][:n], "vae:umap_y": rng.random(n),
            "vae:tsne_x": rng.random(n), "vae:tsne_y": rng.random(n),
            "vae:hdbscan": [3, *([-1] * (n - 1))], "ae:umap_x": rng.random(n), "ae:umap_y": rng.random(n),
        }
    )  # fmt: skip


def embedded(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    thumbnails = np.random.default_rng(1).integers(0, 256, (4, 20, 20), dtype=np.uint8)
    path = write_explorer(tmp_path_factory.mktemp("e") / "explorer.html", points(), thumbnails, f"T {EVIL}")
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    assert not re.search(r"https?://", page)
    assert not re.search(r"(src|href)\s*=", page)
    assert "default-src 'none'" in page


def test_no_id_label_reason_or_title_becomes_markup(page: str) -> None:
    assert EVIL not in page
    assert "<b onmouseover" not in page
    assert "<i>" not in page
    assert "innerHTML" not in page
    data = embedded(page)
    assert data["ids"][0] == EVIL
    assert data["colors"]["class"]["names"] == [EVIL, "unlabeled"]
    assert data["reasons"] == [["improbable (vae, top 1 %)", "<i>"], [], [], []]


def test_choices_follow_the_columns(page: str) -> None:
    data = embedded(page)
    assert list(data["colors"]) == ["consensus score", "class"]
    assert {name: list(latent["maps"]) for name, latent in data["latents"].items()} == {
        "vae": ["UMAP", "t-SNE"],
        "ae": ["UMAP"],
    }
    assert data["latents"]["vae"]["maps"]["UMAP"]["x"] == [1.0, None, 3.0, 3.0]
    assert data["rank"] == [2, 1, None, None]
    assert data["size"] == [None] * 4
    assert sorted(data["order"]) == [0, 1, 2, 3]


def test_noise_is_named_grey_and_last(page: str) -> None:
    clusters = embedded(page)["latents"]["vae"]["colors"]["hdbscan"]
    assert clusters["names"] == ["cluster 3", "noise (-1)"]
    assert clusters["colors"] == [style.cluster_color(3), style.GREY]
    assert clusters["codes"] == [0, 1, 1, 1]


def test_a_thumbnail_comes_back_from_its_sheet(tmp_path: Path) -> None:
    n = 1030
    thumbnails = np.random.default_rng(2).integers(0, 256, (n, 6, 6), dtype=np.uint8)
    frame = pd.DataFrame({"particle_id": [f"p{i}" for i in range(n)]})
    text = write_explorer(tmp_path / "e.html", frame, thumbnails, "t").read_text(encoding="utf-8")
    sprite = embedded(text)["sprite"]
    found = re.findall(r"\.sheet-\d+ \{ background-image: url\(data:image/png;base64,([^)]*)\)", text)
    sheets = [np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))) for sheet in found]
    assert [sheet.shape for sheet in sheets] == [(192, 192), (6, 192)]
    for row in (0, 33, 1023, 1024, n - 1):
        sheet, at = divmod(row, sprite["columns"] * sprite["rows"])
        top, left = (6 * place for place in divmod(at, sprite["columns"]))
        assert (sheets[sheet][top : top + 6, left : left + 6] == thumbnails[row]).all()


def test_large_thumbnails_are_made_small(tmp_path: Path) -> None:
    frame = pd.DataFrame({"particle_id": ["p"], "reasons": [""]})
    thumbnails = np.full((1, 96, 96), 77, dtype=np.uint8)
    data = embedded(write_explorer(tmp_path / "e.html", frame, thumbnails, "t").read_text(encoding="utf-8"))
    assert data["sprite"]["side"] == 48
    assert (np.asarray(Image.open(io.BytesIO(sprite_sheets(thumbnails[:, :48, :48])[0])))[:, :48] == 77).all()


def test_it_is_written_alike_twice_and_stays_small(tmp_path: Path) -> None:
    n = 4000
    ramp = np.linspace(0, 40, 48 * 48).reshape(48, 48)
    noise = np.random.default_rng(3).normal(150, 4, (n, 48, 48))
    thumbnails = (noise + ramp).astype(np.uint8)
    first = write_explorer(tmp_path / "a.html", points(n), thumbnails, "t").read_bytes()
    assert first == write_explorer(tmp_path / "b.html", points(n), thumbnails, "t").read_bytes()
    assert len(first) - len(get_plotlyjs()) < 10e6


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 points but 3 thumbnails"):
        write_explorer(tmp_path / "e.html", points(), np.zeros((3, 8, 8), np.uint8), "t")
    twice = points().assign(particle_id="p")
    with pytest.raises(ValueError, match="not unique"):
        write_explorer(tmp_path / "e.html", twice, np.zeros((4, 8, 8), np.uint8), "t")


def test_nothing_at_all_is_still_a_page(tmp_path: Path) -> None:
    empty = points()[:0]
    assert page_data(empty, 8)["ids"] == []
    assert write_explorer(tmp_path / "e.html", empty, np.zeros((0, 8, 8), np.uint8), "t").exists()


def test_json_within_a_script_cannot_end_it() -> None:
    text = script_json(["</script>", "<!--", "\u2028"])
    assert "<" not in text
    assert json.loads(text) == ["</script>", "<!--", "\u2028"]
