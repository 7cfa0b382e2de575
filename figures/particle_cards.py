"""Rows of the particle table -> cards of a contact sheet."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from figures.cards import Card
from particles.pixels import PixelStore

_TIMES = "\N{MULTIPLICATION SIGN}"


def cards_of(
    table: pd.DataFrame,
    pixels: PixelStore,
    ids: Sequence[str],
    lines: Mapping[str, Sequence[str]] | None = None,
    ranks: Mapping[str, int] | None = None,
    marks: Mapping[str, str] | None = None,
) -> list[Card]:
    """Cards of the particles in `ids`, in that order.

    Args:
        table: particle_id, position (row in `pixels`), width_px, height_px, scale, um_per_px; `image`, if it has it.
        pixels: the packed images.
        ids: particles to show.
        lines: particle_id -> what to say below its size.
        ranks: particle_id -> badge.
        marks: particle_id -> name of its frame.
    """
    rows = table.set_index("particle_id").loc[list(ids)]  # joined by id, never by position
    images = pixels[rows["position"].to_numpy(dtype=np.int64)]
    cards = []
    for (name, row), image in zip(rows.iterrows(), images, strict=True):
        known = not pd.isna(row["um_per_px"])
        card = Card(
            image=image, title=str(name), lines=(_size(row), *_file(row, str(name)), *(lines or {}).get(name, ())),
            um_per_packed_px=float(row["um_per_px"] / row["scale"]) if known else None,
            crop_px_per_packed_px=1 / float(row["scale"]),
            rank=None if ranks is None or name not in ranks else int(ranks[name]),
            mark=None if marks is None else marks.get(name),
        )  # fmt: skip
        cards.append(card)
    return cards


def found_text(found_in: object, latents: int) -> str:
    """`top 1 % in 3 of 4 latents`, of each latent's own ranking.

    Nothing of none, which beside a high rank in all scores together would read as a contradiction, and nothing where
    latents were not compared, as in a ranking of one.
    """
    if pd.isna(found_in) or latents < 2 or found_in == 0:
        return ""
    return f"top 1 % in {int(str(found_in))} of {latents} latents"


def known_text(n: object) -> str:
    """`3 known as strange`: what a p-value rests on; nothing where no known particle was held back."""
    return "" if pd.isna(n) else f"{int(str(n)):,} known as strange"


def file_of(image: object) -> str | None:
    """The file that a row's `image` lies in; None where it is missing, or a key of a source without files.

    Of a collage the place within it, after a `?`, is left out.
    """
    path = "" if pd.isna(image) else str(image).partition("?")[0]
    return path if PurePosixPath(path).suffix else None


def _file(row: Any, identity: str) -> tuple[str, ...]:
    """The file's name, where the id does not tell it."""
    path = PurePosixPath(file_of(row.get("image")) or "")
    return (path.name,) if path.stem not in identity else ()


def _size(row: Any) -> str:
    """`12 x 8 µm`: width and height of the crop."""
    if pd.isna(row["um_per_px"]):
        return f"crop {row['width_px']} {_TIMES} {row['height_px']} px"
    width, height = (_three_digits(float(row[side] * row["um_per_px"])) for side in ("width_px", "height_px"))
    return f"crop {width} {_TIMES} {height} µm"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
