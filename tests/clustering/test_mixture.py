"""What a core is made of, though its classifier errs."""

import numpy as np
import pandas as pd
import pytest

from clustering.kept import Kept
from clustering.mixture import class_shares


def called(rng: np.random.Generator, labels: np.ndarray, errors: pd.DataFrame) -> pd.Series:
    """Each particle by what a classifier of these errors (called, true) takes it for."""
    return pd.Series([rng.choice(errors.index, p=errors[label]) for label in labels], dtype="string")


ERRORS = pd.DataFrame(
    {"dust": [0.88, 0.10, 0.02], "cont": [0.15, 0.80, 0.05], "ash": [0.05, 0.05, 0.90]}, ["dust", "cont", "ash"]
)


def test_dust_that_is_called_rare_does_not_make_a_core_rich_in_it() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["dust", "cont", "ash"], 2000)
    core = np.repeat(["dust", "cont", "ash"], [9400, 100, 500])
    seen = called(rng, core, ERRORS)
    shares = class_shares(seen, called(rng, labels, ERRORS), pd.Series(labels))
    assert shares.sum() == pytest.approx(1)
    assert (seen == "cont").mean() > 0.09
    for name, share in {"dust": 0.94, "cont": 0.01, "ash": 0.05}.items():
        assert shares[name] == pytest.approx(share, abs=0.012), name


def test_shares_are_those_whose_called_classes_are_seen() -> None:
    """Where the errors can be inverted within [0, 1], the most likely shares are the inverse."""
    rng = np.random.default_rng(1)
    labels = np.repeat(["dust", "cont", "ash"], 500)
    known, core = called(rng, labels, ERRORS), called(rng, rng.choice(["dust", "cont", "ash"], 3000), ERRORS)
    errors = pd.crosstab(known, pd.Series(labels), normalize="columns")
    seen = core.value_counts(normalize=True)[errors.index]
    expected = pd.Series(np.linalg.solve(errors, seen), errors.columns)
    shares = class_shares(core, known, pd.Series(labels))
    np.testing.assert_allclose(shares[expected.index], expected, atol=1e-4)


def test_a_classifier_that_hardly_tells_classes_apart_is_inverted_to_the_end() -> None:
    """Called a are 0.55 of a and 0.45 of b: an eleventh step toward 0.1 is as small as the first."""
    known = pd.Series(["a"] * 55 + ["b"] * 45 + ["a"] * 45 + ["b"] * 55)
    labels = pd.Series(["a"] * 100 + ["b"] * 100)
    shares = class_shares(pd.Series(["a"] * 460 + ["b"] * 540), known, labels)
    assert shares["a"] == pytest.approx(0.1, abs=0.005)


def test_errors_of_a_handful_of_held_back_particles_count_as_they_are() -> None:
    """Called a are 3/4 of a and 1/4 of b: 0.25 + 0.5 x = 0.6."""
    known, labels = pd.Series([*"aaab", *"abbb"]), pd.Series([*"aaaa", *"bbbb"])
    shares = class_shares(pd.Series(["a"] * 60 + ["b"] * 40), known, labels)
    assert shares["a"] == pytest.approx(0.7, abs=5e-4)


def test_a_classifier_without_errors_is_believed() -> None:
    labels = pd.Series(["dust", "ash"] * 10)
    shares = class_shares(pd.Series(["dust"] * 9 + ["ash"]), labels, labels)
    assert shares.to_dict() == pytest.approx({"ash": 0.1, "dust": 0.9}, abs=1e-3)


def test_a_class_of_which_none_was_held_back_has_the_share_that_is_called_so() -> None:
    labels = pd.Series(["dust", "ash"] * 10)
    core = pd.Series(["dust"] * 70 + ["ash"] * 10 + ["marked"] * 20)
    shares = class_shares(core, labels, labels)
    assert shares["marked"] == pytest.approx(0.2, abs=1e-3)
    nobody = class_shares(core, labels[:0], labels[:0])
    assert nobody.to_dict() == pytest.approx({"ash": 0.1, "dust": 0.7, "marked": 0.2}, abs=1e-3)


def test_labeled_particles_weigh_as_the_core_has_them() -> None:
    labels = pd.Series(["dust", "ash", "ash", "ash", "dust", "ash"], index=[*"abcdef"])
    said = pd.concat([labels, pd.Series(["dust"] * 9 + ["ash"], index=[*"0123456789"])])
    core, known, reference = pd.Series([*"0123456789"]), pd.Series([*"ab"]), pd.Series([*"cdef"])
    kept = Kept(core, known, reference, said, labels)
    np.testing.assert_allclose(kept.weights(known), [1.8, 0.2], atol=2e-3)
    np.testing.assert_allclose(kept.weights(reference), [0.1 / 0.75, 0.1 / 0.75, 0.9 / 0.25, 0.1 / 0.75], atol=5e-3)
    assert kept.weights(known[:0]).shape == (0,)
    dropped = Kept(core, known[:1], reference, said, pd.concat([labels[:5], pd.Series({"f": "pollen"})]))
    assert dropped.weights(reference)[3] == 0, "a class that neither core nor held-back particles have"
    np.testing.assert_array_equal(Kept(core, known, reference, None, labels).weights(known), [1, 1])
