import base64
import io
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from planted_search import EVIL, SIZE, Planted, plant
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from clustering.calibration import FALSE_DISCOVERY_RATE
from clustering.run import SUSPICIOUS
from clustering.verdict import UNUSUAL
from figures import report_checks_models, report_checks_ranking
from figures.report import fresh, rendered, write_report
from figures.report_checks_models import classifier
from figures.report_checks_ranking import model_seeds
from figures.report_doubts import CHECKS, doubts_of
from figures.report_facts import differences, quality_table
from figures.report_intervals import Ranking, estimates, replicates
from figures.report_list import further_discoveries, least_p, strangest
from figures.report_pictures import embedded
from figures.report_results import Results, participation, results_of
from figures.report_text import duration, percent, place, size, table
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.progress import listed
from provenance.run import Run, RunSettings, started

ALONE = {"meta", "img", "br", "link"}  # elements without an end


@dataclass(frozen=True)
class Dropping:
    """The one setting of a search that decides who is in its list."""

    drop_class: tuple[str, ...] = ()


@dataclass(frozen=True)
class Again:
    """Settings of a search over models that are there."""

    clustering: Dropping = field(default_factory=Dropping)
    common: RunSettings = field(default_factory=RunSettings)


class Page(HTMLParser):
    """Tags, attributes and text; refuses elements that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def results(planted: Planted) -> Results:
    return results_of(planted.particles, planted.consensus)


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return Page(rendered(results))


# --- the page


def test_the_page_is_alone_accessible_and_nests(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "link", "form", "input"}
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.of("img"))
    assert all(image["alt"] for image in page.of("img"))
    assert all(str(link["href"]).startswith("#") for link in page.of("a"))
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {str(link["href"])[1:] for link in page.of("a")} <= targets
    assert len(page.of("table")) == len(page.of("caption")) > 6
    assert all(head["scope"] in ("col", "row") for head in page.of("th"))
    assert page.of("html") == [{"lang": "en"}]
    policy = next(str(m["content"]) for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    handlers = [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not handlers


def test_names_from_outside_stay_text(results: Results, page: Page) -> None:
    raw = rendered(results)
    assert "<script" not in raw
    assert "\u202e" not in raw
    shown = EVIL.replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert page.text.count(shown) >= 5  # id, class, sample, source, reason
    assert f"Crop of particle {shown}, rank 1, 8 × 5 µm" in [image["alt"] for image in page.of("img")]


def test_crops_are_those_of_the_ranking(planted: Planted, results: Results) -> None:
    rows = planted.particles.table.set_index("particle_id")
    found = strangest(results)
    assert [one.rank for one in found] == list(range(1, 21))
    ranked = pd.read_parquet(planted.consensus.path / "outliers.parquet").sort_values("rank")
    assert [one.identity for one in found] == ranked["particle_id"].tolist()[:20]
    for one in found:
        pixels = planted.particles.pixels[[int(rows.loc[one.identity, "position"])]][0]
        data = base64.b64decode(one.crop.removeprefix("data:image/png;base64,"))
        assert (np.asarray(Image.open(io.BytesIO(data))) == pixels).all()
        assert one.outlier == bool(rows.loc[one.identity, "is_outlier"])
    # 1 µm a packed px (0.5 µm a px, packed to half): 2 µm of 8 px fit into 42 %
    assert (found[0].bar, found[0].bar_share) == ("2 µm", 0.25)
    assert (found[0].p_value, found[0].as_strange) == ("0.042", "0 known as strange")
    assert found[0].predicted == "dust (75 %)"
    assert found[1].reasons[1] == "improbable (vae, top 1 %)"


def test_the_least_p_of_each_class_is_said(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    rewritten(planted.consensus, p_value=[0.00051] * 6 + [0.0095] * 18, known_as_strange=pd.array([0] * 24, "Int64"))
    results = results_of(planted.particles, planted.consensus)
    results.predicted.loc[results.ranked.loc[results.ranked["p_value"] < 0.001, "particle_id"], "predicted"] = EVIL
    assert least_p(results) == f"0.00051 for {EVIL}, 0.0095 for dust"
    assert "which is 0.00051 for &lt;" in rendered(results)
    rewritten(planted.consensus, known_as_strange=pd.array([None] * 12 + [3] * 12, "Int64"))
    assert least_p(results_of(planted.particles, planted.consensus)) == ""


def test_discoveries_after_the_twentieth_have_their_own_list(tmp_path: Path) -> None:
    planted = plant(tmp_path, n=30, discoveries=25)
    found = further_discoveries(results_of(planted.particles, planted.consensus))
    assert [one.rank for one in found] == [21, 22, 23, 24, 25]
    found = further_discoveries(results_of(planted.particles, planted.consensus), most=2)
    assert [one.rank for one in found] == [21, 22]


def test_it_is_one_file_written_alike_twice(planted: Planted, tmp_path: Path) -> None:
    first = write_report(planted.particles, planted.consensus, tmp_path / "a" / "report.html")
    again = write_report(planted.particles, planted.consensus, tmp_path / "b.html", planted.runs, planted.clustered)
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html"]


def test_where_the_core_is_a_set_of_its_own_its_sources_and_rejected_crops_are_told_too(
    planted: Planted, tmp_path: Path
) -> None:
    mine = planted.particles.folder
    info = read_json(mine / "set.json")
    write_json(tmp_path / "set.json", info | {"name": "lake core", "rejected": 70})
    pd.DataFrame({"particle_id": ["c"] * 70, "image": ["c.png"] * 70, "reason": "all black"}).to_csv(
        tmp_path / "rejected.csv", index=False
    )
    with_core = replace(planted.particles, core_folder=tmp_path)
    for particles, told in ((planted.particles, False), (with_core, True)):
        text = Page(rendered(results_of(particles, planted.consensus))).text
        assert ("all black" in text) == told
        assert ("lake core" in text) == told


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("n", [1, 24])
def test_little_data_still_makes_a_page(tmp_path: Path, labels: bool, truth: bool, n: int) -> None:
    latents = ("classifier", "vae") if labels else ("vae",)
    planted = plant(tmp_path, n=n, labels=labels, truth=truth, latents=latents, discoveries=0)
    results = results_of(planted.particles, planted.consensus)
    text = Page(rendered(results)).text
    assert ("AUROC" in text) == (truth and n > 1)
    assert ("no p-values" in text) == (not labels)
    raised = {doubt.name for doubt in doubts_of(results).found}
    assert ("Held-back labels" in raised) == (not labels)
    assert "Truth" in raised  # unknown, or of too few


def test_a_run_that_is_gone_is_named(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    (planted.clustered[0].path / "run.json").unlink()
    with pytest.raises(UserError, match=r"it stands on clusters-classifier/.*, which is gone"):
        write_report(planted.particles, planted.consensus, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_rows_of_the_tables(page: Page) -> None:
    assert "Rejected 2 (4.3 %)" in page.text
    assert "too small 2" in page.text
    # 20 labeled in turns of two classes, every fourth of them in test, all of these of the second class
    assert "dust 10 0 0 10" in page.text
    assert "core (searched) – – – 24" in page.text
    assert "24 of the core were ranked. The truth is known of 24: 3 are outliers." in page.text
    assert "Accuracy 80 %: 4 of 5 particles that were never trained on." in page.text


# --- intervals


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40).filter(
        lambda rows: len({s for s, _, w in rows if w}) == 2
    )
)
@settings(max_examples=200, deadline=None)
def test_weighted_measures_agree_with_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    strange, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    auroc, precision, recall = Ranking(strange, score.astype(float)).measures(weight)
    assert auroc == pytest.approx(roc_auc_score(strange, score, sample_weight=weight))
    assert precision == pytest.approx(average_precision_score(strange, score, sample_weight=weight))
    # the same particles written out, the others first among equals
    order = np.lexsort((strange, -score))
    spread = np.repeat(strange[order], weight[order])
    assert recall == pytest.approx(spread[: spread.sum()].mean())


def test_intervals_cover_the_true_auroc() -> None:
    """Two normals a distance apart: AUROC = Phi(d / sqrt 2); of 60 intervals 95 % hold it, at least 50 of 60."""
    distance, rng, held = 1.5, np.random.default_rng(0), 0
    expected = norm.cdf(distance / np.sqrt(2))
    for seed in range(60):
        strange = np.arange(200) < 40
        score = rng.normal(size=200) + distance * strange
        found = estimates(pd.Series(strange, dtype="boolean"), score, seed)
        assert found is not None
        held += found["auroc"].low <= expected <= found["auroc"].high
        assert found["auroc"].low < found["auroc"].value < found["auroc"].high
    assert 50 <= held <= 60


def test_intervals_are_seeded_and_need_truth() -> None:
    truth = pd.Series([True, False, pd.NA] * 10, dtype="boolean")
    score = np.arange(30.0)
    assert estimates(truth, score, 1) == estimates(truth, score, 1)
    assert estimates(truth, score, 1) != estimates(truth, score, 2)
    assert estimates(truth[:0], score[:0], 0) is None
    assert estimates(pd.Series([pd.NA, pd.NA], dtype="boolean"), score[:2], 0) is None
    assert estimates(pd.Series([True, True], dtype="boolean"), score[:2], 0) is None
    assert [replicates(n) for n in (10, 400_000, 3_000_000)] == [1000, 500, 200]


def test_the_table_holds_the_values_of_each_ranking(planted: Planted, results: Results) -> None:
    found = quality_table(results, 0)
    assert found is not None
    rows = {row[0]: row[1:] for row in found.rows}
    for run in planted.clustered:
        frame = pd.read_parquet(run.path / "outliers.parquet").merge(planted.particles.table, on="particle_id")
        expected = roc_auc_score(frame["is_outlier"].astype(bool), frame["score"])
        assert rows[run.kind.removeprefix("clusters-")][0].startswith(f"{expected:.3f} (")


# --- doubts


def raised(planted: Planted) -> dict[str, tuple[str, ...]]:
    found = doubts_of(results_of(planted.particles, planted.consensus)).found
    return {doubt.name: doubt.evidence for doubt in found}


def test_every_check_says_something() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names)) == 18
    assert all(check.way_out.endswith(".") for check in CHECKS)


def test_what_is_wrong_with_the_planted_search(planted: Planted) -> None:
    found = raised(planted)
    assert found["Labels"] == (f"Classes with fewer than 50 particles to learn from: {EVIL} (5), dust (10).",)
    assert found["Confusion of classes"] == (f"20 % of {EVIL} (1 of 5) are taken for dust.",)
    assert found["Truth"] == ("Only 3 true outliers: qualities of the ranking are uncertain.",)
    alone = "Models were not trained again (seed 0): how much of the list is chance is not known."
    assert found["Repetition with other seeds"] == (alone,)
    assert found["Rejected crops"] == ("planted: 4.3 % of the crops (2) could not be used.",)
    assert not {"Noise", "Troubles of training", "Scale", "Seeded maps", "Versions of libraries"} & set(found)


@pytest.mark.parametrize(
    ("truth", "named", "line"),
    [
        ("ab" * 50, "ab" * 50, None),
        ("ab" * 50, "aabb" * 25, "50 of 100 labeled particles kept from it rightly (50 %), which chance can do too"),
        (
            "a" * 90 + "b" * 10,
            "a" * 100,
            "90 of 100 labeled particles kept from it rightly (90 %), which chance can do",
        ),
        ("a" * 90 + "b" * 10, "a" * 85 + "b" * 15, None),  # no more are right than if all were called a
        ("ab" * 50, "ab" * 35 + "ba" * 15, "70 of 100 labeled particles kept from it rightly (70 %), less than half"),
    ],
)
def test_a_classifier_is_asked_for_more_than_chance(truth: str, named: str, line: str | None, results: Results) -> None:
    judged = replace(results)
    judged.__dict__["tested"] = pd.DataFrame({"truth": list(truth), "predicted": list(named)})
    found = classifier(judged)
    assert (found is not None and len(found)) == (line is not None)
    assert line is None or (line in found[0] and found[0].endswith(" %."))


@pytest.mark.parametrize("truth", ["", "aaaaaaaa", "abab"])
def test_a_classifier_that_too_few_can_judge_is_not_judged(truth: str, results: Results) -> None:
    judged = replace(results)
    judged.__dict__["tested"] = pd.DataFrame({"truth": list(truth), "predicted": list(truth)})
    assert classifier(judged) is None


def test_after_one_epoch_nobody_can_tell_whether_training_had_ended(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    said = doubts_of(results_of(planted.particles, planted.consensus))
    assert "End of training" in said.passed
    path = planted.runs[1].path / "metrics.csv"
    pd.read_csv(path).head(1).to_csv(path, index=False)
    assert "End of training" in doubts_of(results_of(planted.particles, planted.consensus)).unchecked
    first = planted.runs[0].path / "metrics.csv"
    pd.read_csv(first).assign(val_loss=[2.0, 1.0]).to_csv(first, index=False)
    assert raised(planted)["End of training"] == ("classifier: the loss fell from 2 to 1 in the last epoch.",)


def test_troubles_noise_scale_and_versions_are_seen(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    planted.runs[1].record(troubles=[{"when": "end", "line": "posterior collapse: give a longer --kl-warmup"}])
    metrics = read_json(planted.clustered[1].path / "metrics.json")
    metrics["hdbscan"]["noise"] = 13
    write_json(planted.clustered[1].path / "metrics.json", metrics)
    planted.particles.table.loc[:10, "um_per_px"] = pd.NA
    planted.runs[0].record(versions=planted.runs[0].info["versions"] | {"numpy": "1.0"}, commit="abc1234-dirty")
    found = raised(planted)
    assert found["Troubles of training"] == ("vae: posterior collapse: give a longer --kl-warmup.",)
    assert found["Noise"] == ("vae, HDBSCAN: 54 % are in no cluster.",)
    assert found["Scale"] == ("25 % of the particles have no scale: their sizes are in px.",)
    assert found["Versions of libraries"][0].startswith("numpy: 1.0, ")
    assert "code that was changed and not committed" in found["Code"][0]
    planted.runs[1].record(troubles=[])
    looked = doubts_of(results_of(planted.particles, planted.consensus))
    assert "Troubles of training" in looked.passed


def rewritten(run: Run, **columns: object) -> None:
    path = run.path / "outliers.parquet"
    pd.read_parquet(path).assign(**columns).to_parquet(path)


def test_p_values_are_doubted_for_what_they_are(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    n_known = pd.array([0] * 4 + [7] * 20, dtype="Int64")
    rewritten(planted.consensus, p_value=[0.04] * 6 + [0.5] * 18, known_as_strange=n_known, discovery=False)
    found = raised(planted)
    assert found["Likeness of labeled set and core"][0].startswith("25 % of the core have p <= 0.05")
    coarse = found["Resolution of the p-values"][0]
    assert "the smallest p-value is 0.04; a single one among 24 particles would need 0.0042" in coarse
    assert coarse.endswith("4 are stranger than every known particle held back.")
    rewritten(planted.consensus, p_value=[0.04] * 5 + [0.5] * 5 + [np.nan] * 14)
    some = "50 % of the 10 of the core that have a p-value have p <= 0.05"
    assert raised(planted)["Likeness of labeled set and core"][0].startswith(some)
    rewritten(planted.consensus, p_value=[0.04] * 23 + [np.nan])
    said = "of what is taken for dust no labeled particle was kept from the models."
    assert raised(planted)["Held-back labels"] == (f"1 of the core have no p-value and cannot be discoveries: {said}",)
    strange = planted.particles.table.set_index("particle_id")["is_outlier"]
    ids = pd.read_parquet(planted.consensus.path / "outliers.parquet")["particle_id"]
    rewritten(planted.consensus, p_value=0.5, discovery=strange.loc[ids].to_numpy(dtype=bool))
    assert not {"False discoveries", "Resolution of the p-values", "Likeness of labeled set and core"} & set(
        raised(planted)
    )
    rewritten(planted.consensus, discovery=True)
    assert raised(planted)["False discoveries"][0].startswith("88 % of 24 discoveries are of known classes")


def test_a_core_that_is_unlike_the_labels_as_a_whole_is_doubted(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    path, name = planted.consensus.path / "metrics.json", "Likeness of labeled set and core"
    write_json(path, {"auroc": None, "told_apart": 0.91, "excess_weight": None})
    line = raised(planted)[name][-1]
    assert line.startswith("The scalars tell this core from the labeled set (AUC 0.91)")
    assert "or the classifier, right for 80 % of held-back labels, names the core's classes wrongly" in line
    alone = plant(tmp_path / "alone", latents=("vae",))
    write_json(alone.consensus.path / "metrics.json", {"auroc": None, "told_apart": 0.91, "excess_weight": None})
    assert "classifier" not in raised(alone)[name][-1]
    for fine in ({"told_apart": 0.6, "excess_weight": 0.0}, {"told_apart": None, "excess_weight": None}, {}):
        write_json(path, {"auroc": None} | fine)
        assert not [line for line in raised(planted).get(name, ()) if "AUC" in line]


def test_other_seeds_are_compared_by_their_first(tmp_path: Path) -> None:
    planted = plant(tmp_path, n=80)
    other = plant(tmp_path, n=80, seed=1)
    assert "Repetition with other seeds" not in raised(planted), "the same ranking"
    n = 80
    rewritten(other.consensus, rank=np.arange(n, 0, -1))
    top = set(pd.read_parquet(planted.consensus.path / "outliers.parquet").nsmallest(20, "rank")["particle_id"])
    theirs = set(pd.read_parquet(other.consensus.path / "outliers.parquet").nsmallest(20, "rank")["particle_id"])
    expected = f"Seeds 0 and 1 share only {len(top & theirs)} of their first 20 particles."
    assert raised(planted)["Repetition with other seeds"] == (expected,)


@pytest.mark.parametrize(("n", "who"), [(24, "Every particle"), (20, "Each of 20 particles with a truth")])
def test_where_no_outlier_exists_nothing_can_be_judged(tmp_path: Path, n: int, who: str) -> None:
    """As in a set of labels alone, of which no class was held out; the truth of some may be unknown."""
    planted = plant(tmp_path)
    rows = planted.particles.table
    core = rows.index[rows["role"] == "core"]
    rows.loc[core, "is_outlier"] = pd.array([False] * n + [pd.NA] * (24 - n), dtype="boolean")
    rewritten(planted.consensus, discovery=True)
    said = doubts_of(results_of(planted.particles, planted.consensus))
    assert "False discoveries" in said.unchecked
    (line,) = next(doubt.evidence for doubt in said.found if doubt.name == "Truth")
    assert line == f"{who} is of a known class: no quality of the ranking can be measured."


def searched_again(planted: Planted, runs: list[Run], seed: int, drop_class: tuple[str, ...] = ()) -> Run:
    """One more consensus over trained models, with maps and forests of a seed of their own, and the opposite ranks."""
    particles, common = planted.particles, RunSettings(seed=seed, work_dir=planted.work)
    config = Again(Dropping(drop_class), common)
    clustered = []
    for run in runs:
        with started(f"clusters-{run.kind}", config, common, particles.identity, [run]) as below:
            clustered.append(below)
    ranked = pd.read_parquet(planted.consensus.path / "outliers.parquet")
    with started("consensus", config, common, particles.identity, clustered) as again:
        ranked.assign(rank=len(ranked) + 1 - ranked["rank"]).to_parquet(again.path / "outliers.parquet")
    return again


def test_the_same_models_mapped_again_are_no_repetition(tmp_path: Path) -> None:
    planted = plant(tmp_path, n=80)
    searched_again(planted, planted.runs, seed=1)
    (said,) = raised(planted)["Repetition with other seeds"]
    assert said.startswith("Models were not trained again (seed 0)")


def test_a_repetition_is_of_the_same_latents_and_dropped_classes_and_every_model_is_new(tmp_path: Path) -> None:
    planted, other = plant(tmp_path, n=80), plant(tmp_path, n=80, seed=1)
    shutil.rmtree(other.consensus.path)
    searched_again(planted, other.runs[:1], seed=2)
    searched_again(planted, other.runs, seed=2, drop_class=("dust",))
    searched_again(planted, [planted.runs[0], other.runs[1]], seed=2)
    (said,) = raised(planted)["Repetition with other seeds"]
    assert said.startswith("Models were not trained again")
    searched_again(planted, other.runs, seed=0)  # maps and forests of our own seed, of models that are not ours
    (said,) = raised(planted)["Repetition with other seeds"]
    assert said == "Seeds 0 and 1 share only 0 of their first 20 particles."


def test_a_repetition_whose_models_are_gone_tells_nothing(tmp_path: Path) -> None:
    planted, other = plant(tmp_path, n=80), plant(tmp_path, n=80, seed=1)
    shutil.rmtree(other.runs[0].path)
    (said,) = raised(planted)["Repetition with other seeds"]
    assert said.startswith("Models were not trained again")


def test_latents_of_a_model_from_elsewhere_have_the_seed_of_that_model(tmp_path: Path) -> None:
    """Encoding with another seed trains nothing."""
    planted = plant(tmp_path, n=80)
    common, identity = RunSettings(seed=1, work_dir=tmp_path), planted.particles.identity
    encoded = []
    for model in planted.runs:
        with started(model.kind, Again(common=common), common, identity, [model]) as run:
            encoded.append(run)
    searched_again(planted, encoded, seed=1)
    assert model_seeds(encoded) == {"classifier": 0, "vae": 0}
    (said,) = raised(planted)["Repetition with other seeds"]
    assert said.startswith("Models were not trained again (seed 0)")
    shutil.rmtree(planted.runs[0].path)
    assert model_seeds(encoded) is None


def test_a_cloud_fills_as_many_dimensions_as_it_has() -> None:
    rng = np.random.default_rng(0)
    assert participation(rng.normal(size=(20_000, 5))) == pytest.approx(5, rel=0.01)
    assert participation(rng.normal(size=(50, 1)) * [1.0, 2.0, 3.0]) == pytest.approx(1)
    assert participation(np.ones((9, 3))) == 0
    assert participation(np.ones((1, 3))) == 0


# --- pictures and text


def test_pictures_shrink_until_they_fit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 2000, 3), dtype=np.uint8)
    for name in ("maps-vae.png", "curves-vae.png", "outliers.png"):
        Image.fromarray(noise).save(tmp_path / name)
    paths = sorted(tmp_path.glob("*.png"))
    large = embedded(paths)
    assert [(p.name, p.title, p.width, p.height) for p in large] == [
        ("curves-vae.png", "Training of vae", 1600, 240), ("maps-vae.png", "Maps of the latent vae", 1600, 240),
    ]  # fmt: skip
    Image.fromarray(noise[:9, :9]).save(tmp_path / "reconstructions-worst-planar-vae.png")
    (worst,) = embedded([tmp_path / "reconstructions-worst-planar-vae.png"])
    assert (worst.of, worst.title) == ("planar-vae", "Worst reconstructions by planar-vae")
    small = embedded(paths, budget=400_000)
    assert {p.width for p in small} == {700}
    assert sum(len(p.uri) for p in small) < 400_000 * 4 / 3 + 100
    assert embedded(paths, budget=10) == []
    (tmp_path / "confusion.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"confusion\.png: cannot be read as an image"):
        embedded([tmp_path / "confusion.png"])


def test_small_pictures_are_embedded_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(tmp_path / "confusion.png")
    (picture,) = embedded([tmp_path / "confusion.png"])
    assert base64.b64decode(picture.uri.partition(",")[2]) == (tmp_path / "confusion.png").read_bytes()


def test_pictures_of_an_older_search_are_not_shown(planted: Planted, tmp_path: Path) -> None:
    new, old = tmp_path / "maps-a.png", tmp_path / "maps-b.png"
    for path in (new, old):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    assert fresh([new, old], planted.consensus) == ([new], [old])


def test_settings_that_differ() -> None:
    values = {"a": 1, "b": {"c": [2], "d": 3}}
    assert differences(values, {"a": 1, "b": {"c": [9], "d": 3}}) == [("b.c", "[2]", "[9]")]
    assert differences(values, {"a": 1}) == [("b", "{'c': [2], 'd': 3}", "None")]


def test_numbers_read_well() -> None:
    rows = table("t", ("a", "b", "c"), [("x", 1234, 0.12345), ("y", None, -2495.6)])
    assert rows.rows == (("x", "1,234", "0.123"), ("y", "–", "-2,496"))
    assert rows.numeric == (False, True, True)
    assert [percent(v) for v in (0, 1, 0.0052, 0.123, 0.9999, None)] == [
        "0 %", "100 %", "0.52 %", "12 %", "> 99 %", "–",
    ]  # fmt: skip
    assert [duration(s) for s in (None, 48.4, 720, 7200)] == ["–", "48 s", "12 min", "2.0 h"]
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    crop = {"width_px": 21, "height_px": 18, "um_per_px": pd.NA}
    assert (size(crop), size(crop | {"um_per_px": 0.5})) == ("21 × 18 px", "10.5 × 9 µm")
    assert size(crop | {"width_px": pd.NA}) == "–"
    assert place({"sample": pd.NA, "core": "GRIP", "bag": 3046, "top_cm": 0.0, "bottom_cm": 20.5}) == (
        "GRIP, 3046, 0–20.5 cm"
    )
    assert place({}) == "–"


def test_the_look_holds_no_address() -> None:
    assert not re.search(
        r"url\(|https?:|@import", (Path(__file__).parents[2] / "figures/assets/report.css").read_text()
    )


# --- checks of what a search seldom has


def told_of(*losses: float) -> Any:
    """Results of which one curve is all that is known."""
    return SimpleNamespace(curves={"vae": pd.DataFrame({"val_loss": losses})})


def test_a_model_that_was_still_learning_is_told() -> None:
    said = ["vae: the loss fell from 2 to 1 in the last epoch."]
    assert report_checks_models.falling(told_of(3.0, 2.0, 1.0)) == said
    assert report_checks_models.falling(told_of(3.0, 1.0, 2.0)) == [], "it rose"
    assert report_checks_models.falling(told_of(1.06, 1.015, 1.0)) == [], "1.5 % of the loss"
    assert report_checks_models.falling(told_of(9.0, 1.05, 1.0)) == [], "little of what was won"
    unjudged: Any = SimpleNamespace(curves={"vae": pd.DataFrame({"train_loss": [3.0, 2.0, 1.0]})})
    assert report_checks_models.falling(unjudged) != said


def test_an_autoencoder_that_uses_few_of_its_dimensions_is_told() -> None:
    def said(**dimensions: tuple[int, float]) -> list[str] | None:
        results: Any = SimpleNamespace(dimensions=dimensions)
        return report_checks_models.filled(results)

    assert said(ae=(32, 3.1)) == ["ae: the core fills about 3.1 of 32 dimensions."]
    assert said(ae=(32, 3.3)) == []
    assert said(ae=(2, 1.4)) == ["ae: the core fills about 1.4 of 2 dimensions."]
    assert said(ae=(2, 1.6)) == []
    assert said(vae=(32, 1.0)) is None, "the trainings of the others say what their KL is"


def test_maps_without_a_seed_are_told() -> None:
    def clustered(kind: str, **maps: bool) -> SimpleNamespace:
        return SimpleNamespace(kind=f"clusters-{kind}", config={"clustering": {"maps": maps}} if maps else {})

    seeded = clustered("vae", map_seed=True), clustered("classifier")
    results: Any = SimpleNamespace(clustered=[clustered("ae", map_seed=False), *seeded])
    assert report_checks_models.map_seed(results) == ["Drawn without a seed: ae; clusters are found on these maps."]
    results.clustered = seeded
    assert report_checks_models.map_seed(results) == []


def test_a_report_doubts_p_values_where_the_search_does() -> None:
    """Figures must not import what the search is made of."""
    assert report_checks_ranking.FALSE_DISCOVERIES == FALSE_DISCOVERY_RATE
    assert (report_checks_ranking.UNUSUAL, report_checks_ranking.MUCH_UNUSUAL) == (UNUSUAL, SUSPICIOUS)
