"""What to distrust in a search, computed from its runs: each check gives its evidence, and a way out."""

from collections.abc import Callable
from dataclasses import dataclass

from figures import report_checks_models as models
from figures import report_checks_ranking as ranking
from figures.report_checks_ranking import Evidence
from figures.report_results import Results


@dataclass(frozen=True)
class Check:
    """One thing that may be wrong."""

    name: str
    look: Callable[[Results], Evidence]
    way_out: str


@dataclass(frozen=True)
class Doubt:
    """One thing that is wrong."""

    name: str
    evidence: tuple[str, ...]
    way_out: str


@dataclass(frozen=True)
class Doubts:
    """What the checks said."""

    found: tuple[Doubt, ...]
    passed: tuple[str, ...]
    unchecked: tuple[str, ...]


def doubts_of(results: Results) -> Doubts:
    """Ask every check."""
    found, passed, unchecked = [], [], []
    for check in CHECKS:
        evidence = check.look(results)
        if evidence is None:
            unchecked.append(check.name)
        elif evidence:
            found.append(Doubt(check.name, tuple(evidence), check.way_out))
        else:
            passed.append(check.name)
    return Doubts(tuple(found), tuple(passed), tuple(unchecked))


CHECKS = (
    Check("Labels", ranking.labels, "Label more particles, or merge classes."),
    Check("Classifier", models.classifier,
          "Train it for longer (more --pretrain-epochs): predicted classes, p-values and discoveries rest on it."),
    Check("Confusion of classes", ranking.confused, "Read predicted classes as one, or label more of both."),
    Check("Held-back labels", ranking.held_back, "Label more of each class; give the core with --core."),
    Check("Likeness of labeled set and core", ranking.unusual,
          "The labeled set is unlike this core's bulk (optics, dust), or its classes are named wrongly: "
          "read p-values and discoveries with care."),
    Check("Resolution of the p-values", ranking.coarse, "Label more (a fifth is held back), or read from the top."),
    Check("False discoveries", ranking.false, "Look at the labeled set: its particles are more uniform."),
    Check("Truth", ranking.truth, "Try --held-out CLASS on your own labels: it asks who finds a hidden class again."),
    Check("Repetition with other seeds", ranking.seeds,
          "Train the models again: find_outliers.py --seed 1, its other flags as they were; where --data is synthetic, "
          "give the packed folder instead, for that seed would make other particles."),
    Check("Code", models.code, "Commit, and run again."),
    Check("Versions of libraries", models.versions, "Run everything again in one environment."),
    Check("Troubles of training", models.trained, "Train again with the flags that are named."),
    Check("Dimensions of the autoencoder", models.filled, "Train longer, or take fewer dimensions."),
    Check("Noise", models.noise, "Lower --min-cluster-size or --min-samples."),
    Check("End of training", models.falling, "Train for more epochs."),
    Check("Rejected crops", models.rejected, "Read rejected.csv; the reasons are counted below."),
    Check("Scale", models.scale, "Give --um-per-px."),
    Check("Seeded maps", models.map_seed, "Leave out --no-map-seed."),
)  # fmt: skip
"""Everything that is asked, in the order in which a reader should worry."""
