"""What the report's tables say: the data, the settings, the runs, the latents, the training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from figures.curves import variational
from figures.report_intervals import estimates
from figures.report_results import Results, latent_of
from figures.report_text import DASH, Table, duration, percent, place, table
from particles.sets import DataSettings
from provenance.errors import UserError
from provenance.progress import listed
from provenance.run import RunSettings
from provenance.settings import plain

_MOST_SAMPLES, _MOST_REASONS = 40, 12
_WORDS_FOR = {"auroc": "AUROC", "average_precision": "average precision", "recall_at_n": "recall at n"}
_OF_LAST_EPOCH = ("train_loss", "val_loss", "val_accuracy", "val_kl", "active_units")
_GROUPS = {"kmeans": "KMeans", "dbscan": "DBSCAN", "hdbscan": "HDBSCAN"}


# --- data


def data_tables(results: Results) -> list[Table]:
    """Where the particles are from, who they are, what was left out."""
    tables = [_sources(results), _members(results)]
    return tables + [found for found in (_samples(results), _rejected(results)) if found.rows]


def _sources(results: Results) -> Table:
    """A column a packed set."""
    columns = []
    for info in results.set_infos:
        about = ", ".join(f"{name} {_short(value)}" for name, value in info["source"].items())
        packing = ", ".join(f"{name} {_short(value)}" for name, value in info["settings"].items() if value is not None)
        n, rejected = int(info["n"]), int(info["rejected"])
        share = f"{rejected:,} ({percent(rejected / max(1, n + rejected))})"
        columns.append((n, share, about, f"{info['size']} px; {packing}", str(info["fingerprint"])))
    names = ("Particles", "Rejected", "Source", "Packed to", "Fingerprint")
    header = ("Set", *(str(info["name"]) for info in results.set_infos))
    return table("Where the particles are from", header, zip(names, *columns, strict=True))


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= 120 else f"{words[:117]}…"


def _members(results: Results) -> Table:
    """Labeled particles by class and split, and the core."""
    frame = results.particles.table
    labeled = frame[frame["role"] == "labeled"]
    counts = pd.crosstab(labeled["label"], labeled["split"]).reindex(columns=["train", "val", "test"], fill_value=0)
    rows = [
        (str(name), *map(int, row), int(row.sum())) for name, row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    core = frame[frame["role"] == "core"]
    rows.append(("core (searched)", None, None, None, len(core)))
    note = f"{len(results.ranked):,} of the core were ranked."
    known = results.truth.dropna()
    if len(known):
        note += f" The truth is known of {len(known):,}: {int(known.sum()):,} are outliers. No model saw it."
    return table("Who is what", ("Class", "train", "val", "test", "all"), rows, note)


def _samples(results: Results) -> Table:
    """Samples of the core, with how many of the first hundred of the ranking each holds."""
    core = results.table.loc[results.ranked["particle_id"]].reset_index(drop=True)
    places = pd.Series([place(row) for row in core.to_dict("records")])
    known = places != DASH
    frame = pd.DataFrame({"place": places, "top": results.ranked["rank"] <= 100})[known]
    frame["volume"] = core["volume_ml"].astype("Float64")[known] if "volume_ml" in core else pd.NA
    found = frame.groupby("place", sort=True).agg(n=("top", "size"), top=("top", "sum"), volume=("volume", "max"))
    rows: list[tuple[Any, ...]] = list(found.itertuples(name=None))
    more = len(rows) - _MOST_SAMPLES
    note = f"and {more} more samples" if more > 0 else ""
    header: tuple[str, ...] = ("Sample", "Particles", "of the first 100", "mL imaged")
    if not found["volume"].notna().any():
        header, rows = header[:-1], [row[:-1] for row in rows]
    return table("Samples and depths of the core", header, rows[:_MOST_SAMPLES], note)


def _rejected(results: Results) -> Table:
    counts = rejected_reasons(results)
    rows = [(str(reason), int(n)) for reason, n in counts.head(_MOST_REASONS).items()]
    if len(counts) > _MOST_REASONS:
        rows.append(("other reasons", int(counts.iloc[_MOST_REASONS:].sum())))
    return table("Why crops were rejected", ("Reason", "Crops"), rows, "rejected.csv of the packed set names each.")


def rejected_reasons(results: Results) -> pd.Series:
    """How often each reason stands in rejected.csv, most frequent first.

    Raises:
        UserError: a rejected.csv cannot be read.
    """
    reasons = [pd.Series(dtype="string")]
    for path in (folder / "rejected.csv" for folder in results.folders):
        if path.exists():
            try:
                reasons.append(pd.read_csv(path, dtype="string", keep_default_na=False)["reason"])
            except (ValueError, KeyError, OSError) as error:
                raise UserError(f"{path}: cannot be read ({error}); delete its folder and run again") from error
    return pd.concat(reasons).value_counts()


# --- settings and runs


def run_table(results: Results) -> Table:
    """Every run of the search with what it was started by."""
    rows = []
    for run in results.all_runs:
        info = run.info
        rows.append((run.kind, run.path.name, str(info["commit"]), str(info["seed"]), duration(info.get("seconds")),
                     " ".join(map(str, info["argv"]))))  # fmt: skip
    return table("Runs", ("Kind", "Run", "Commit", "Seed", "Took", "Command"), rows)


def settings_table(results: Results, defaults: Mapping[str, Any] | None) -> Table:
    """Settings that differ from their defaults."""
    known = {"data": plain(DataSettings()), "common": plain(RunSettings()), **(defaults or {})}
    config = results.consensus.config
    rows = differences({name: value for name, value in config.items() if name in known}, known)
    unknown = sorted(set(config) - set(known))
    note = (
        f"Not compared with defaults: {listed(unknown)}; the commands below show what was asked for." if unknown else ""
    )
    return table("Settings that differ from their defaults", ("Setting", "Here", "Default"), rows, note)


def differences(values: Any, defaults: Any, name: str = "") -> list[tuple[str, str, str]]:
    """(dotted name, value, default) where nested plain settings differ."""
    if isinstance(values, dict) and isinstance(defaults, dict):
        return [
            row
            for key in values
            for row in differences(values[key], defaults.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if values == defaults else [(name, str(values), str(defaults))]


def version_table(results: Results) -> Table:
    """Versions that the ranking was made with."""
    info = results.consensus.info
    rows = [("python", str(info["python"])), *((n, str(v)) for n, v in info["versions"].items())]
    rows.append(("machine", f"{info['system']}, {info['cpus']} CPUs"))
    return table("Versions", ("What", "Version"), rows)


# --- what was found


def quality_table(results: Results, seed: int) -> Table | None:
    """How well the outliers were found, where it is known who they are."""
    scores = {"consensus": results.ranked[["particle_id", "score"]]}
    for run in results.clustered:
        scores[latent_of(run)] = pd.read_parquet(run.path / "outliers.parquet", columns=["particle_id", "score"])
    rows = []
    for name, frame in scores.items():
        truth = results.table["is_outlier"].reindex(frame["particle_id"])
        found = estimates(truth, frame["score"].to_numpy(dtype=float), seed)
        if found is None:
            return None
        rows.append((name, *(found[key] for key in _WORDS_FOR)))
    note = "In brackets 95 % intervals (bootstrap over particles). They do not hold what another training would change."
    return table("How well the true outliers were found", ("Ranking", *_WORDS_FOR.values()), rows, note)


def latent_table(results: Results) -> Table:
    """Groups found in each latent."""
    rows = []
    n = len(results.ranked)
    for run in results.clustered:
        latent, found = latent_of(run), run.results
        dimensions, filled = results.dimensions.get(latent, (None, None))
        for key, name in _GROUPS.items():
            of = found[key]
            noise = None if key == "kmeans" else f"{of['noise']:,} ({percent(of['noise'] / max(1, n))})"
            shape = DASH if dimensions is None else f"{dimensions}, {filled:.1f}"
            rows.append((latent, shape, name, of["n"], noise, of["ari"], of["nmi"], of["acc"]))
    header = ("Latent", "Dimensions, filled", "Method", "Clusters", "Noise", "ARI", "NMI", "Accuracy")
    note = "Against the truth where it is known; noise is one group for ARI and NMI, and wrong for the accuracy. "
    return table("Groups in each latent", header, rows, note + "Filled: participation ratio of the core's variances.")


# --- training


def training_table(results: Results) -> Table:
    """The last epoch of each model."""
    rows = []
    for kind, frame in results.curves.items():
        last = frame.iloc[-1]
        values = [_or_none(last.get(name)) for name in _OF_LAST_EPOCH]
        if not variational(frame):  # a plain autoencoder logs zeros
            values[_OF_LAST_EPOCH.index("val_kl")] = None
        rows.append((kind, len(frame), *values))
    header = ("Model", "Epochs", "Loss, train", "Loss, val", "Accuracy, val", "KL, val", "Active units")
    return table("The last epoch of each model", header, rows, "Losses of autoencoders are in nats per image.")


def _or_none(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def confusion_table(results: Results) -> Table | None:
    """The classifier on its test split, with its accuracy; None where nothing was tested."""
    judged = results.tested
    if judged.empty:
        return None
    counts = pd.crosstab(judged["truth"], judged["predicted"])
    classes = results.particles.classes
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    right = int(np.trace(counts.to_numpy()))
    rows = []
    for number, (name, row) in enumerate(zip(classes, counts.to_numpy(), strict=True)):
        recall = percent(row[number] / row.sum()) if row.sum() else DASH
        rows.append((name, *map(int, row), recall))
    note = (
        f"Accuracy {percent(right / len(judged))}: {right:,} of {len(judged):,} particles that were never trained on."
    )
    return table("True classes (rows) against predicted ones (columns)", ("Class", *classes, "Recall"), rows, note)
