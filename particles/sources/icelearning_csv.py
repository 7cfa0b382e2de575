"""The CSV files of ICELEARNING, block by block: numbers, image paths, class columns, and what is wrong with a line.

A line that cannot be used is told with its number and does not stop the rest. Fields are separated by commas,
semicolons or tabs; behind semicolons and tabs the decimal sign may be a comma.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from particles.scalars import SCALARS
from provenance.errors import UserError

PATHS, CALIBRATION = "imgpaths", "Calibration Factor"
OTHER_COLUMNS = frozenset(
    {
        "Particle ID", "Biovolume (Sphere)", CALIBRATION, "Calibration Image", "Camera", "Capture X", "Capture Y",
        "Date", "Elapsed Time", "Filter Score", "Image File", "Image Height", "Image Width", "Image X", "Image Y",
        "Sample", "Source Image", "Sphere Complement", "Sphere Count", "Sphere Unknown", "Sphere Volume", "Time",
        "Timestamp",
    }
)  # fmt: skip
"""What FlowCam exports beside the 34 scalars."""
BLOCK_ROWS = 20_000
LONGEST_HEADER = 1 << 16
FLOWCAM_FROM = 5
"""Scalars in a header from which it is a table of particles, whatever else it lacks."""
MISSING = frozenset({"", "na", "n/a", "#n/a", "null", "-", "nan", "-nan"})
"""What stands where a number is missing, in any case."""
_MISSING_SPELLED = sorted(
    {"".join(letters) for word in MISSING for letters in product(*zip(word.lower(), word.upper(), strict=True))}
)
"""Each in every mixture of cases, for a reader that compares letter by letter."""
_NUMBER = re.compile(r"\s*[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """One CSV file, as its header describes it."""

    path: Path
    name: str  # below the root, for messages
    separator: str
    decimal: str
    columns: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The one-hot columns: what follows `imgpaths` and is no column of FlowCam."""
        after = self.columns[self.columns.index(PATHS) + 1 :]
        return tuple(name for name in after if not _is_known(name) and name and not name.startswith("Unnamed"))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns that are read as numbers: the scalars, and the scale in µm per px."""
        return tuple(name for name in self.columns if name in SCALARS or name == CALIBRATION)


@dataclass(frozen=True)
class Block:
    """Up to `BLOCK_ROWS` lines of a table."""

    lines: np.ndarray  # (n,) line numbers in the file, of the rows of `frame`
    frame: pd.DataFrame  # (n, ...) float64 numbers, missing as NaN; paths and class columns as text
    reasons: dict[int, str]  # row of `frame` -> why it cannot be used
    broken: dict[int, str]  # line number -> why it is not in `frame`


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


_SPELLED = {_letters(name): name for name in SCALARS}


def _is_known(name: str) -> bool:
    return name in SCALARS or name in OTHER_COLUMNS or name == PATHS


def open_table(path: Path, name: str) -> Table | None:
    """Read a header and the first lines.

    Args:
        path: any CSV file.
        name: how messages call it.

    Returns:
        None if it is no table of particles: it has no `imgpaths` or no column of FlowCam.

    Raises:
        UserError: the file cannot be read, names a column twice, or its decimal sign cannot be told.
    """
    try:
        with path.open("rb") as file:
            header = _header(file)
            lines = [_text(line) for line in islice(file, 100)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend it or take it away") from error
    for separator in (",", ";", "\t"):
        columns = _columns(header, separator)
        if PATHS in columns and any(_is_known(column) for column in columns if column != PATHS):
            twice = [column for column in columns if column and columns.count(column) > 1]
            if twice:
                raise UserError(f"{path}, line 1: column '{twice[0]}' stands twice; remove one")
            _refuse_decimal_commas(path, columns, lines, separator)
            return Table(path, name, separator, _decimal(path, columns, lines, separator), columns)
    return None


def lacks_paths(path: Path) -> bool:
    """Whether a CSV file is a table of particles that does not say which images are theirs."""
    try:
        with path.open("rb") as file:
            header = _header(file)
    except OSError:
        return False
    names = max((_columns(header, separator) for separator in (",", ";", "\t")), key=len)
    return PATHS not in names and len(set(names) & SCALARS.keys()) >= FLOWCAM_FROM


def _header(file: BinaryIO) -> str:
    return _text(file.readline(LONGEST_HEADER)).removeprefix("\ufeff").rstrip("\r\n")


def _columns(header: str, separator: str) -> tuple[str, ...]:
    """Names in a header; of a scalar as FlowCam spells it, whatever its spaces, brackets and capitals are here."""
    names = (field.strip() for field in _fields(header, separator) or ())
    return tuple(_SPELLED.get(_letters(name), name) for name in names)


def _refuse_decimal_commas(path: Path, columns: tuple[str, ...], lines: list[str], separator: str) -> None:
    """Unquoted decimal commas between commas shift every field: nothing of such a file can be believed."""
    found = {line: len(_fields(text, separator) or columns) for line, text in enumerate(lines, 2) if text.strip()}
    if separator == "," and found and min(found.values()) > len(columns):
        line, number = next(iter(found)), next(name for name in columns if name in SCALARS or name in OTHER_COLUMNS)
        raise UserError(
            f"{path}, line {line}: {found[line]} fields under {len(columns)} columns, perhaps decimal commas from "
            f"column '{number}' on; save it with '.' in numbers, or with ';' between fields"
        )


def _decimal(path: Path, columns: tuple[str, ...], lines: list[str], separator: str) -> str:
    """The decimal sign that the first numbers use."""
    if separator == ",":
        return "."
    first: dict[str, str] = {}
    for number, line in enumerate(lines, 2):
        for column, field in zip(columns, _fields(line, separator) or (), strict=False):
            if column in SCALARS or column == CALIBRATION:
                for sign in (".", ","):
                    if field.count(sign) == 1 and _NUMBER.fullmatch(field.replace(sign, ".")):
                        first.setdefault(sign, f"line {number}, column '{column}': '{field[:40]}'")
    if len(first) > 1:
        raise UserError(
            f"{path}: decimal points and commas are mixed ({first['.']}; {first[',']}); save it with '.' in numbers"
        )
    return next(iter(first), ".")


def blocks(table: Table) -> Iterator[Block]:
    """The rows of a table, `BLOCK_ROWS` lines at a time.

    Raises:
        UserError: the file cannot be read to its end.
    """
    try:
        with table.path.open("rb") as file:
            file.readline()
            start = 2
            while lines := list(islice(file, BLOCK_ROWS)):
                yield _block(table, start, lines)
                start += len(lines)
    except OSError as error:
        raise UserError(f"{table.path}: cannot be read ({error.strerror}); mend it or take it away") from error


def _block(table: Table, start: int, lines: list[bytes]) -> Block:
    good: list[bytes] = []
    numbers: list[int] = []
    broken: dict[int, str] = {}
    separator = table.separator.encode()
    for number, raw in enumerate(lines, start):
        line = raw.rstrip(b"\r\n")
        if not line.strip():
            continue
        if b'"' in line or b"\r" in line:
            found = len(_fields(_text(line), table.separator) or ())
        else:
            found = line.count(separator) + 1
        if found == len(table.columns):
            good.append(line)
            numbers.append(number)
        else:
            cut = "" if raw.endswith(b"\n") else ", the file ends within this row"
            broken[number] = f"{table.name}:{number}: {found} fields under {len(table.columns)} columns{cut}"
    frame, reasons = _parsed(table, good, numbers)
    return Block(np.array(numbers, dtype=np.int64), frame, reasons, broken)


def _parsed(table: Table, lines: list[bytes], numbers: list[int]) -> tuple[pd.DataFrame, dict[int, str]]:
    """All at once if every number is one, else field by field to find out which is not."""
    if not any(b'"' in line for line in lines):
        try:
            return _parsed_fast(table, lines), {}
        except (pa.ArrowInvalid, UnicodeDecodeError):
            pass
    return _parsed_slowly(table, lines, numbers)


def _parsed_fast(table: Table, lines: list[bytes]) -> pd.DataFrame:
    texts = (PATHS, *table.classes)
    if not lines:
        return pd.DataFrame({name: [] for name in (*table.numbers, *texts)})
    data = b"\n".join(lines)
    data.decode()
    wanted = set(table.numbers) | set(texts)
    names = [name if name in wanted else f"{place}" for place, name in enumerate(table.columns)]
    parsed = arrow_csv.read_csv(
        io.BytesIO(data),
        arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
        arrow_csv.ParseOptions(delimiter=table.separator, quote_char=False),
        arrow_csv.ConvertOptions(
            include_columns=[*table.numbers, *texts],
            column_types=dict.fromkeys(table.numbers, pa.float64()) | dict.fromkeys(texts, pa.string()),
            null_values=_MISSING_SPELLED,
            decimal_point=table.decimal,
        ),
    )
    columns = {name: parsed[name].to_numpy(zero_copy_only=False) for name in table.numbers}
    return pd.DataFrame({**columns, **{name: parsed[name].to_pandas() for name in texts}})


def _parsed_slowly(table: Table, lines: list[bytes], numbers: list[int]) -> tuple[pd.DataFrame, dict[int, str]]:
    rows = [_fields(_text(line), table.separator) or [] for line in lines]
    place = {name: table.columns.index(name) for name in (*table.numbers, PATHS, *table.classes)}
    columns: dict[str, list[float] | list[str]] = {name: [row[place[name]] for row in rows] for name in place}
    reasons: dict[int, str] = {}
    for name in table.numbers:
        fields = [row[place[name]] for row in rows]
        columns[name] = [_number(field, table.decimal) for field in fields]
        for row, (field, value) in enumerate(zip(fields, columns[name], strict=True)):
            if value != value and field.strip().lower() not in MISSING:
                reasons.setdefault(row, f"{table.name}:{numbers[row]}: {name} is '{field[:40]}', not a number")
    return pd.DataFrame(columns), reasons


def _number(field: str, decimal: str) -> float:
    if decimal != ".":
        field = field.replace(".", " ").replace(decimal, ".")  # a point would be no decimal sign here: not a number
    return float(field) if _NUMBER.fullmatch(field) else np.nan


def _fields(line: str, separator: str) -> list[str] | None:
    """None where quotes do not pair or the line is not one line."""
    try:
        rows = list(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _text(line: bytes) -> str:
    """UTF-8, or else Latin-1, which every byte is a letter of."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
