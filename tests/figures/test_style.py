import numpy as np
import pytest
from matplotlib.colors import to_rgb

from figures import style

LONG = "7-Pygsuia-SF-SW-NITRATE-day5-sample3-replicate3-08April2024_CDDD2C52-8FC9-4F81-AF14-3EB17D7D1AF8"


def test_noise_is_grey_and_keeps_its_number() -> None:
    red, green, blue = to_rgb(style.cluster_color(-1))
    assert red == green == blue
    assert style.cluster_name(-1) == "noise (-1)"
    assert all(style.cluster_color(k) != style.GREY for k in range(100))


def test_a_class_has_one_color_whatever_the_order() -> None:
    names = ["dust", "camp", "corylus", "qrob", "2", "10"]
    assert style.palette(names) == style.palette([*reversed(names), "dust"])
    assert list(style.palette(names)) == ["2", "10", "camp", "corylus", "dust", "qrob"]


def test_the_first_colors_differ_and_none_is_too_pale_for_white() -> None:
    colors = [style.hue(i) for i in range(36)]
    assert len(set(colors)) == 36
    rgb = np.array([to_rgb(color) for color in colors[:24]])
    luminance = rgb @ np.array([0.2126, 0.7152, 0.0722])
    assert luminance.max() < 0.8


def test_a_reserved_mark_never_changes_color() -> None:
    assert style.palette([style.TRUE_OUTLIER])[style.TRUE_OUTLIER] == "#009E73"
    assert style.palette(["a", style.TRUE_OUTLIER, "z"])[style.TRUE_OUTLIER] == "#009E73"


def test_scores_run_from_light_to_dark() -> None:
    rgb = style.score_colors()(np.linspace(0, 1, 20))[:, :3]
    assert (np.diff(rgb @ np.array([0.2126, 0.7152, 0.0722])) < 0).all()


@pytest.mark.parametrize("most", [3, 10, 25, 26])
def test_elision_keeps_both_ends(most: int) -> None:
    short = style.elide(LONG, most)
    assert len(short) == most
    head, tail = short.split("…")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert len(head) - len(tail) in (0, 1)


def test_elision_leaves_what_fits() -> None:
    assert style.elide(LONG, len(LONG)) == LONG
    assert [style.elide("abc", most) for most in (0, 1, 2)] == ["", "…", "…"]


def test_fitted_and_wrapped_text_is_never_too_wide() -> None:
    assert style.text_width(style.fitted(LONG, 200, 7, mono=True), 7, mono=True) <= 200
    lines = style.wrapped(f"far from its nearest neighbors and also {LONG} and more words here", 200, 7, most=3)
    assert len(lines) == 3
    assert max(style.text_width(line, 7) for line in lines) <= 200
    assert lines[-1].endswith("…")


SAMPLES = [
    f"7-Pygsuia-{what}-sample{n}-replicate{k}-08April2024" for what in ("3LB", "SF") for n in (1, 2) for k in (1, 2)
]


@pytest.mark.parametrize("width", [150, 230])
def test_names_that_differ_in_the_middle_stay_different(width: float) -> None:
    assert len({style.fitted(name, width, 7) for name in SAMPLES}) < len(SAMPLES), "the test could fail"
    shown = style.fitted_apart([*SAMPLES, SAMPLES[0], "short"], width, 7)
    assert len(set(shown.values())) == len(shown) == len(SAMPLES) + 1
    assert max(style.text_width(name, 7) for name in shown.values()) <= width
    assert shown["short"] == "short"


def test_names_that_fit_or_differ_at_an_end_are_not_cut_further() -> None:
    names = [LONG, LONG[::-1], "GRIP_1", "GRIP_11"]
    assert style.fitted_apart(names, 200, 7) == {name: style.fitted(name, 200, 7) for name in names}


def test_what_cannot_be_printed_becomes_a_square() -> None:
    assert style.printable("grain\n冰\x00 µm") == "grain □□ µm"


def test_natural_order() -> None:
    assert sorted(["b2", "b10", "b1", "10", "9", "a", ""], key=style.natural) == [
        "",
        "9",
        "10",
        "a",
        "b1",
        "b2",
        "b10",
    ]
