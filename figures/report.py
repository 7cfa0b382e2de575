"""One file that says what a search found and what to distrust: `python figures/report.py --data synthetic`."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from figures.finished import pictures_folder
from figures.report_cost import cost_of
from figures.report_doubts import doubts_of
from figures.report_facts import (
    confusion_table,
    data_tables,
    latent_table,
    quality_table,
    run_table,
    settings_table,
    training_table,
    version_table,
)
from figures.report_list import further_discoveries, least_p, strangest
from figures.report_pictures import Picture, embedded
from figures.report_results import Results, results_of
from figures.report_text import DASH
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.files import replacing
from provenance.run import LATENTS, Run, RunSettings, find
from provenance.settings import entry, flags_of

ASSETS = Path(__file__).with_name("assets")


@dataclass(frozen=True)
class Settings:
    """Report the newest finished search on a set."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    consensus: str = "consensus"
    """Which ranking: the newest on this data, or consensus/<id>."""
    out: Path | None = None
    """The file to write: default figures/<data>/report.html in the work folder."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed (of the intervals) and folders."""


def main(settings: Settings) -> None:
    """Write report.html: what was searched, what was found, what to distrust; one file that can be mailed."""
    data, common = settings.data, settings.common
    particles = open_set(data, common)
    run = find(settings.consensus, common.work, "outliers.parquet", particles.identity)
    drawn = pictures_folder(common.work, particles.name, particles.fingerprint)
    pictures, stale = fresh(sorted(drawn.glob("*.png")), run)
    out = settings.out or drawn / "report.html"
    path = write_report(particles, run, out, pictures=pictures, seed=common.seed)
    if stale or not pictures:
        what = f"{len(stale)} pictures in {drawn} are older than {run.name}" if stale else f"no pictures in {drawn}"
        print(f"{what}: left out; draw them with `python figures/draw.py {flags_of(data, common)}` and run this again")
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def write_report(
    particles: ParticleSet, consensus: Run, path: Path, runs: Sequence[Run] = (), clustered: Sequence[Run] = (),
    pictures: Sequence[Path] = (), defaults: Mapping[str, Any] | None = None, seed: int = 0,
) -> Path:  # fmt: skip
    """Write the report of one search: self-contained HTML below 15 MB, without scripts.

    Args:
        particles: the set.
        consensus: the ranking.
        path: HTML to write.
        runs: training runs; default: found by what the consensus stands on.
        clustered: `clusters-<latent>` runs; default as above.
        pictures: PNG files to embed; only the kinds in `report_pictures.CAPTIONS` are.
        defaults: the script's default settings as plain values, for the list of what differs.
        seed: of the bootstrap.

    Returns:
        `path`.

    Raises:
        UserError: a run that the consensus stands on is gone, or a file cannot be read.
    """
    results = results_of(particles, consensus, runs, clustered)
    page = rendered(results, embedded(pictures), defaults, seed)
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8")
    return path


def rendered(
    results: Results, pictures: Sequence[Picture] = (), defaults: Mapping[str, Any] | None = None, seed: int = 0
) -> str:
    """The page. Every text from outside is escaped, and what has no glyph or turns the writing around is replaced."""
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, finalize=_finalized,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    ranked, info = results.ranked, results.consensus.info
    shown = strangest(results)
    return environment.get_template("report.html.j2").render(
        name=results.particles.name, run=results.consensus.name, made=str(info.get("finished", info["started"]))[:16],
        commit=info["commit"], n=len(ranked), top=shown, further=further_discoveries(results),
        discoveries=int(ranked["discovery"].sum()), calibrated=bool(ranked["p_value"].notna().any()),
        least_p=least_p(results),
        true_outliers=int(results.truth.fillna(False).sum()), truth_known=bool(results.truth.notna().any()),
        found_in_top=sum(found.outlier for found in shown),
        quality=quality_table(results, seed), doubts=doubts_of(results), data=data_tables(results),
        latents=latent_table(results), training=training_table(results), confusion=confusion_table(results),
        cost=cost_of(results), runs=run_table(results), settings=settings_table(results, defaults),
        versions=version_table(results), pictures=_by_kind(pictures),
    )  # fmt: skip


def _by_kind(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Kinds of picture, each in the order in which its latents are named everywhere."""
    order = {name: number for number, name in enumerate(LATENTS)}
    ordered = sorted(pictures, key=lambda picture: order.get(picture.of, len(order)))
    return {kind: [p for p in ordered if p.kind == kind] for kind in {p.kind for p in pictures}}


def fresh(pictures: Sequence[Path], run: Run) -> tuple[list[Path], list[Path]]:
    """Pictures drawn after `run` had finished, and older ones, which may show another search."""
    finished = datetime.fromisoformat(run.info["finished"]).timestamp()
    new = [path for path in pictures if path.stat().st_mtime >= finished]
    return new, [path for path in pictures if path not in new]


def _finalized(value: Any) -> Any:
    """A dash for what is missing; no control characters, no marks that reverse the direction of writing."""
    if value is None:
        return DASH
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(" " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" if _unseen(c) else c for c in value)


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


if __name__ == "__main__":
    entry(Settings, main)
