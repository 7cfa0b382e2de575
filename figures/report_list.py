"""The first of the ranking as the report shows them: crop, rank, p-value, reasons, size, place."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.cards import scale_bar
from figures.particle_cards import found_text, known_text
from figures.report_pictures import crop_uri
from figures.report_results import Results
from figures.report_text import p_text, percent, place, size
from provenance.progress import listed

TOP = 20
MOST_CROPS = 120
"""Discoveries after the first twenty that are shown as crops."""


@dataclass(frozen=True)
class Found:
    """One particle of the list."""

    rank: int
    identity: str
    crop: str
    """Data URI."""
    bar: str
    """Length of the scale bar, with its unit."""
    bar_share: float
    """Its length as a share of the crop's width."""
    p_value: str
    as_strange: str
    """How many known particles are as strange, in words; empty where none was held back."""
    discovery: bool
    predicted: str
    truth: str
    outlier: bool
    """Known to be one."""
    size: str
    place: str
    reasons: tuple[str, ...]
    found_in: str
    """`top 1 % in 3 of 4 latents`; empty of none, and where they were not compared."""


def strangest(results: Results, n: int = TOP) -> list[Found]:
    """The first n of the ranking."""
    return _found(results, results.ranked.head(n))


def further_discoveries(results: Results, most: int = MOST_CROPS) -> list[Found]:
    """Discoveries below the first twenty."""
    beyond = results.ranked.iloc[TOP:]
    return _found(results, beyond[beyond["discovery"].to_numpy(dtype=bool)].head(most))


def least_p(results: Results) -> str:
    """`0.0005 for camp, 0.0095 for dust`: p of those than which no known particle is as strange, by predicted class."""
    ranked = results.ranked
    first = ranked[(ranked["known_as_strange"] == 0).fillna(False).to_numpy(dtype=bool)]
    if results.predicted.empty:
        return p_text(first["p_value"].iloc[0]) if len(first) else ""
    classes = results.predicted["predicted"].reindex(first["particle_id"]).to_numpy(dtype=object)
    least = first["p_value"].groupby(classes).first().sort_values(kind="stable")
    return listed([f"{p_text(p)} for {name}" for name, p in least.items()])


def _found(results: Results, ranked: pd.DataFrame) -> list[Found]:
    rows = results.table.loc[ranked["particle_id"]]  # joined by id, never by position
    crops = results.particles.pixels[rows["position"].to_numpy(dtype=np.int64)]
    of = zip(ranked.to_dict("records"), rows.to_dict("records"), crops, strict=True)
    return [_one(results, judged, row, crop) for judged, row, crop in of]


def _one(results: Results, judged: dict[str, object], row: dict[str, object], crop: np.ndarray) -> Found:
    identity = str(judged["particle_id"])
    bar = _bar(row, crop.shape[1])
    known = not pd.isna(row["is_outlier"])
    return Found(
        rank=int(str(judged["rank"])), identity=identity, crop=crop_uri(crop), bar=bar[0], bar_share=bar[1],
        p_value=p_text(judged["p_value"]),  # type: ignore[arg-type]
        as_strange=known_text(judged["known_as_strange"]),
        discovery=bool(judged["discovery"]), predicted=_predicted(results, identity),
        truth="" if pd.isna(row["truth"]) else str(row["truth"]), outlier=known and bool(row["is_outlier"]),
        size=size(row), place=place(row), reasons=_parts(judged["reasons"]),
        found_in=found_text(judged.get("found_in"), len(results.clustered)),
    )  # fmt: skip


def _bar(row: dict[str, object], side: int) -> tuple[str, float]:
    """A round length in µm, or in px of the crop where the scale is unknown."""
    if pd.isna(row["scale"]):
        return "", 0.0
    known = not pd.isna(row["um_per_px"])
    per_px = (float(str(row["um_per_px"])) if known else 1.0) / float(str(row["scale"]))
    bar = scale_bar(per_px, side, "µm" if known else "px")
    return bar.text, bar.image_px / side


def _predicted(results: Results, identity: str) -> str:
    if identity not in results.predicted.index:
        return ""
    row = results.predicted.loc[identity]
    sure = f" ({percent(float(row['confidence']))})" if "confidence" in row and not pd.isna(row["confidence"]) else ""
    return f"{row['predicted']}{sure}"


def _parts(reasons: object) -> tuple[str, ...]:
    return () if pd.isna(reasons) else tuple(filter(None, (part.strip() for part in str(reasons).split(";"))))
