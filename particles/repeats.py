"""Do repeats of one water sample differ by more than counting allows?"""

from collections.abc import Callable, Iterable
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats.contingency import expected_freq

from particles.profile import SECTION, Counts, section_name

ENOUGH = 30
"""Expected counts from which chi-square serves; below, its far tail, where Holm looks, is no longer to be trusted."""
FEWEST_DRAWS, MOST_DRAWS = 9_999, 999_999
CLEAR = 20
"""Drawn tables as far off as the observed one after which more draws could not make p interesting."""


def compare_repeats(counts: Counts, level: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Test whether repeats of one section differ by more than counting: in their classes, and in their concentration.

    Classes: Pearson's chi-square of repeats x classes. Concentration: Fisher's index of dispersion, that is the
    chi-square of counts that share their sum as the volumes do (Cochran 1954, Biometrics 10:417). Where an expected
    count is under `ENOUGH`, p is the share of tables drawn with the same sums that are as far off (Patefield 1981 for
    classes), counting the observed one (Davison & Hinkley 1997, eq. 4.11). p_holm is corrected over all tests of the
    table (Holm 1979), so that `level` bounds the chance of even one false alarm among them.

    A repeat in which nothing at all was found has no row in any table, and is not seen here.

    A section is tested if its depth is known (otherwise nothing says that the water was the same) and its repeats are
    numbered, each number once. Counting is all that is tested: of millions of
    particles a difference of no consequence is significant, therefore `effect` says how large it is.

    Args:
        counts: what was counted.
        level: of false alarms.
        seed: of the drawn tables.

    Returns:
        A row a section and test: `SECTION`, test (`classes`, `concentration`), repeats, n, statistic, df, p, method,
        effect (Cramér's V; largest relative deviation), the entry that deviates most (repeat, sample, class, observed
        and expected count, residual in standard deviations), p_holm, offender.
    """
    cases = [(name, test, rows) for rows in _repeated(counts.samples) for name, test in _TESTS.items()]
    # fewer could not get below the level after Holm
    draws = min(max(FEWEST_DRAWS, ceil(10 * len(cases) / level)), MOST_DRAWS)
    found = []
    for number, (name, test, rows) in enumerate(cases):
        result = test(counts, rows, draws, np.random.default_rng([seed, number]))
        if result is not None:
            found.append({**counts.samples.loc[rows[0], list(SECTION)], "test": name, "repeats": len(rows), **result})
    table = pd.DataFrame(found, columns=[*SECTION, *_TESTED]).astype(SECTION | _TESTED)
    corrected = holm(table["p"].to_numpy())
    return table.assign(p_holm=corrected, offender=corrected <= level)


_TESTED = {
    "test": "string", "repeats": "Int64", "n": "Int64", "statistic": float, "df": "Int64", "p": float,
    "method": "string", "effect": float, "repeat": "Int64", "sample": "string", "class": "string",
    "observed": "Int64", "expected": float, "residual": float,
}  # fmt: skip


def _repeated(samples: pd.DataFrame) -> Iterable[np.ndarray]:
    """Row numbers of the repeats of each section that has at least two."""
    located = samples[samples["repeat"].notna() & samples["top_cm"].notna()]
    for _, rows in located.groupby(list(SECTION), dropna=False, sort=True):
        if len(rows) > 1 and rows["repeat"].is_unique:  # a number that stands twice: something else differs too
            yield rows.index.to_numpy()


def _test_classes(counts: Counts, rows: np.ndarray, draws: int, rng: np.random.Generator) -> dict[str, Any] | None:
    present = counts.n[rows].sum(axis=0) > 0
    # the rarest first: of two classes alone both deviate alike, and the rare one is the news
    order = np.argsort(counts.n[rows].sum(axis=0)[present], kind="stable")
    table = counts.n[rows][:, present][:, order]
    if table.shape[1] < 2:
        return None
    expected, n = expected_freq(table), table.sum()
    drawn = stats.random_table(table.sum(axis=1), table.sum(axis=0))
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    result = _chi_square(table, expected, df, draws, lambda size: drawn.rvs(size, random_state=rng))
    # Haberman (1973), Biometrics 29:205: residuals adjusted for both margins are standard normal under the null
    left = (1 - table.sum(axis=1, keepdims=True) / n) * (1 - table.sum(axis=0) / n)
    residual = np.round((table - expected) / np.sqrt(expected * left), 6)
    row, column = np.unravel_index(np.abs(residual).argmax(), table.shape)
    names = np.array(counts.classes, dtype=object)[present][order]
    effect = float(np.sqrt(result["statistic"] / (n * (min(table.shape) - 1))))
    worst = _worst(counts, int(rows[row]), table[row, column], expected[row, column], residual[row, column])
    return {**result, "n": int(n), "effect": effect, **worst, "class": names[column]}


def _test_concentration(
    counts: Counts, rows: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, Any] | None:
    rows = rows[counts.volume_ml[rows] > 0]
    if len(rows) < 2:
        return None
    table, share = counts.total[rows], counts.volume_ml[rows] / counts.volume_ml[rows].sum()
    n = int(table.sum())
    expected = n * share
    result = _chi_square(table, expected, len(rows) - 1, draws, lambda size: rng.multinomial(n, share, size=size))
    residual = (table - expected) / np.sqrt(expected * (1 - share))
    at = int(np.abs(residual).argmax())
    effect = float(np.abs(table / expected - 1).max())
    worst = _worst(counts, int(rows[at]), table[at], expected[at], residual[at])
    return {**result, "repeats": len(rows), "n": n, "effect": effect, **worst, "class": None}


_TESTS = {"classes": _test_classes, "concentration": _test_concentration}


def _chi_square(
    table: np.ndarray, expected: np.ndarray, df: int, draws: int, draw: Callable[[int], np.ndarray]
) -> dict[str, Any]:
    """Statistic and p of counts whose sums are given; drawn tables have one axis more, in front."""
    axes = tuple(range(-table.ndim, 0))
    statistic = float(((table - expected) ** 2 / expected).sum())
    if expected.min() >= ENOUGH:
        return {"statistic": statistic, "df": df, "p": float(stats.chi2.sf(statistic, df)), "method": "chi-square"}
    far, done = 0, 0
    # one look on the way keeps p valid: what ends here has a p that is far above any that the rest could give
    while done < draws and not (done == FEWEST_DRAWS and far > CLEAR):
        off = (draw(min(FEWEST_DRAWS, draws - done)) - expected) ** 2 / expected
        far += int((off.sum(axis=axes) >= statistic * (1 - 1e-9)).sum())
        done += len(off)
    return {"statistic": statistic, "df": df, "p": (1 + far) / (1 + done), "method": "Monte Carlo"}


def _worst(counts: Counts, row: int, observed: int, expected: float, residual: float) -> dict[str, Any]:
    named = counts.samples.loc[row, ["repeat", "sample"]].to_dict()
    return {**named, "observed": int(observed), "expected": float(expected), "residual": float(residual)}


def holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected for their number: (M,) -> (M,); Holm (1979), Scand. J. Stat. 6:65."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def offender_lines(repeats: pd.DataFrame) -> list[str]:
    """One line for each test of `compare_repeats` that rejects, the surest first."""
    rows = repeats[repeats["offender"]].sort_values(["p_holm", "p"], kind="stable").to_dict("records")
    return [
        f"{section_name(row)}: its {row['repeats']} repeats disagree in {row['test']} (p = {row['p_holm']:.2g}): "
        f"repeat {row['repeat']} has {row['observed']:,} {row['class'] if pd.notna(row['class']) else 'particles'} "
        f"where {row['expected']:,.1f} are expected ({row['residual']:+.1f} sd)"
        for row in rows
    ]
