"""Checks of labels, p-values, truth and repetition: lines of evidence, none where all is well, None where unknown."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from figures.confusion import confusion, shares
from figures.report_results import Results, results_of
from figures.report_text import p_text, percent
from provenance.errors import UserError
from provenance.progress import listed
from provenance.run import Run

FEW_LABELS = 50
"""Training particles of a class; below this what the classifier knows of it is a matter of luck."""
CONFUSED = 0.10
UNUSUAL, MUCH_UNUSUAL = 0.05, 0.20
FALSE_DISCOVERIES = 0.10
FEW_OUTLIERS = 20
TOP, SHARED = 20, 0.7
"""Of the first 20, seeds that share less than this do not tell the same story."""

Evidence = list[str] | None


def labels(results: Results) -> Evidence:
    """Classes without enough to learn from."""
    rows = results.particles.table
    if not results.particles.classes:
        return ["Nothing is labeled: no classifier was trained, and no particle is known to be ordinary."]
    trained = rows.loc[(rows["role"] == "labeled") & (rows["split"] == "train"), "label"].value_counts()
    few = [
        f"{name} ({trained.get(name, 0)})" for name in results.particles.classes if trained.get(name, 0) < FEW_LABELS
    ]
    return [f"Classes with fewer than {FEW_LABELS} particles to learn from: {listed(few)}."] if few else []


def confused(results: Results) -> Evidence:
    """Classes that the classifier takes for each other on its test split."""
    judged, classes = results.tested, results.particles.classes
    if judged.empty:
        return None
    counts = confusion(judged["truth"].tolist(), judged["predicted"].tolist(), classes)
    rows = np.nan_to_num(shares(counts)[0])
    pairs = [(rows[i, j], i, j) for i, j in np.argwhere(rows > CONFUSED) if i != j]
    return [
        f"{percent(share)} of {classes[i]} ({counts[i, j]} of {counts[i].sum()}) are taken for {classes[j]}."
        for share, i, j in sorted(pairs, reverse=True)
    ]


def held_back(results: Results) -> Evidence:
    """Whether labels were kept from the models, so that p-values mean something."""
    if not results.ranked["p_value"].notna().any():
        return ["No labeled particle was kept from the models: there are no p-values, and the list has no natural end."]
    without = results.ranked.loc[results.ranked["p_value"].isna(), "particle_id"]
    if without.empty:
        return []
    classes = sorted(results.predicted["predicted"].reindex(without).dropna().unique())
    return [f"{len(without):,} of the core have no p-value and cannot be discoveries: of what is taken for "
            f"{listed(classes)} no labeled particle was kept from the models."]  # fmt: skip


def unusual(results: Results) -> Evidence:
    """Whether far more of the core than chance allows looks unlike the labeled set."""
    p_values = results.ranked["p_value"].dropna()
    if p_values.empty:
        return None
    found, share = [], float((p_values <= UNUSUAL).mean())
    if share > MUCH_UNUSUAL:
        some = len(p_values) < len(results.ranked)
        who = f"the {len(p_values):,} of the core that have a p-value" if some else "the core"
        found.append(f"{percent(share)} of {who} have p <= {UNUSUAL}, where 5 % were expected of known particles.")
    measured = results.consensus.results
    if measured.get("told_apart") is not None and measured["excess_weight"] is None:
        found.append(f"The scalars tell this core from the labeled set (AUC {measured['told_apart']:.2f}), more than "
                     f"novelties can{_or_named_wrongly(results)}: what it has more of did not count.")  # fmt: skip
    if left_out := measured.get("scalars_left_out"):
        found.append(f"Core or labeled set has gaps in {len(left_out)} scalars and the other not: these did not count "
                     f"({listed(left_out)}).")  # fmt: skip
    return found


def _or_named_wrongly(results: Results) -> str:
    """The other reason: labeled particles weigh as much as the classifier finds their classes in the core."""
    if results.classifier is None:
        return ""
    judged = results.tested
    right = f", right for {percent(float((judged['truth'] == judged['predicted']).mean()))} of held-back labels,"
    return f", or the classifier{'' if judged.empty else right} names the core's classes wrongly"


def coarse(results: Results) -> Evidence:
    """Whether p-values are fine enough for a single discovery."""
    p_values = results.ranked["p_value"].dropna()
    if p_values.empty:
        return None
    if results.ranked["discovery"].any():
        return []
    n = len(results.ranked)  # those without a p-value count in the line too
    smallest, needed = float(p_values.min()), FALSE_DISCOVERIES / n
    beyond = int((results.ranked["known_as_strange"] == 0).sum())
    return [f"No discovery: the smallest p-value is {p_text(smallest)}; a single one among {n:,} particles "
            f"would need {p_text(needed)}. {beyond:,} are stranger than every known particle held back."]  # fmt: skip


def false(results: Results) -> Evidence:
    """Whether discoveries are what was promised, where the truth is known and there is something to discover."""
    if not results.truth.any():  # every discovery is false then: seldom there should be one, which one list cannot show
        return None
    found = results.ranked["discovery"].to_numpy(dtype=bool)
    judged = results.truth[found].dropna()
    if judged.empty:
        return None
    wrong = float((~judged.astype(bool)).mean())
    if wrong <= FALSE_DISCOVERIES:
        return []
    return [f"{percent(wrong)} of {len(judged)} discoveries are of known classes; at most 10 % were promised."]


def truth(results: Results) -> Evidence:
    """Whether anything is known to judge the ranking by."""
    known = results.truth.dropna()
    if known.empty:
        return [
            "No truth: it is not known which particles of this core are outliers, so nothing here is an error rate."
        ]
    n = int(known.sum())
    if n == 0:
        who = "Every particle" if len(known) == len(results.truth) else f"Each of {len(known):,} particles with a truth"
        return [f"{who} is of a known class: no quality of the ranking can be measured."]
    return (
        [f"Only {n} true outlier{'s' * (n != 1)}: qualities of the ranking are uncertain."] if n < FEW_OUTLIERS else []
    )


def seeds(results: Results) -> Evidence:
    """Whether models trained with other seeds put the same particles first."""
    own = model_seeds(results.runs)
    if own is None:
        return None
    top = set(results.ranked["particle_id"].head(TOP))
    others = repetitions(results, own)
    if not others:
        seed = _named(own.values())
        return [f"Models were not trained again (seed {seed}): how much of the list is chance is not known."]
    lines = []
    for trained, run in sorted(others.items()):
        ranked = pd.read_parquet(run.path / "outliers.parquet", columns=["particle_id", "rank"])
        shared = len(top & set(ranked.loc[ranked["rank"] <= TOP, "particle_id"]))
        if shared < SHARED * len(top):
            both = f"Seeds {_named(own.values())} and {_named(trained)}"
            lines.append(f"{both} share only {shared} of their first {len(top)} particles.")
    return lines


def repetitions(results: Results, own: Mapping[str, int]) -> dict[tuple[int, ...], Run]:
    """The newest finished consensus of the same data, latents and dropped classes for each other seed of its models.

    Another seed of maps and forests alone is no repetition: what differs most is what the models have learned.

    Args:
        results: the search.
        own: seed of each of its models, by latent.
    """
    found = {}
    for path in sorted((results.work / "runs" / "consensus").glob("*/run.json")):
        run = Run(path.parent)
        try:
            theirs = _comparable_seeds(results, run)
        except UserError:  # half a run of somebody else's says nothing about this one
            continue
        if theirs and theirs.keys() == own.keys() and all(theirs[latent] != own[latent] for latent in own):
            found[tuple(theirs[latent] for latent in own)] = run
    return found


def _comparable_seeds(results: Results, run: Run) -> dict[str, int] | None:
    """`model_seeds` of another consensus; None where it ranks something else.

    Raises:
        UserError: it cannot be read, or what it stands on is gone.
    """
    info = run.info
    same = info["data"].get("fingerprint") == results.particles.fingerprint and info["status"] == "finished"
    if not same or not (run.path / "outliers.parquet").exists() or _dropped(run) != _dropped(results.consensus):
        return None
    return model_seeds(results_of(results.particles, run).runs)


def model_seeds(runs: Sequence[Run]) -> dict[str, int] | None:
    """By latent, the seed its model was trained with; None where a model is gone.

    Latents of a model that was trained on other data are a run of the same kind with a seed of its own, which says
    nothing: that of the model counts.
    """
    models = {}
    for run in runs:
        encoded = [name for name in run.info["parents"] if name.partition("/")[0] == run.kind]
        models[run.kind] = Run(run.path.parents[1] / encoded[0]) if encoded else run
    if not all((model.path / "run.json").is_file() for model in models.values()):
        return None
    return {latent: int(model.info["seed"]) for latent, model in models.items()}


def _dropped(run: Run) -> set[str]:
    return set(run.config.get("clustering", {}).get("drop_class", ()))


def _named(seeds: Iterable[int]) -> str:
    return "/".join(map(str, sorted(set(seeds))))
