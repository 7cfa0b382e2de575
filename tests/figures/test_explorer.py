import base64
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plotly.offline import get_plotlyjs

from clustering import run as clustering
from experiments import pretrain_classifier, train_vae
from figures import style
from figures.explorer import write_explorer
from figures.explorer_crops import MOST_LOSSLESS, layout_of, sheets_of, shrunk
from figures.explorer_data import Extras, Payload, payload_of
from figures.explorer_missing import Opened, missing_of
from figures.explorer_page import ASSETS, MODULES, script, script_json
from particles.sets import DataSettings
from particles.squares import PackSettings
from provenance.run import TRAINED_BY, RunSettings
from provenance.settings import flags_of, parse

EVIL = "</script><b onmouseover=alert(1)>x"
KINDS = {"f4": "<f4", "u2": "<u2", "u4": "<u4"}


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


def element(page: str, identity: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{identity}">(.*?)</script>', page, re.S)
    assert found, identity
    return found[1]


def embedded(page: str) -> dict:
    return json.loads(element(page, "data"))


def decoded(place: dict, text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=KINDS[place["type"]])


def column(page: str, place: dict) -> list[float]:
    return decoded(place, element(page, place["chunk"])).tolist()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    thumbnails = np.random.default_rng(1).integers(0, 256, (4, 20, 20), dtype=np.uint8)
    path = write_explorer(tmp_path_factory.mktemp("e") / "explorer.html", points(), thumbnails, f"T {EVIL}")
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    assert not re.search(r"https?://", page)
    assert not re.search(r"(src|href)\s*=\s*[\"']", page)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|importScripts)\b", script())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    assert "connect-src" not in rules


def test_no_id_label_reason_or_title_becomes_markup(page: str) -> None:
    assert EVIL not in page
    assert "<b onmouseover" not in page
    assert "<i>" not in page.replace((ASSETS / "explorer.html").read_text(encoding="utf-8").split("</h1>")[1], "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script())
    data = embedded(page)
    assert data["ids"][0] == EVIL
    assert data["names"][0]["names"] == [EVIL, "unlabeled"]
    assert data["reasons"]["texts"] == ["improbable (vae, top 1 %)", "<i>"]
    assert column(page, data["reasons"]) == [0, 1, *[0xFFFF] * 6]


def test_each_particle_has_its_file() -> None:
    images = pd.array([f"{EVIL}/a.tif?box=1", pd.NA, f"{EVIL}/a.tif?box=2", "key"], dtype="string")
    payload = payload_of(points().assign(image=images), "", Extras())
    files = payload.meta["files"]
    assert files["names"] == [f"{EVIL}/a.tif"]
    assert decoded(files, payload.chunks[files["chunk"]]).tolist() == [0, 0xFFFF, 0, 0xFFFF]
    assert payload_of(points(), "", Extras()).meta["files"] is None
    assert payload_of(points().assign(image="000001"), "", Extras()).meta["files"] is None


def test_choices_follow_the_columns(page: str) -> None:
    data = embedded(page)
    assert [entry["key"] for entry in data["numbers"]] == ["rank", "score"]
    assert [entry["key"] for entry in data["names"]] == ["class", "vae:hdbscan"]
    assert {name: list(maps) for name, maps in data["latents"].items()} == {"vae": ["UMAP", "t-SNE"], "ae": ["UMAP"]}
    np.testing.assert_equal(column(page, data["latents"]["vae"]["UMAP"]["x"]), [1.0, np.nan, 3.0, 3.0])
    np.testing.assert_equal(column(page, data["numbers"][0]), [2, 1, np.nan, np.nan])
    assert sorted(column(page, data["order"])) == [0, 1, 2, 3]


def test_what_is_missing_is_named_with_the_command_that_makes_it(page: str) -> None:
    missing = {entry["name"]: entry["command"] for entry in embedded(page)["missing"]}
    assert missing["ae: t-SNE"] == "python clustering/run.py --latent ae"
    assert missing["planar-vae"].startswith(TRAINED_BY["planar-vae"])
    assert missing["predicted class"] == TRAINED_BY["classifier"]
    assert set(missing) == {"classifier", "planar-vae", "ae: t-SNE", "p-value", "predicted class", "scalars"}


def test_commands_open_the_set_as_it_was_opened() -> None:
    data = DataSettings(data="my crops", held_out=("ash", "soot"), um_per_px=0.25, pack=PackSettings(size=32))
    common = RunSettings(seed=3)
    opened = Opened(flags_of(data, common), n_classes=2)
    missing = {entry["name"]: entry["command"] for entry in missing_of(points()[["particle_id"]], opened=opened)}
    trained, clustered = missing["planar-vae"].split(" && ")
    parsed = parse(train_vae.Settings, shlex.split(trained)[2:])
    assert (parsed.flow, parsed.data, parsed.common) == ("planar", data, common)
    again = parse(clustering.Settings, shlex.split(clustered)[2:])
    assert (again.latent, again.data, again.common) == ("planar-vae", data, common)
    assert parse(pretrain_classifier.Settings, shlex.split(missing["predicted class"])[2:]).data == data
    assert parse(clustering.Settings, shlex.split(missing["consensus score"])[2:]) == replace(again, latent="all")
    assert missing["scalars"] == "", "they are made by leaving a flag away"
    assert missing["p-value"] == "", "what was held back is a matter of labels"


@pytest.mark.parametrize(
    ("n_classes", "refused"),
    [
        (0, dict.fromkeys(("classifier", "predicted class"), "needs labeled particles")),
        (1, dict.fromkeys(("classifier", "predicted class"), "needs two labeled classes")),
        (2, {}),
    ],
)
def test_no_command_is_offered_that_labels_are_too_few_for(n_classes: int, refused: dict[str, str]) -> None:
    found = missing_of(points()[["particle_id"]], opened=Opened("--data lake", n_classes))
    never = ("scalars", "p-value")
    assert {e["name"]: e["why"] for e in found if not e["command"] and e["name"] not in never} == refused
    commands = [part for entry in found if entry["command"] for part in entry["command"].split(" && ")]
    assert all(part.startswith("python ") and part.endswith(" --data lake") for part in commands)
    assert "python clustering/run.py --latent all --data lake" in commands


def test_noise_is_named_grey_and_last(page: str) -> None:
    clusters = embedded(page)["names"][1]
    assert clusters["names"] == ["cluster 3", "noise (-1)"]
    assert clusters["colors"] == [style.cluster_color(3), style.GREY]
    assert column(page, clusters) == [0, 1, 1, 1]


def test_a_thumbnail_comes_back_from_its_sheet(tmp_path: Path) -> None:
    n = 1030
    thumbnails = np.random.default_rng(2).integers(0, 256, (n, 6, 6), dtype=np.uint8)
    frame = pd.DataFrame({"particle_id": [f"p{i}" for i in range(n)]})
    text = write_explorer(tmp_path / "e.html", frame, thumbnails, "t").read_text(encoding="utf-8")
    sprite = embedded(text)["sprite"]
    assert (sprite["kind"], sprite["sheets"], sprite["cell"]) == ("lossless PNG", 5, 6)
    sheets = [_image(base64.b64decode(element(text, f"sheet-{i}"))) for i in range(5)]
    assert [sheet.shape for sheet in sheets] == [(96, 96)] * 4 + [(6, 96)]
    for row in (0, 33, 255, 256, 1023, 1024, n - 1):
        sheet, at = divmod(row, sprite["across"] ** 2)
        top, left = (6 * place for place in divmod(at, sprite["across"]))
        assert (sheets[sheet][top : top + 6, left : left + 6] == thumbnails[row]).all()


def _image(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_many_thumbnails_are_close_to_their_crops_and_do_not_bleed_into_each_other() -> None:
    """Black and white neighbors of 20 px, which is no multiple of JPEG's blocks: the hardest case."""
    n = MOST_LOSSLESS + 1
    crops = np.zeros((n, 20, 20), dtype=np.uint8)
    crops[::2] = 255
    layout = layout_of(crops)
    assert (layout.suffix, layout.cell) == ("jpg", 24)
    sheet = _image(next(sheets_of(crops, layout)))
    for row in (0, 1, 17, 255):
        top, left = (24 * place for place in divmod(row, 16))
        found = sheet[top : top + 20, left : left + 20].astype(int)
        assert abs(found - int(crops[row, 0, 0])).max() <= 2


def test_large_thumbnails_are_made_small(tmp_path: Path) -> None:
    frame = pd.DataFrame({"particle_id": ["p"], "reasons": [""]})
    blocks = np.arange(64, dtype=np.uint8).reshape(8, 8).repeat(16, axis=0).repeat(16, axis=1)[None]
    data = embedded(write_explorer(tmp_path / "e.html", frame, blocks, "t").read_text(encoding="utf-8"))
    assert data["sprite"]["side"] == 64
    assert (shrunk(blocks, 64)[0] == blocks[0, ::2, ::2]).all()


def test_it_is_written_alike_twice_and_stays_small(tmp_path: Path) -> None:
    n = 4000
    ramp = np.linspace(0, 40, 48 * 48).reshape(48, 48)
    noise = np.random.default_rng(3).normal(150, 4, (n, 48, 48))
    thumbnails = (noise + ramp).astype(np.uint8)
    first = write_explorer(tmp_path / "a.html", points(n), thumbnails, "t").read_bytes()
    assert first == write_explorer(tmp_path / "b.html", points(n), thumbnails, "t").read_bytes()
    assert len(first) - len(get_plotlyjs()) < 10e6


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 points but 3 crops"):
        write_explorer(tmp_path / "e.html", points(), np.zeros((3, 8, 8), np.uint8), "t")
    twice = points().assign(particle_id="p")
    with pytest.raises(ValueError, match="not unique"):
        write_explorer(tmp_path / "e.html", twice, np.zeros((4, 8, 8), np.uint8), "t")
    assert list(tmp_path.glob("*.html")) == []


def test_nothing_at_all_is_still_a_page(tmp_path: Path) -> None:
    empty = points()[:0]
    assert payload_of(empty, "t", Extras()).meta["ids"] == []
    path = write_explorer(tmp_path / "e.html", empty, np.zeros((0, 8, 8), np.uint8), "t")
    assert embedded(path.read_text(encoding="utf-8"))["sprite"]["sheets"] == 0


def test_json_within_a_script_cannot_end_it() -> None:
    text = script_json(["</script>", "<!--", "\u2028"])
    assert "<" not in text
    assert json.loads(text) == ["</script>", "<!--", "\u2028"]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_reasons_come_back_whatever_they_say(texts: list[str]) -> None:
    payload = payload_of(pd.DataFrame({"particle_id": range(len(texts)), "reasons": texts}), "t", Extras())
    found = payload.meta["reasons"]
    codes = decoded(found, payload.chunks[found["chunk"]]).reshape(len(texts), found["width"])
    wanted = [[part.strip() for part in text.split(";") if part.strip()] for text in texts]
    assert [[found["texts"][c] for c in row if c != 0xFFFF] for row in codes] == wanted


@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_numbers_are_kept_as_float32_and_infinity_is_missing(values: list[float]) -> None:
    payload = Payload()
    place = payload.numbers(pd.Series(values, dtype="float64"))
    expected = np.array([value if np.isfinite(value) else np.nan for value in values], dtype=np.float32)
    np.testing.assert_array_equal(decoded(place, payload.chunks[place["chunk"]]), expected)


def test_scales_stop_short_of_outliers_and_p_values_run_backward() -> None:
    rng = np.random.default_rng(0)
    areas = np.append(np.exp(rng.normal(2, 1.5, 4999)), 1e9)
    frame = pd.DataFrame({"particle_id": range(5000), "Area (ABD)": areas, "p_value": np.linspace(1e-4, 1, 5000)})
    area, p_value = sorted(payload_of(frame, "t", Extras()).meta["numbers"], key=lambda entry: entry["key"])
    assert area["high"] == pytest.approx(np.quantile(areas, 0.998))
    assert (area["unit"], area["log"], area["reversed"]) == ("µm²", True, False)
    assert (p_value["log"], p_value["reversed"]) == (True, True)


def test_many_particles_become_a_folder_and_few_again_a_file(tmp_path: Path) -> None:
    path, crops = tmp_path / "explorer.html", np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    index = write_explorer(path, points(300), crops, f"T {EVIL}", one_file=299)
    assert index == tmp_path / "explorer" / "index.html"
    text = index.read_text(encoding="utf-8")
    assert EVIL not in text
    for source in re.findall(r'src="([^"]*)"', text):
        assert (index.parent / source).is_file()
    meta = (index.parent / "data/meta.js").read_text(encoding="utf-8")
    data = json.loads(meta.removeprefix("Object.assign(window.explorerChunks, ").removesuffix(");\n"))["data"]
    assert data["ids"] == points(300)["particle_id"].tolist()
    assert (_image((index.parent / "sheets/0001.png").read_bytes())[:8, :8] == crops[256]).all()
    assert write_explorer(path, points(300), crops, "t", one_file=300) == path
    assert [p.name for p in tmp_path.iterdir() if p.name != "work"] == ["explorer.html"]


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, crops = tmp_path / "explorer.html", np.zeros((4, 8, 8), dtype=np.uint8)
    index = write_explorer(path, points(), crops, "first", one_file=1)
    monkeypatch.setattr("figures.explorer.get_plotlyjs", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_explorer(path, points(), crops, "second", one_file=1)
    assert "<title>first</title>" in index.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir() if p.name != "work"] == ["explorer"]


def test_every_script_of_the_page_is_joined() -> None:
    assert {path.name for path in ASSETS.glob("*.js")} == {f"explorer-{name}.js" for name in MODULES}
    assert not re.search(r"\son[a-z]+=", (ASSETS / "explorer.html").read_text(encoding="utf-8"))
