"""The `.lst` of a FlowCam run: its header, its particles, the scalars they bring, and what is wrong with any of it."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import pandas as pd

from particles.scalars import SCALARS
from provenance.errors import UserError

KNOWN_VERSIONS = ("017",)
CHUNK_ROWS = 10_000
LONGEST_LINE = 1 << 16
"""Bytes; a row has some 500, and a file without line ends must not fill the memory."""

# Scalars that a listing stores, in µm, µm², degrees and grey levels as they are exported.
STORED = {
    "Area (ABD)": "abd_area", "Area (Filled)": "filled_area", "Circle Fit": "circle_fit",
    "Circularity (Hu)": "circularity_hu", "Compactness": "compactness", "Convex Perimeter": "convex_perimeter",
    "Diameter (ABD)": "abd_diameter", "Diameter (ESD)": "esd_diameter", "Edge Gradient": "edge_gradient",
    "Elongation": "elongation", "Feret Angle Max": "feret_max_angle", "Feret Angle Min": "feret_min_angle",
    "Intensity": "intensity", "Length": "length", "Particles Per Chain": "ppc", "Perimeter": "perimeter",
    "Roughness": "roughness", "Sigma Intensity": "sigma_intensity", "Sum Intensity": "sum_intensity",
    "Symmetry": "symmetry", "Width": "width",
}  # fmt: skip
# Columns that must be whole numbers, from and to: a box that is none cannot be cut.
WHOLE = {
    "id": (0, 2**31), "image_x": (0, 2**20), "image_y": (0, 2**20), "image_w": (1, 8192), "image_h": (1, 8192),
    "src_x": (-(2**31), 2**31), "src_y": (-(2**31), 2**31), "cal_image": (0, 999_999),
}  # fmt: skip
REAL = (
    "cal_const", "fringe_size", "raw_area", "raw_filled_area", "raw_perimeter", "raw_convex_hull_area",
    "raw_feret_mean", "raw_legendre_major", "raw_legendre_minor", *STORED.values(),
)  # fmt: skip
NUMBERS = (*WHOLE, *REAL)
UNDEFINED = frozenset({"", "-nan", "-nan(ind)", "nan(ind)", "1.#qnan", "-1.#ind", "1.#ind", "1.#inf", "-1.#inf"})
"""How Windows programs print a value that has none, lower case."""
GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")

_Line = tuple[int, str]


def looks_like_listing(path: Path) -> bool:
    """Whether a file begins like a `.lst`: a version of digits only, then `num-fields|`."""
    try:
        with path.open("rb") as file:
            version, fields = file.readline(64), file.readline(64)
    except OSError:
        return False
    return bool(re.fullmatch(rb"(\xef\xbb\xbf)?\d{1,6}\s*", version)) and fields.startswith(b"num-fields|")


def read_listing(path: Path, chunk_rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """Read a `.lst` line by line, some rows at a time.

    Args:
        path: the file, UTF-8 or Latin-1, with or without byte order mark.
        chunk_rows: most rows a frame.

    Yields:
        A frame with the columns `NUMBERS` (float64, NaN where undefined; raw_* in px, others in µm as stored),
        `collage_file` and `image_id` (text; "" where there is none), `line` (whole, from 1) and `reject` (text:
        file, line and what is wrong with a row that cannot be used, else missing).

    Raises:
        UserError: the file is no listing, of an unknown version, cut in the header, lacks a column, has a decimal
            comma or names a collage outside of its folder.
    """
    try:
        with path.open("rb") as file:
            lines = _lines(file, path)
            names = _header(lines, path)
            rows = ((number, text) for number, text in lines if text.strip())
            while batch := list(islice(rows, chunk_rows)):
                yield _frame(batch, names, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[_Line]:
    number = 0
    while raw := file.readline(LONGEST_LINE):
        number += 1
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            raise UserError(f"{path}:{number}: longer than {LONGEST_LINE} bytes; this is no FlowCam listing")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:  # names typed on an older Windows
            text = raw.decode("latin-1")
        yield number, (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")


def _header(lines: Iterator[_Line], path: Path) -> list[str]:
    """The names of the columns, checked."""
    version = next(lines, (1, ""))[1].strip()
    if not re.fullmatch(r"[0-9]{1,6}", version):
        raise UserError(f"{path}:1: {_short(version)} where a version like 017 belongs; this is no FlowCam listing")
    if version not in KNOWN_VERSIONS:
        raise UserError(
            f"{path}:1: version {version} of the listing is not known, only {', '.join(KNOWN_VERSIONS)}, and its "
            "columns may mean other things; export the crops and give their folder"
        )
    fields = next(lines, (2, ""))[1]
    announced = re.fullmatch(r"num-fields\|([0-9]{1,4})\s*", fields)
    if announced is None:
        raise UserError(f"{path}:2: {_short(fields)} where num-fields|N belongs; copy the file again")
    named = list(islice(lines, int(announced[1])))
    for number, text in named:
        if text.count("|") != 1:
            raise UserError(f"{path}:{number}: {_short(text)} where name|type belongs; copy the file again")
    if len(named) < int(announced[1]):
        raise UserError(f"{path}: the header breaks off after {len(named)} of {announced[1]} columns; copy it again")
    return _checked([text.split("|")[0].strip() for _, text in named], path)


def _checked(names: list[str], path: Path) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the header names the column {_short(twice)} twice; copy the file again")
    missing = [name for name in (*NUMBERS, "collage_file") if name not in names]
    if missing:
        raise UserError(f"{path}: the listing lacks the column(s) {', '.join(missing)}; export it with all columns")
    return names


def _frame(batch: list[_Line], names: list[str], path: Path) -> pd.DataFrame:
    """Columns out of lines; the first fault of a row becomes its `reject`."""
    lines = [number for number, _ in batch]
    split = [text.split("|") for _, text in batch]
    faults: dict[int, str] = {}  # by place in the batch
    for place, fields in enumerate(split):
        if len(fields) != len(names):
            faults[place] = f"{len(fields)} fields instead of {len(names)}"
            split[place] = ["nan"] * len(names)
    texts = dict(zip(names, zip(*split, strict=True), strict=True))
    columns: dict[str, object] = {"line": lines}
    for name in NUMBERS:
        columns[name] = _numbers(texts[name], name, path, lines, faults)
    columns["collage_file"] = _collages(texts["collage_file"], path, lines, faults)
    columns["image_id"] = _guids(texts.get("image_id"), len(batch), faults)
    reject = pd.array([pd.NA] * len(batch), dtype="string")
    for place, fault in faults.items():
        reject[place] = f"{path.name}:{lines[place]}: {fault}"
    return pd.DataFrame(columns | {"reject": reject})


def _numbers(texts: Sequence[str], name: str, path: Path, lines: list[int], faults: dict[int, str]) -> np.ndarray:
    """(n,) float64, NaN where the instrument has no value."""
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError:
        values = np.array([_number(text) for text in texts])
        for place in np.flatnonzero(np.isnan(values)).tolist():
            text = texts[place]
            if _COMMA.fullmatch(text):
                raise UserError(
                    f"{path}:{lines[place]}: {name} is {_short(text)}, with a decimal comma; "
                    "save the listing with decimal points"
                ) from None
            if text.strip().lower() not in UNDEFINED and text.strip().lower() != "nan":
                faults.setdefault(place, f"{name} is {_short(text)}, not a number")
    values[np.isinf(values)] = math.nan
    if name in WHOLE:
        low, high = WHOLE[name]
        for place in np.flatnonzero(~((values >= low) & (values <= high) & (values == np.floor(values)))).tolist():
            fault = f"{name} is {_short(texts[place])}, not a whole number from {low} to {high}"
            faults.setdefault(place, fault)
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _collages(texts: Sequence[str], path: Path, lines: list[int], faults: dict[int, str]) -> list[str]:
    """File names with forward slashes, none of which leads out of the run's folder."""
    names = {text: text.strip().replace("\\", "/") for text in set(texts)}
    for text, name in names.items():
        if ".." in PurePosixPath(name).parts or name.startswith("/") or re.match("[A-Za-z]:", name) or "\0" in name:
            line = lines[texts.index(text)]
            raise UserError(
                f"{path}:{line}: collage_file {_short(text)} leads out of the run's folder; "
                "put the collages beside the listing and name them without a path"
            )
    for place, text in enumerate(texts):
        if not names[text]:
            faults.setdefault(place, "collage_file is empty")
    return [names[text] for text in texts]


def _guids(texts: Sequence[str] | None, n: int, faults: dict[int, str]) -> list[str]:
    if texts is None:
        return [""] * n
    for place, text in enumerate(texts):
        if not GUID.fullmatch(text.strip()):
            faults.setdefault(place, f"image_id is {_short(text)}, not a GUID")
    return [text.strip() for text in texts]


def _short(text: str) -> str:
    """What a file says, quoted for a message of one line."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def instrument_scalars(listing: pd.DataFrame) -> pd.DataFrame:
    """The 34 scalars of `particles.scalars.SCALARS`, stored or following from what is stored.

    They equal the exported table to its printed digits; only volumes inherit the four decimals of a diameter.

    Args:
        listing: a frame of `read_listing`.

    Returns:
        (N, 34) float64, NaN where undefined.
    """
    raw = {name: listing[name].to_numpy() for name in REAL}
    values = {name: raw[column] for name, column in STORED.items()}
    width, length, hull = values["Width"], values["Length"], raw["raw_convex_hull_area"]
    # Sides of the rectangle of that perimeter and area; rounder than a square there is none, hence the maximum.
    mean = raw["raw_perimeter"] / 4
    half_difference = np.sqrt(np.maximum(mean**2 - raw["raw_filled_area"], 0.0))
    long_side, short_side = mean + half_difference, mean - half_difference
    with np.errstate(divide="ignore", invalid="ignore"):
        values |= {
            # A straight line has no ellipse and no hull: the instrument takes the box and says 0.
            "Aspect Ratio": np.where(
                raw["raw_legendre_major"] > 0, raw["raw_legendre_minor"] / raw["raw_legendre_major"], width / length
            ),
            "Convexity": np.where(hull == 0, 0.0, np.minimum(raw["raw_filled_area"] / hull, 1.0)),
            "Biovolume (Cylinder)": math.pi / 4 * width**2 * length,
            "Biovolume (P. Spheroid)": math.pi / 6 * width**2 * length,
            "Circularity": 1 / values["Compactness"],
            "Fiber Curl": np.maximum(long_side * raw["cal_const"] / length - 1, 0.0),
            "Fiber Straightness": length / (long_side * raw["cal_const"]),
            "Geodesic Aspect Ratio": short_side / long_side,
            "Geodesic Length": long_side * raw["cal_const"],
            "Geodesic Thickness": short_side * raw["cal_const"],
            "Transparency": 1 - values["Diameter (ABD)"] / values["Diameter (ESD)"],
            "Volume (ABD)": math.pi / 6 * values["Diameter (ABD)"] ** 3,
            "Volume (ESD)": math.pi / 6 * values["Diameter (ESD)"] ** 3,
        }
    frame = pd.DataFrame({name: values[name] for name in SCALARS}, index=listing.index)
    return frame.replace([np.inf, -np.inf], math.nan)
