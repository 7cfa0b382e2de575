from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LogNorm, to_rgb
from PIL import Image

from figures import style
from figures.density import Grid
from figures.scalar_maps import _colored, _mean_angle, draw_scalars, scale_of


def test_colors_end_at_the_2nd_and_98th_percentile() -> None:
    scale = scale_of(np.append(np.arange(101.0), [np.nan, np.inf]), "µm")
    assert scale is not None
    assert (scale.norm.vmin, scale.norm.vmax) == pytest.approx((2, 98))
    assert scale.text == ("2", "log", "98")
    assert isinstance(scale.norm, LogNorm)
    narrow = scale_of(np.arange(101.0) + 50, "")
    assert narrow is not None
    assert not isinstance(narrow.norm, LogNorm)
    assert (_colored(np.array([1e9, -1e9]), narrow) == _colored(np.array([148.0, 52.0]), narrow)).all()


def test_a_scalar_that_is_the_same_for_all_and_one_that_is_unknown() -> None:
    same = scale_of(np.full(5, 1.0), "")
    assert same is not None
    assert same.text == ("all", "1", "")
    mostly = scale_of(np.append(np.ones(500), 7.0), "")
    assert mostly is not None
    assert mostly.text == ("1", "", "7")
    assert scale_of(np.full(5, np.nan), "µm") is None


def test_no_value_is_grey() -> None:
    scale = scale_of(np.array([1.0, 2.0, 3.0]), "")
    assert scale is not None
    assert _colored(np.array([np.nan]), scale)[0] == pytest.approx(to_rgb(style.GREY))


def test_directions_of_85_and_minus_85_average_to_90_not_to_0() -> None:
    mean = _mean_angle(Grid(np.array([0, 0, 1]), 2, (0, 1, 0, 1)), np.array([85.0, -85.0, 30.0]))
    assert abs(mean[0]) == pytest.approx(90)
    assert mean[1] == pytest.approx(30)
    scale = scale_of(np.array([0.0]), "deg")
    assert scale is not None
    ends = _colored(np.array([-90.0, 90.0]), scale)
    assert ends[0] == pytest.approx(ends[1], abs=0.03), "the colors go around a circle, too"


def test_a_panel_a_scalar_and_the_same_bytes_twice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(40, 2))
    values = {
        "Area (ABD)": rng.lognormal(size=40),
        "Width": np.full(40, np.nan),
        "Feret Angle Max": rng.uniform(-90, 90, 40),
    }
    paths = [draw_scalars(xy, values, tmp_path / f"{name}.png", "t") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    top = 44 + style.heading_height("said") + 34 + 300 + 8 + 6
    drawn = np.asarray(Image.open(paths[0]).convert("RGB")).astype(int)
    colored = [np.ptp(drawn[top, 44 + i * 330 + 20], axis=-1) > 20 for i in range(3)]
    assert colored[:2] == [True, False], "what nobody knows has no color bar"
    assert Image.open(draw_scalars(xy[:1], {"Width": np.ones(1)}, tmp_path / "one.png", "t")).size[0] == 900
