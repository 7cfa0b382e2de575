"""The explorer in a real browser: what a user sees, clicks and takes away."""

import contextlib
import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from figures.explorer import write_explorer
from figures.explorer_data import Extras, Redrawn
from particles.marks import read_marks

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

N, NEAR, SIDE = 60, 20, 16
HOSTILE = (
    "<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "it's; \"quoted\", and\na line",
    "</script><svg onload=window.hacked=1>", "\u65e5\u672c\u8a9e \u00e9\u00df \U0001f9ca", "=1+1",
)  # fmt: skip
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def crops(n: int = N, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, side, side), dtype=np.uint8)


def points() -> pd.DataFrame:
    """Two groups far apart on the map: the first 20 rows on the left, 40 on the right."""
    rng, left = np.random.default_rng(6), np.arange(N) < NEAR
    grid = np.stack([np.arange(N) % 5, np.arange(N) // 5 % 4], axis=1) / 5
    return pd.DataFrame(
        {
            "particle_id": [*HOSTILE, *(f"GRIP_3046_0_20_1_{i}" for i in range(len(HOSTILE), N))],
            "predicted": np.where(left, "dust", np.where(np.arange(N) % 2, "L" * 200, "<b>ash</b>")),
            "rank": rng.permutation(N) + 1, "score": rng.random(N), "size_um": np.linspace(2, 40, N),
            "um_per_shown_px": 0.5, "bag": 3046, "Area (ABD)": rng.lognormal(2, 1, N), "vae.knn": rng.random(N),
            "reasons": "improbable (vae, top 1 %); <i>x</i>", "image": "<b>run</b>/collage.tif?box=1,2,3,4",
            "vae:umap_x": np.where(left, 0, 6) + grid[:, 0] + np.where(np.arange(N) >= 40, 1.5, 0),
            "vae:umap_y": grid[:, 1], "vae:hdbscan": np.where(left, 0, -1),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with api.sync_playwright() as started:
        yield started


def launched(playwright: Any, *flags: str) -> Any:
    rootless = () if os.geteuid() else ("--no-sandbox",)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*flags, *rootless])


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    started = launched(playwright, *SOFTWARE_GL)
    yield started
    started.close()


@pytest.fixture(scope="module")
def browser_without_gl(playwright: Any) -> Iterator[Any]:
    started = launched(playwright, "--disable-3d-apis")
    yield started
    started.close()


class Opened:
    """A page with what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.goto(path.as_uri())
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=20_000)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).text_content())

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Where a place on the map is on the screen."""
        found = self.page.evaluate(
            """([x, y]) => {
              const map = document.getElementById("map"), box = map.getBoundingClientRect();
              const {xaxis, yaxis} = map._fullLayout;
              return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
            }""",
            [float(x), float(y)],
        )
        return found[0], found[1]

    def pixels(self, selector: str) -> np.ndarray:
        """Grey levels of a canvas that shows a crop, once it does."""
        self.page.wait_for_function("s => document.querySelector(s).dataset.drawn", arg=selector)
        levels = self.page.evaluate(
            """selector => {
              const canvas = document.querySelector(selector), {width, height} = canvas;
              const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
              return Array.from({length: width * height}, (_, i) => data[4 * i]);
            }""",
            selector,
        )
        side = int(len(levels) ** 0.5)
        return np.array(levels, dtype=np.uint8).reshape(side, side)

    def hover(self, x: float, y: float) -> int:
        """The row that the page shows for the dot at a place of the map, once it no longer shows the one before."""
        before = self.page.locator("#follow").get_attribute("data-row")
        self.page.mouse.move(*(place + 3 for place in self.spot(x, y)))
        self.page.mouse.move(*self.spot(x, y))
        self.page.wait_for_selector("#follow", state="visible", timeout=5_000)
        changed = "before => document.getElementById('follow').getAttribute('data-row') !== before"
        with contextlib.suppress(api.TimeoutError):  # a second hover over the same dot changes nothing
            self.page.wait_for_function(changed, arg=before, timeout=5_000)
        return int(self.page.locator("#follow").get_attribute("data-row"))

    def lasso(self, corners: list[tuple[float, float]]) -> None:
        self.page.keyboard.press("o")
        spots = [self.spot(*corner) for corner in corners]
        self.page.mouse.move(*spots[0])
        self.page.mouse.down()
        for spot in [*spots[1:], spots[0]]:
            self.page.mouse.move(*spot, steps=4)
        self.page.mouse.up()
        self.page.wait_for_function("document.getElementById('gallery-count').textContent.startsWith('Selection')")

    def export(self, button: str) -> list[list[str]]:
        self.page.locator("#tab-marks").click()
        with self.page.expect_download() as download:
            self.page.locator(button).click()
        self.exported = Path(download.value.path())
        text = self.exported.read_text(encoding="utf-8")
        return list(csv.reader(text.splitlines(keepends=True)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nearest = np.stack([(np.arange(N) + shift) % N for shift in (7, 11)], axis=1)
    redrawn = {"vae": Redrawn(np.array([3]), 255 - crops()[3:4])}
    extras = Extras(neighbors={"vae": nearest}, redrawn=redrawn, fingerprint="tiny")
    return write_explorer(tmp_path_factory.mktemp("e") / "explorer.html", points(), crops(), "Tiny <b>", extras)


@pytest.fixture(scope="module")
def once(browser: Any, path: Path) -> Iterator[Opened]:
    """Opened once, because a browser takes seconds to draw its first map."""
    opened = Opened(browser, path)
    opened.page.on("dialog", lambda dialog: dialog.accept())
    yield opened
    opened.context.close()


@pytest.fixture
def tiny(once: Opened, path: Path) -> Iterator[Opened]:
    """As if just opened: nothing marked, selected, filtered or typed."""
    page = once.page
    page.evaluate("document.getElementById('clear-marks').click()")  # does nothing where nothing is marked
    page.evaluate("document.getElementById('unselect').click(), document.getElementById('clear-filters').click()")
    page.evaluate("document.activeElement.blur(), document.getElementById('tab-card').click()")
    page.mouse.move(640, 3)
    page.keyboard.press("p")
    yield once
    assert once.errors == []
    assert page.evaluate("window.hacked") is None
    assert {url for url in once.requests if not url.startswith(("blob:", "data:"))} == {path.as_uri()}


def at(row: int) -> tuple[float, float]:
    return points().loc[row, "vae:umap_x"], points().loc[row, "vae:umap_y"]


def test_a_dot_shows_its_own_crop(tiny: Opened) -> None:
    for row in (0, 17, 41):
        assert tiny.hover(*at(row)) == row
        assert (tiny.pixels("#follow-crop") == crops()[row]).all()
        assert tiny.text("#follow-id") == points().loc[row, "particle_id"]
    assert tiny.text("#follow-reasons") == "improbable (vae, top 1 %)<i>x</i>"


def test_a_click_opens_the_card(tiny: Opened) -> None:
    tiny.page.mouse.click(*tiny.spot(*at(3)))
    assert tiny.text("#card-id") == HOSTILE[3]
    assert tiny.text("#card-file") == "<b>run</b>/collage.tif"
    assert (tiny.pixels("#card-crop") == crops()[3]).all()
    assert (tiny.pixels("#redrawn canvas") == 255 - crops()[3]).all()
    near = tiny.page.locator("#neighbors-body .thumb")
    assert [near.nth(i).get_attribute("data-row") for i in range(near.count())] == ["10", "14"]
    # 0.42 x 16 px x 0.5 um = 3.4 um: the longest round bar is 2 um, a quarter of the crop
    assert tiny.text("#bar-text").replace("\u00a0", " ") == "2 \u00b5m"
    assert tiny.page.locator("#bar-line").evaluate("e => e.style.width") == "25%"
    tiny.page.locator("#scalars summary").click()
    share = (points()["Area (ABD)"] < points().loc[3, "Area (ABD)"]).sum() + 0.5
    cell = tiny.page.locator("#scalars-body tr", has_text="Area (ABD)").locator("td").nth(2)
    assert cell.text_content() == f"{round(100 * share / N)} %"


def test_a_lasso_selects_what_it_surrounds_and_the_export_equals_it(tiny: Opened) -> None:
    tiny.lasso([(-0.4, -0.4), (2, -0.4), (2, 1.2), (-0.4, 1.2)])
    assert tiny.text("#gallery-count") == f"Selection: {NEAR} particles"
    shown = tiny.page.locator("#thumbs .thumb")
    ranked = points()[:NEAR].sort_values("rank")
    assert [int(shown.nth(i).get_attribute("data-row")) for i in range(shown.count())] == ranked.index.tolist()
    tiny.page.select_option("#sort", "size_um")
    assert int(tiny.page.locator("#thumbs .thumb").first.get_attribute("data-row")) == NEAR - 1
    assert (tiny.pixels("#thumbs .thumb canvas") == crops()[NEAR - 1]).all()
    header, *rows = tiny.export("#export-shown")
    assert header[:3] == ["particle_id", "star", "label"]
    assert [row[0] for row in rows] == ranked["particle_id"].tolist()
    assert [int(row[header.index("rank")]) for row in rows] == ranked["rank"].tolist()
    scores = [float(row[header.index("score")]) for row in rows]
    assert scores == pytest.approx(ranked["score"].tolist(), rel=1e-6)


def test_filters_hide_and_come_back(tiny: Opened) -> None:
    tiny.page.locator("#legend button", has_text="dust").click()
    tiny.page.locator("#tab-filters").click()
    assert tiny.text("#filter-count") == f"{N - NEAR} of {N} shown"
    tiny.page.get_by_label("highest size").fill("20")
    tiny.page.get_by_label("highest size").press("Enter")
    small = (points()["size_um"][NEAR:] <= 20).sum()
    assert tiny.text("#filter-count") == f"{small} of {N} shown"
    tiny.page.locator("#tab-gallery").click()
    assert tiny.text("#gallery-count") == f"{small} particles"
    tiny.page.locator("#tab-filters").click()
    tiny.page.locator("#clear-filters").click()
    assert tiny.text("#filter-count") == f"{N} of {N} shown"


def test_a_pressed_button_stays_readable_under_the_mouse(tiny: Opened) -> None:
    tiny.page.click("#theme")
    tiny.page.hover("#theme")
    colors = "b => [getComputedStyle(b).backgroundColor, getComputedStyle(b).color]"
    pressed, accent = tiny.page.locator("#theme").evaluate(colors), "rgb(86, 180, 233)"
    tiny.page.click("#theme")
    assert pressed == [accent, "rgb(16, 22, 27)"], "of dark on light, not of dark on dark"


def test_marks_and_theme_survive_a_reload_and_marks_are_exported(tiny: Opened) -> None:
    order = points().sort_values("rank")["particle_id"].tolist()
    label = 'a "label", with é ' + "x" * 300
    kept = label[:200]
    for key in ("Home", "s", "ArrowRight", "l"):
        tiny.page.keyboard.press(key)
    tiny.page.locator("#label").evaluate("(field, text) => { field.value = text; }", label)
    for key in ("Enter", "ArrowRight", "1", "s"):
        tiny.page.keyboard.press(key)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tiny.page.evaluate(paper)
    tiny.page.keyboard.press("t")
    tiny.page.reload()
    tiny.ready()
    assert (light, tiny.page.evaluate(paper)) == ("rgb(255, 255, 255)", "rgb(22, 24, 27)")
    assert tiny.text("#tab-marks") == "Marks (3)"
    _, *rows = tiny.export("#export-marked")
    assert [row[:3] for row in rows] == [[order[0], "1", ""], [order[1], "0", kept], [order[2], "1", kept]]
    read = read_marks(tiny.exported).astype(object).where(lambda frame: frame.notna(), None).to_numpy().tolist()
    assert read == [[order[0], True, None], [order[1], False, kept], [order[2], True, kept]]


def test_exported_marks_load_again(tiny: Opened, tmp_path: Path) -> None:
    text = 'particle_id,star,label\r\n"' + HOSTILE[2].replace('"', '""') + '",1,"a, ""b"""\n' + HOSTILE[4] + ",0,<i>\n"
    (tmp_path / "marks.csv").write_text(text, encoding="utf-8", newline="")
    tiny.page.set_input_files("#load-marks", tmp_path / "marks.csv")
    tiny.page.wait_for_function("document.getElementById('tab-marks').textContent === 'Marks (2)'")
    _, *rows = tiny.export("#export-marked")
    assert sorted(row[:3] for row in rows) == sorted([[HOSTILE[2], "1", 'a, "b"'], [HOSTILE[4], "0", "<i>"]])


def test_marks_of_particles_that_are_not_on_this_page_are_exported_too(tiny: Opened, tmp_path: Path) -> None:
    """In rounds of labeling, what was labeled in the first has left the core of the second."""
    (tmp_path / "marks.csv").write_text(f'particle_id,star,label\n{HOSTILE[4]},0,ash\n"of, before",1,soot\n')
    tiny.page.set_input_files("#load-marks", tmp_path / "marks.csv")
    tiny.page.wait_for_function("document.getElementById('tab-marks').textContent === 'Marks (1)'")
    assert "1 more that are not on this page" in tiny.text("#marks-count")
    header, *rows = tiny.export("#export-marked")
    assert [row[:3] for row in rows] == [[HOSTILE[4], "0", "ash"], ["of, before", "1", "soot"]]
    assert {len(row) for row in rows} == {len(header)}
    assert not any(rows[1][3:])


def test_hostile_ids_are_only_text(tiny: Opened) -> None:
    for identity in HOSTILE:
        tiny.page.locator("#find").fill(identity.replace("\n", " ") if "\n" not in identity else "it's")
        assert tiny.text("#card-id") == identity
        assert identity.replace("\n", " ") in tiny.text("#live").replace("\n", " ")
    assert tiny.page.locator("img, #panel svg, #panel script, #legend b b, #facts b").count() == 0
    assert tiny.page.locator("#legend span", has_text="<b>ash</b>").count() == 1
    assert tiny.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_keyboard_and_a_screen_reader_suffice(tiny: Opened) -> None:
    unnamed = tiny.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas.crop, #histogram")].filter(e =>
             !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()
               || e.closest("[aria-hidden], [hidden]"))).map(e => e.id || e.outerHTML)"""
    )
    assert unnamed == []
    tiny.page.keyboard.press("Home")
    ranked = points().sort_values("rank")
    for row in ranked.index[1:4]:
        tiny.page.keyboard.press("ArrowRight")
        assert tiny.text("#card-id") == points().loc[row, "particle_id"]
    assert tiny.text("#live").startswith("rank 4, ")
    tiny.page.keyboard.press("?")
    assert tiny.page.locator("#help").is_visible()
    tiny.page.keyboard.press("Escape")
    assert not tiny.page.locator("#help").is_visible()
    tiny.page.locator("#tab-card").focus()
    tiny.page.keyboard.press("ArrowRight")
    assert tiny.page.evaluate("document.activeElement.id") == "tab-gallery"
    assert tiny.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_folder_opens_the_same_way(browser: Any, tmp_path: Path) -> None:
    index = write_explorer(tmp_path / "explorer.html", points(), crops(), "Folder", one_file=1)
    opened = Opened(browser, index)
    assert opened.page.evaluate("document.querySelectorAll('.gl-canvas').length") > 0
    assert opened.hover(*at(17)) == 17
    opened.page.wait_for_function("document.querySelector('#follow-crop').dataset.drawn === '17'")
    seen = opened.page.locator("#follow-crop").screenshot()
    assert len(seen) > 200
    folder = index.parent.as_uri()
    assert all(url.startswith((folder, "data:", "blob:")) for url in opened.requests)
    assert any(url.endswith("sheets/0000.png") for url in opened.requests)
    assert opened.errors == []
    opened.context.close()


DEGENERATE = {
    "no latent": (points().loc[:, lambda frame: ~frame.columns.str.contains(":")], Extras()),
    "no crop": (points(), Extras(absent=np.ones(N, dtype=bool))),
    "one particle": (points()[:1], Extras()),
    "all noise": (points().assign(**{"vae:hdbscan": -1, "predicted": None}), Extras()),
    "nothing but ids": (points()[["particle_id"]], Extras()),
    "nothing": (points()[:0], Extras()),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_what_is_missing_is_said(browser_without_gl: Any, tmp_path: Path, name: str) -> None:
    frame, extras = DEGENERATE[name]
    opened = Opened(browser_without_gl, write_explorer(tmp_path / "e.html", frame, crops(len(frame)), name, extras))
    for key in ("ArrowRight", "s", "g", "f", "m", "c"):
        opened.page.keyboard.press(key)
    said = {
        "no latent": ("#nomap", "There is no map to show"), "no crop": ("#redrawn-note", "holds no crop"),
        "one particle": ("#summary", "1 particle"), "all noise": ("#legend", "noise (-1)"),
        "nothing but ids": ("#missing-body", "python clustering/run.py --latent all"),
        "nothing": ("#nomap", "no particles"),
    }[name]  # fmt: skip
    assert said[1] in opened.text(said[0])
    assert opened.errors == []
    opened.context.close()
