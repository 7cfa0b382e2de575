"""What the names of ICELEARNING particles say: core, bag, depth in the bag, repeat, water sample.

Greenland (GRIP) names are `GRIP_<bag>_<top>_<bottom>_<repeat>[_<particle>]`, depths in cm within the bag.
Peruvian (Quelccaya) names are `QCY_<a>_<b>_<c>[_fc80_20x][_<particle>]`. The record does not say what the three
numbers are. Here `a` is taken for the bag and `c` for the repeat, as they stand in GRIP names; `b` is read as
nothing (it stays in the name of the sample) and there are no depths.
"""

import re
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_N = "([0-9]{1,9})"
_GRIP = f"GRIP_{_N}_{_N}_{_N}_{_N}"
_QCY = f"QCY_{_N}_{_N}_{_N}(?:_fc[0-9]+_[0-9]+x)?"
_PARTICLE = "_[0-9]+"
_GRIP_SAMPLE = re.compile(_GRIP, re.IGNORECASE)
_QCY_SAMPLE = re.compile(_QCY, re.IGNORECASE)
_WHOLE_SAMPLE = f"(?i)^(?:{_GRIP}|{_QCY})$"  # in the syntax that both re and RE2 read


class CoreName(NamedTuple):
    """Where in an ice core a particle was; all None where the name does not say."""

    core: str | None = None
    bag: int | None = None
    top_cm: float | None = None
    bottom_cm: float | None = None
    repeat: int | None = None


def parse_name(name: str) -> CoreName:
    """Read the name of a particle or a sample, in any case; see the module for what QCY names tell.

    Args:
        name: a file's stem or a folder's name, e.g. `GRIP_3046_0_20_1_1081`.

    Returns:
        E.g. `CoreName("GRIP", 3046, 0.0, 20.0, 1)`, depths in cm; all None for any other name.
    """
    return _parse_sample(sample_of(name))


def _parse_sample(sample: str) -> CoreName:
    if grip := _GRIP_SAMPLE.fullmatch(sample):
        bag, top, bottom, repeat = (int(number) for number in grip.groups())
        return CoreName("GRIP", bag, float(top), float(bottom), repeat)
    if qcy := _QCY_SAMPLE.fullmatch(sample):
        return CoreName("QCY", bag=int(qcy[1]), repeat=int(qcy[3]))
    return CoreName()


def sample_of(stem: str) -> str:
    """The water sample a particle was imaged in: its name without the trailing particle number.

    The name of a GRIP or QCY sample ends in a number too, and is returned as it is.
    """
    return str(samples_of(pd.Series([stem])).iloc[0])


def samples_of(stems: pd.Series) -> pd.Series:
    """`sample_of` for a column of names; missing ones stay missing.

    Returns:
        Text, with the index of `stems`.
    """
    names = pa.array(stems, type=pa.string(), from_pandas=True)
    cut = pc.replace_substring_regex(names, f"(.){_PARTICLE}$", r"\1")
    samples = pc.if_else(pc.match_substring_regex(names, _WHOLE_SAMPLE), names, cut)
    return pd.Series(samples.to_pandas().to_numpy(), index=stems.index, dtype="string", name="sample")


def parse_names(names: pd.Series) -> pd.DataFrame:
    """`parse_name` for a column of names, of which each sample is parsed once.

    Returns:
        Columns `core` (text), `bag`, `repeat` (whole), `top_cm`, `bottom_cm` (real), with the index of `names`.
    """
    codes, samples = pd.factorize(samples_of(names))
    parsed = pd.DataFrame([_parse_sample(sample) for sample in samples] or None, columns=list(CoreName._fields))
    typed = parsed.astype(
        {"core": "string", "bag": "Int64", "top_cm": "Float64", "bottom_cm": "Float64", "repeat": "Int64"}
    )
    return typed.reindex(codes).set_axis(names.index)  # the code of a missing name is -1, which no row has
