"""Scalars made comparable: by rank, from the rows that may be learned from, and never missing."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from particles.measures import COMPARED, SCALE_FREE, has_scalars, normalized_scalars
from particles.scalars import SCALARS

N = 400
EVERYBODY = np.ones(N, bool)
TWO = ("Area (ABD)", "Intensity")


def table(values: np.ndarray, names: tuple[str, ...] = TWO) -> pd.DataFrame:
    """Scalars as a packed set holds them: nullable, and missing but for `names`."""
    rows = pd.DataFrame({name: pd.array([pd.NA] * len(values), dtype="Float64") for name in SCALARS})
    return rows.assign(**{name: pd.array(values[:, i], dtype="Float64") for i, name in enumerate(names)})


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(N, 2)) * [3.0, 0.5] + [20.0, -1.0]


def test_a_set_has_scalars_if_any_was_measured(values: np.ndarray) -> None:
    assert has_scalars(table(values))
    assert not has_scalars(table(np.full((5, 2), np.nan)))
    one = np.full((5, 2), np.nan)
    one[3, 1] = 7.0
    assert has_scalars(table(one))


def test_what_is_compared() -> None:
    assert set(SCALARS) - set(COMPARED) == {"Feret Angle Max", "Feret Angle Min"}
    assert set(SCALE_FREE) < set(COMPARED)
    assert {"Circularity", "Aspect Ratio", "Intensity", "Transparency"} <= set(SCALE_FREE)
    assert not {"Area (ABD)", "Length", "Sum Intensity", "Edge Gradient", "Volume (ESD)"} & set(SCALE_FREE)


def test_each_scalar_becomes_standard_normal(values: np.ndarray) -> None:
    values[:, 1] = values[:, 1] ** 2  # skewed
    normal = normalized_scalars(table(values), EVERYBODY, TWO)
    assert (normal.shape, normal.dtype) == ((N, 2), np.float32)
    for column in normal.T:
        assert column.mean() == pytest.approx(0, abs=0.02)
        assert column.std() == pytest.approx(1, abs=0.03)
        assert kstest(column, "norm").pvalue > 0.9
    for before, after in zip(values.T, normal.T, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all(), "the order is kept"


def test_only_the_order_of_the_values_counts(values: np.ndarray) -> None:
    fit = np.arange(N) < 300
    normal = normalized_scalars(table(values), fit, TWO)
    stretched = normalized_scalars(table(np.exp(values)), fit, TWO)
    np.testing.assert_allclose(stretched[fit], normal[fit], atol=1e-5)
    np.testing.assert_allclose(stretched[~fit], normal[~fit], atol=0.2)  # interpolated between the values of the fit
    assert np.abs(stretched[~fit] - normal[~fit]).mean() < 0.01
    scaled = normalized_scalars(table(values * 0.2752 + 5), fit, TWO)
    np.testing.assert_allclose(scaled, normal, atol=1e-5)


def test_extremes_are_clipped_at_three(values: np.ndarray) -> None:
    values[5, 0], values[6, 0] = 1e9, -1e9
    normal = normalized_scalars(table(values), EVERYBODY, TWO)
    assert (normal[5, 0], normal[6, 0]) == (3.0, -3.0)
    assert np.abs(normal).max() == 3.0
    outside = normalized_scalars(table(values), (np.arange(N) != 5) & (np.arange(N) != 6), TWO)
    assert (outside[5, 0], outside[6, 0]) == (3.0, -3.0)


def test_missing_values_are_in_the_middle(values: np.ndarray) -> None:
    whole = normalized_scalars(table(values), EVERYBODY, TWO)
    gaps = values.copy()
    gaps[[3, 17], 0] = np.nan
    gaps[9, 0] = np.inf
    normal = normalized_scalars(table(gaps), EVERYBODY, TWO)
    np.testing.assert_allclose(normal[[3, 17, 9], 0], 0.0, atol=0.01)
    np.testing.assert_array_equal(normal[:, 1], whole[:, 1])
    rest = np.setdiff1d(np.arange(N), [3, 17, 9])
    np.testing.assert_allclose(normal[rest, 0], whole[rest, 0], atol=0.15)


def test_what_is_missing_pushes_nobody_outwards_and_can_be_told(values: np.ndarray) -> None:
    known = np.arange(N) % 3 == 0
    gaps = values.copy()
    gaps[~known, 0] = np.nan
    normal = normalized_scalars(table(gaps), EVERYBODY, TWO, missing=np.nan)
    assert np.isnan(normal[~known, 0]).all()
    alone = normalized_scalars(table(values[known]), np.ones(known.sum(), bool), TWO)
    np.testing.assert_allclose(normal[known, 0], alone[:, 0], atol=0.05)
    assert np.isfinite(normal[:, 1]).all()


def test_missing_everywhere_or_the_same_for_all_is_zero(values: np.ndarray) -> None:
    values[:, 0] = np.nan
    np.testing.assert_array_equal(normalized_scalars(table(values), EVERYBODY, TWO)[:, 0], 0.0)
    values[:, 0] = 7.0
    np.testing.assert_array_equal(normalized_scalars(table(values), EVERYBODY, TWO)[:, 0], 0.0)
    fit = np.arange(N) < 100
    values[~fit, 0] = 9.0
    np.testing.assert_array_equal(normalized_scalars(table(values), fit, TWO)[:, 0], 0.0)


def test_rows_outside_the_fit_change_nothing(values: np.ndarray) -> None:
    fit = np.random.default_rng(1).random(N) < 0.6
    normal = normalized_scalars(table(values), fit, TWO)
    other = values.copy()
    other[~fit] = np.random.default_rng(2).normal(size=((~fit).sum(), 2)) * 100
    np.testing.assert_array_equal(normalized_scalars(table(other), fit, TWO)[fit], normal[fit])
    np.testing.assert_array_equal(normalized_scalars(table(values[fit]), np.ones(fit.sum(), bool), TWO), normal[fit])
    series = pd.Series(fit, dtype="boolean")
    np.testing.assert_array_equal(normalized_scalars(table(values), series, TWO), normal)


def test_columns_come_in_the_order_asked_for(values: np.ndarray) -> None:
    rows = table(values)
    normal = normalized_scalars(rows, EVERYBODY, TWO)
    np.testing.assert_array_equal(normalized_scalars(rows, EVERYBODY, TWO[::-1]), normal[:, ::-1])
    np.testing.assert_array_equal(normalized_scalars(rows, EVERYBODY, TWO[1:]), normal[:, 1:])
    every = normalized_scalars(rows, EVERYBODY)
    assert every.shape == (N, len(COMPARED))
    np.testing.assert_array_equal(every[:, [COMPARED.index(name) for name in TWO]], normal)
