"""Counts down the core: exact intervals by reference, sums that do not depend on chunks, repeats that disagree."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from particles.profile import (
    COVERAGE,
    SAMPLE,
    UNCLASSIFIED,
    Counts,
    Tally,
    class_table,
    mean_interval,
    sample_table,
    share_interval,
)
from particles.repeats import compare_repeats, holm, offender_lines
from provenance.errors import UserError

CLASSES = ["camp", "corylus", "dust"]
SHARES = np.array([0.05, 0.1, 0.85])
DEPTHS = ((0.0, 20.0), (20.0, 40.0), (40.0, 55.0))


def core(n: np.ndarray, volume_ml: np.ndarray | float = np.nan, bags: int = 3) -> Counts:
    """`bags` bags, three depths, three repeats; n: (bags * 9, K)."""
    rows = [
        {"core": "GRIP", "bag": bag, "top_cm": top, "bottom_cm": bottom, "repeat": repeat}
        for bag in range(3046, 3046 + bags)
        for top, bottom in DEPTHS
        for repeat in (1, 2, 3)
    ]
    samples = pd.DataFrame(rows)
    samples["sample"] = [f"GRIP_{r['bag']}_{r['top_cm']:g}_{r['bottom_cm']:g}_{r['repeat']}" for r in rows]
    samples = samples.astype(SAMPLE).assign(volume_ml=volume_ml)
    return unjudged(samples, CLASSES[-n.shape[1] :], n.astype(np.int64))


def unjudged(samples: pd.DataFrame, classes: list[str], n: np.ndarray) -> Counts:
    return Counts(samples, classes, n, np.zeros_like(n), np.zeros_like(n))


def particles(counts: Counts) -> pd.DataFrame:
    """One row for each counted particle."""
    rows, classes = np.indices(counts.n.shape).reshape(2, -1)
    times = counts.n.ravel()
    frame = counts.samples.loc[np.repeat(rows, times)].reset_index(drop=True)
    return frame.assign(**{"class": np.array(counts.classes)[np.repeat(classes, times)]})


def tallied(*frames: pd.DataFrame) -> Counts:
    tally = Tally()
    for frame in frames:
        tally.add(frame)
    return tally.counts()


# --- counting errors


@given(total=st.integers(1, 2000), share=st.floats(0, 1), coverage=st.sampled_from(list(COVERAGE.values())))
def test_shares_are_clopper_pearson(total: int, share: float, coverage: float) -> None:
    n = round(share * total)
    reference = stats.binomtest(n, total).proportion_ci(coverage, "exact")
    low, high = share_interval(np.array(n), np.array(total), coverage)
    assert (float(low), float(high)) == pytest.approx((reference.low, reference.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "low", "high"), [(0, 0, 3.69), (1, 0.03, 5.57), (10, 4.80, 18.39), (50, 37.11, 65.92)])
def test_means_are_those_of_garwoods_table(n: int, low: float, high: float) -> None:
    assert [float(x) for x in mean_interval(np.array(n), 0.95)] == pytest.approx([low, high], abs=0.006)


@given(n=st.integers(1, 5000))
def test_the_tails_beyond_a_mean_interval_are_equal(n: int) -> None:
    low, high = mean_interval(np.array(n), 0.6827)
    tails = [stats.poisson.sf(n - 1, low), stats.poisson.cdf(n, high)]
    assert tails == pytest.approx([(1 - 0.6827) / 2] * 2, rel=1e-6)


def test_nothing_counted_has_no_share() -> None:
    assert np.isnan(share_interval(np.array([0]), np.array([0]), 0.95)).all()


def test_tables_hold_shares_concentrations_and_classes_that_were_not_seen() -> None:
    counts = core(np.tile([0, 20, 80], (9, 1)), volume_ml=0.5, bags=1)
    table = class_table(counts)
    assert len(table) == 27
    assert table.loc[:2, "class"].tolist() == CLASSES
    absent, pollen = table.loc[0], table.loc[1]
    assert (absent["n"], absent["share"], absent["per_ml_low_95"]) == (0, 0, 0)
    assert absent["per_ml_high_95"] == pytest.approx(3.6889 / 0.5, rel=1e-4)
    assert absent["share_high_95"] == pytest.approx(1 - 0.025 ** (1 / 100))  # closed form of a zero count
    assert (pollen["share"], pollen["per_ml"], pollen["total"]) == (0.2, 40.0, 100)
    assert pollen["share_low_95"] < pollen["share_low_68"] < 0.2 < pollen["share_high_68"] < pollen["share_high_95"]
    assert sample_table(counts)["per_ml"].tolist() == [200.0] * 9


def test_without_a_volume_there_is_no_concentration() -> None:
    assert class_table(core(np.full((9, 3), 5), bags=1))["per_ml"].isna().all()


# --- counting


def test_counting_particles_gives_back_the_counts() -> None:
    made = core(np.random.default_rng(0).integers(1, 9, (27, 3)), volume_ml=0.25)
    shuffled = particles(made).sample(frac=1, random_state=1)
    again = tallied(shuffled)
    assert (again.n == made.n).all()
    assert again.classes == CLASSES
    assert not again.judged.any()
    assert "outliers" not in sample_table(again)
    assert "outliers" not in class_table(again)
    pd.testing.assert_frame_equal(again.samples, made.samples)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 400), max_size=6), gone=st.sets(st.sampled_from(["bag", "repeat", "sample", "top_cm"]))
)
def test_counts_do_not_depend_on_the_frames(cuts: list[int], gone: set[str]) -> None:
    rng = np.random.default_rng(2)
    frame = particles(core(rng.integers(0, 9, (27, 3)) + 1)).sample(400, random_state=3)
    frame = frame.assign(outlier=rng.random(400) < 0.1, volume_ml=0.1)
    frame.loc[rng.random(400) < 0.3, sorted(gone)] = pd.NA
    edges = [0, *sorted(cuts), 400]
    parts = tallied(*(frame.iloc[a:b] for a, b in pairwise(edges)))
    whole = tallied(frame)
    assert (parts.n == whole.n).all()
    assert whole.outliers.sum() > 0
    assert (whole.judged == whole.n).all()
    assert (parts.outliers == whole.outliers).all()
    pd.testing.assert_frame_equal(parts.samples, whole.samples)


def test_memory_is_that_of_samples_and_classes() -> None:
    frame, tally = particles(core(np.full((27, 3), 4))), Tally()
    for _ in range(20):
        tally.add(frame)
    assert tally._sums is not None
    assert len(tally._sums) == 27 * 3
    assert tally.counts().n.tolist() == [[80] * 3] * 27


def test_outliers_are_counted_where_somebody_knows() -> None:
    frame = particles(core(np.full((9, 3), 10), bags=1))
    frame["outlier"] = pd.array([True] + [False] * 19 + [pd.NA] * 250, dtype="boolean")
    counts = tallied(frame)
    assert (counts.outliers.sum(), counts.judged.sum()) == (1, 20)
    table = sample_table(counts)
    first = table.iloc[0]
    assert (first["total"], first["judged"], first["outliers"]) == (30, 20, 1)
    low, high = share_interval(np.array(1), np.array(20), COVERAGE["95"])
    of_judged = [first[f"outliers_per_1000{end}"] for end in ("", "_low_95", "_high_95")]
    assert of_judged == pytest.approx([50, 1000 * low, 1000 * high]), "of those that somebody judged"
    assert table["outliers_per_1000"].iloc[1:].isna().all(), "where none was judged there is no share"
    merged = counts.merged(dict.fromkeys(counts.classes, "all"))
    assert (merged.judged.sum(), merged.outliers.sum()) == (20, 1)


def test_a_sample_without_a_depth_is_counted_by_its_name() -> None:
    counts = tallied(pd.DataFrame({"sample": ["b", "a", "b", None], "class": ["x", "x", None, "x"]}))
    assert counts.samples["sample"].tolist() == ["a", "b"]
    assert counts.classes == [UNCLASSIFIED, "x"]
    assert counts.n.tolist() == [[0, 1], [1, 1]]


def test_rows_of_no_sample_are_left_out_and_counted() -> None:
    tally = Tally()
    tally.add(pd.DataFrame({"sample": [None, None, "a"], "class": ["x"] * 3}))
    assert tally.left_out == 2


@pytest.mark.parametrize("frames", [[], [pd.DataFrame({"class": ["dust"]})]])
def test_no_samples_at_all_is_an_error_that_says_which_names_are_read(frames: list[pd.DataFrame]) -> None:
    with pytest.raises(UserError, match=r"GRIP_<bag>_<top>_<bottom>_<repeat>.*QCY_.*FlowCam"):
        tallied(*frames)


def test_a_sample_with_two_volumes_is_refused_by_name() -> None:
    frames = [pd.DataFrame({"sample": ["run7"], "volume_ml": [v], "class": ["x"]}) for v in (0.14, 0.15)]
    with pytest.raises(UserError, match=r"run7.*0\.14 and 0\.15"):
        tallied(*frames)
    assert tallied(frames[0], frames[0].assign(volume_ml=None)).volume_ml.tolist() == [0.14]


def test_classes_are_put_together() -> None:
    merged = core(np.array([[1, 2, 30]] * 9), bags=1).merged({"camp": "rare", "corylus": "rare", "moss": "rare"})
    assert merged.classes == ["rare", "dust"]
    assert merged.n.tolist() == [[3, 30]] * 9


# --- repeats


def drawn(rng: np.random.Generator, mean: float, bags: int = 1) -> Counts:
    """Repeats that differ by counting alone; volumes differ too."""
    volume = rng.uniform(0.1, 0.2, bags * 9)
    total = rng.poisson(mean * volume / 0.15) + 1
    return core(np.array([rng.multinomial(n, SHARES) for n in total]), volume, bags)


def test_tests_are_those_of_scipy_where_counts_are_many() -> None:
    counts = drawn(np.random.default_rng(4), 4000)
    repeats = compare_repeats(counts)
    assert repeats["method"].unique().tolist() == ["chi-square"]
    classes, concentration = repeats.iloc[0], repeats.iloc[1]
    reference = stats.chi2_contingency(counts.n[:3], correction=False)
    assert (classes["statistic"], classes["df"], classes["p"]) == pytest.approx(
        (reference.statistic, 4, reference.pvalue)
    )
    expected = counts.total[:3].sum() * counts.volume_ml[:3] / counts.volume_ml[:3].sum()
    reference = stats.chisquare(counts.total[:3], expected)
    assert (concentration["statistic"], concentration["p"]) == pytest.approx(tuple(reference))
    assert classes["effect"] == pytest.approx(stats.contingency.association(counts.n[:3], "cramer"))


def test_few_counts_are_tested_exactly() -> None:
    """Two repeats, two classes: all tables with these sums can be listed."""
    counts = core(np.array([[3, 9], [8, 2]] + [[1, 1]] * 7), np.array([1.0, 1.0] + [np.nan] * 7), bags=1)
    pair = unjudged(counts.samples.iloc[:2], counts.classes, counts.n[:2])
    classes, concentration = compare_repeats(pair).to_dict("records")
    cells = np.arange(1, 12)  # of the first cell
    far = np.abs(cells - 12 * 11 / 22) >= abs(3 - 12 * 11 / 22)
    assert classes["p"] == pytest.approx(stats.hypergeom.pmf(cells, 22, 11, 12)[far].sum(), abs=0.006)
    assert concentration["p"] == pytest.approx(stats.binomtest(12, 22, 0.5).pvalue, abs=0.015)
    assert {classes["method"], concentration["method"]} == {"Monte Carlo"}
    assert abs(classes["residual"]) == pytest.approx(np.sqrt(classes["statistic"]), abs=1e-5)


@pytest.mark.parametrize(("mean", "cores", "bags"), [(3000.0, 150, 2), (25.0, 40, 1)])
def test_false_alarms_are_as_rare_as_promised(mean: float, cores: int, bags: int) -> None:
    """Of cores without a deviation, at most a share `level` has any offender."""
    rng = np.random.default_rng(5)
    tables = [compare_repeats(drawn(rng, mean, bags), level=0.05, seed=k) for k in range(cores)]
    alarms = sum(bool(table["offender"].any()) for table in tables)
    assert alarms <= stats.binom.ppf(0.99, cores, 0.05)
    small = (pd.concat(tables)["p"] < 0.05).to_numpy()
    assert stats.binomtest(int(small.sum()), len(small), 0.05, "greater").pvalue > 0.01
    assert small.any(), "a test that never rejects would pass too"


@pytest.mark.parametrize(("mean", "method"), [(2000.0, "chi-square"), (200.0, "Monte Carlo")])
def test_a_repeat_with_too_much_of_a_class_is_named(mean: float, method: str) -> None:
    counts = drawn(np.random.default_rng(6), mean, bags=3)
    counts.n[13, 0] += int(0.25 * mean)  # bag 3047, 20-40 cm, repeat 2
    counts.n[13, 2] -= int(0.25 * mean)  # the same number of particles: no news for the concentration
    bad = compare_repeats(counts)
    bad = bad[bad["offender"]]
    assert bad[["test", "bag", "top_cm", "repeat", "class", "method"]].to_numpy().tolist() == [
        ["classes", 3047, 20.0, 2, "camp", method]
    ]
    (line,) = offender_lines(bad)
    assert line.startswith("GRIP, bag 3047, 20–40 cm: its 3 repeats disagree in classes (p = ")
    assert f"repeat 2 has {counts.n[13, 0]:,} camp where" in line


def test_a_repeat_with_too_many_particles_is_named() -> None:
    counts = drawn(np.random.default_rng(7), 1000, bags=3)
    counts.n[26] *= 2  # the last sample
    bad = compare_repeats(counts)
    bad = bad[bad["offender"]].iloc[0]
    assert (bad["test"], bad["bag"], bad["top_cm"], bad["repeat"]) == ("concentration", 3048, 40.0, 3)
    assert pd.isna(bad["class"])
    assert bad["residual"] > 8


def test_of_two_classes_the_rare_one_is_named() -> None:
    counts = core(np.array([[10, 990], [60, 940], [10, 990]] + [[10, 990]] * 6), bags=1)
    assert compare_repeats(counts).loc[0, "class"] == "corylus"


def test_only_repeats_of_one_section_are_compared() -> None:
    counts = core(np.full((9, 3), 50), bags=1)
    twice = counts.samples.assign(repeat=pd.array([1, 1, 2, 1, 2, 3, 1, pd.NA, pd.NA], dtype="Int64"))
    tested = compare_repeats(unjudged(twice, CLASSES, counts.n))
    assert tested["top_cm"].tolist() == [20.0]  # of the others one has a number twice, one only a single number
    nowhere = counts.samples.assign(top_cm=pd.array([pd.NA] * 9, dtype="Float64"))
    assert compare_repeats(unjudged(nowhere, CLASSES, counts.n)).empty


def test_the_same_seed_gives_the_same_p() -> None:
    counts = drawn(np.random.default_rng(8), 30)
    first, second, other = (compare_repeats(counts, seed=seed)["p"] for seed in (0, 0, 1))
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()
    assert np.allclose(first, other, atol=0.03)


def test_holm_is_what_its_paper_says() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_p_and_bonferroni(p: list[float]) -> None:
    corrected = holm(np.array(p))
    assert (corrected >= np.array(p)).all()
    assert (corrected <= np.minimum(1, np.array(p) * len(p))).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
