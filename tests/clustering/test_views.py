"""The views with no network: whose components, whose neighbors, whose excess."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from clustering import views
from clustering.excess import excess
from clustering.kept import Kept
from clustering.outliers import OutlierSettings, knn_distance
from clustering.views import comparable_scalars, pixel_scores, pixel_vectors, scalar_scores
from particles.measures import COMPARED, normalized_scalars
from particles.pixels import PixelStore
from particles.scalars import SCALARS
from particles.sets import ParticleSet

N_REFERENCE, N_KNOWN, N_CORE, N_NEW = 120, 40, 200, 30
HOW = OutlierSettings(k=5, trees=30)


def planted(tmp_path: Path) -> ParticleSet:
    """Dust and ash in the labeled; the core, its rows between them, has a crowd besides: alike, and between the two."""
    rng = np.random.default_rng(0)
    n = N_REFERENCE + N_KNOWN + N_CORE
    truth = np.where(rng.random(n) < 0.5, "dust", "ash").astype(object)
    truth[-N_NEW:] = "new"
    centers = pd.Series({"dust": -2.0, "ash": 2.0, "new": 0.0})
    spread = np.where(truth == "new", 0.2, 1.0)[:, None]
    values = pd.Series(truth).map(centers).to_numpy()[:, None] + spread * rng.normal(size=(n, len(SCALARS)))
    rows = pd.DataFrame(values, columns=list(SCALARS), dtype="Float64")
    roles = np.repeat(["labeled", "labeled", "core"], [N_REFERENCE, N_KNOWN, N_CORE])
    rows["particle_id"] = pd.array([f"p{i}" for i in range(n)], dtype="string")
    rows["truth"], rows["role"] = pd.array(truth, dtype="string"), pd.array(roles, dtype="string")
    splits = np.repeat(["train", "test", "train"], [N_REFERENCE, N_KNOWN, N_CORE])
    rows["split"] = pd.array(splits, dtype="string")
    rows["label"] = rows["truth"].where(rows["role"] == "labeled")
    order = rng.permutation(n)
    rows = rows.iloc[order].reset_index(drop=True)
    images = rng.integers(0, 255, size=(n, 6, 6)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", images)
    rows["position"] = rng.permutation(n)  # a row's number is not its place in the store
    return ParticleSet("planted", rows, PixelStore([tmp_path / "pixels.npy"]), "print", tmp_path, False)


def who(particles: ParticleSet, predicted: bool = True) -> Kept:
    rows = particles.table
    ids = rows["particle_id"]
    said = pd.Series(rows["truth"].where(rows["truth"] != "new", "dust").to_numpy(), index=ids) if predicted else None
    core, test = rows["role"] == "core", rows["split"] == "test"
    return Kept(ids[core], ids[test], ids[~core & ~test], said, rows.set_index("particle_id")["label"])


def test_the_components_are_those_of_what_was_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    particles = planted(tmp_path)
    positions = particles.table["position"].to_numpy()
    learned = (particles.table["split"] == "train").to_numpy(dtype=bool)
    flat = particles.pixels[positions].reshape(len(positions), -1).astype(np.float32)
    expected = PCA(36, svd_solver="full").fit(flat[learned]).transform(flat)
    z = pixel_vectors(particles.pixels, positions, learned, 0)
    assert z.shape == (len(positions), 36), "no more than there are pixels"
    np.testing.assert_allclose(np.abs(z), np.abs(expected), atol=0.05 * np.abs(expected).max())
    monkeypatch.setattr(views, "SLICE", 33)
    np.testing.assert_allclose(pixel_vectors(particles.pixels, positions, learned, 0), z, atol=1e-3)


def test_plain_pixels_are_compared_with_core_and_reference(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table
    mine, theirs = pixel_scores(particles, kept, HOW, 0)
    assert mine["particle_id"].tolist() == kept.core.tolist()
    assert theirs["particle_id"].tolist() == kept.known.tolist()
    core, reference = (rows["particle_id"].isin(ids).to_numpy() for ids in (kept.core, kept.reference))
    z = pixel_vectors(particles.pixels, rows["position"].to_numpy(), core | reference, 0)
    bulk = np.concatenate([z[core], z[reference]])
    np.testing.assert_allclose(mine["knn"], knn_distance(z[core], bulk, HOW.k), rtol=1e-4)


def test_the_excess_is_of_the_scalars_weighted_to_the_cores_mixture(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table
    mine, theirs, told_apart = scalar_scores(rows, COMPARED, kept, HOW, 0)
    is_new = rows.set_index("particle_id").loc[mine["particle_id"], "truth"] == "new"
    assert roc_auc_score(is_new, mine["excess"]) > 0.9
    assert roc_auc_score(is_new, mine["knn"]) < 0.5, "the test could fail"
    assert 0.5 < told_apart < 0.65
    core, known, reference = (
        rows["particle_id"].isin(ids).to_numpy() for ids in (kept.core, kept.known, kept.reference)
    )
    z = normalized_scalars(rows, core | reference)
    weights = [kept.weights(rows.loc[who, "particle_id"]) for who in (known, reference)]
    assert all(weight.std() > 0 for weight in weights)
    expected = excess(
        z[core], z[known], z[reference], (weights[0], weights[1]), np.ones(core.sum(), bool), HOW.trees, 0
    )
    np.testing.assert_array_equal(mine["excess"], expected.core)
    np.testing.assert_array_equal(theirs["excess"], expected.known)
    assert told_apart == expected.told_apart
    alike, _, _ = scalar_scores(rows, COMPARED, who(particles, predicted=False), HOW, 0)
    assert not np.array_equal(alike["excess"], mine["excess"]), "nobody says which classes: all weigh alike"


def test_without_labeled_particles_there_is_nothing_to_have_more_than(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept = who(particles)
    none = kept.core[:0]
    mine, theirs, told_apart = scalar_scores(particles.table, COMPARED, Kept(kept.core, none, none, None), HOW, 0)
    assert "excess" not in mine
    assert len(theirs) == 0
    assert told_apart is None


def test_an_excess_of_the_whole_core_is_left_out(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    core = rows["role"] == "core"
    for name in SCALARS:
        rows.loc[core, name] += 10.0
    mine, theirs, told_apart = scalar_scores(rows, COMPARED, kept, HOW, 0)
    assert "excess" not in mine
    assert "excess" not in theirs
    assert told_apart > 0.95


def test_a_scalar_that_one_side_has_gaps_in_does_not_count(tmp_path: Path) -> None:
    """Half of the core lacks one, the labeled another: neither says what a particle is."""
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    of_core, of_labeled, of_both = COMPARED[0], COMPARED[7], COMPARED[9]
    core = rows["role"] == "core"
    rows.loc[core[core].index[::2], of_core] = pd.NA
    rows.loc[~core, of_labeled] = np.inf
    rows.loc[rows.index[::3], of_both] = pd.NA
    few = core[core].index[1:4]  # 1.5 % of 200
    rows.loc[few, COMPARED[11]] = pd.NA
    names = comparable_scalars(rows, kept)
    assert names == [name for name in COMPARED if name not in (of_core, of_labeled)]
    _, _, told_apart = scalar_scores(rows, names, kept, HOW, 0)
    assert 0.5 < told_apart < 0.65
    _, _, blind = scalar_scores(rows, COMPARED, kept, HOW, 0)
    assert blind > 0.7, "the test could fail"


def test_without_labeled_particles_every_scalar_counts(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    core = who(particles).core
    particles.table.loc[particles.table["role"] == "core", COMPARED[0]] = pd.NA
    assert comparable_scalars(particles.table, Kept(core, core[:0], core[:0], None)) == list(COMPARED)


def test_a_gap_counts_from_a_line_on_and_in_the_known_too(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table
    core, known = (rows.index[rows["particle_id"].isin(ids)] for ids in (kept.core, kept.known))

    def counts(gaps: pd.Index) -> bool:
        changed = rows.copy()
        changed.loc[gaps, COMPARED[3]] = pd.NA
        return COMPARED[3] in comparable_scalars(changed, kept)

    # 0.02 and three standard errors, of 200 in the core and 160 labeled: between 7 and 10 % of the core
    assert counts(core[:14])
    assert not counts(core[:20])
    assert not counts(known), "40 of 160"


def test_a_scalar_that_one_class_lacks_in_core_and_labels_alike_is_no_gap(tmp_path: Path) -> None:
    """Ash is half of the labeled and, but for a few, not in the core."""
    particles = planted(tmp_path)
    kept = who(particles)
    ash = particles.table[(particles.table["role"] == "core") & (particles.table["truth"] == "ash")]
    rows = particles.table.drop(index=ash.index[12:]).reset_index(drop=True)
    rows.loc[rows["truth"] == "ash", COMPARED[2]] = pd.NA
    rows.loc[(rows["truth"] == "dust") & (rows["role"] == "labeled"), COMPARED[4]] = pd.NA
    less = replace(kept, core=kept.core[kept.core.isin(rows["particle_id"])])
    assert comparable_scalars(rows, less) == [name for name in COMPARED if name != COMPARED[4]]
    assert COMPARED[2] not in comparable_scalars(rows, replace(less, predicted=None)), "the test could fail"


def test_where_the_core_has_none_of_the_labeled_classes_all_of_them_count_alike(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    assert kept.predicted is not None
    said = kept.predicted.where(~kept.predicted.index.isin(kept.core), "marked")
    rows.loc[rows["role"] == "core", COMPARED[0]] = pd.NA
    assert comparable_scalars(rows, replace(kept, predicted=said)) == list(COMPARED[1:])


def test_where_nearly_no_particle_has_scalars_they_are_no_view_with_labels_or_without(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    core = rows.index[rows["role"] == "core"]
    rows.loc[core[1:], list(SCALARS)] = pd.NA
    assert comparable_scalars(rows, kept) == []
    assert comparable_scalars(rows, Kept(kept.core, kept.core[:0], kept.core[:0], None)) == []


def test_of_a_particle_without_scalars_they_say_nothing(tmp_path: Path) -> None:
    """Filled up with medians it would be the most ordinary of all."""
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    blank = rows["particle_id"].isin([*kept.core.iloc[[3, 50]], kept.known.iloc[7]])
    rows.loc[blank, list(SCALARS)] = pd.NA
    assert comparable_scalars(rows, kept) == list(COMPARED)
    mine, theirs, _ = scalar_scores(rows, COMPARED, kept, HOW, 0)
    assert mine["particle_id"].tolist() == kept.core.tolist()
    assert theirs["particle_id"].tolist() == kept.known.tolist()
    for scores, missing in ((mine, [3, 50]), (theirs, [7])):
        assert scores.drop(columns="particle_id").isna().all(axis=1).to_numpy().nonzero()[0].tolist() == missing
    gone = rows[~blank].reset_index(drop=True)
    ids = (kept.core, kept.known, kept.reference)
    left = Kept(*(some[some.isin(gone["particle_id"])] for some in ids), kept.predicted, kept.label)
    alone, _, _ = scalar_scores(gone, COMPARED, left, HOW, 0)
    pd.testing.assert_frame_equal(mine.dropna().reset_index(drop=True), alone, check_dtype=False)


def test_where_most_of_a_side_has_no_scalars_there_is_nothing_to_compare(tmp_path: Path) -> None:
    particles = planted(tmp_path)
    kept, rows = who(particles), particles.table.copy()
    rows.loc[rows["role"] == "labeled", list(SCALARS)] = pd.NA
    assert comparable_scalars(rows, kept) == []
