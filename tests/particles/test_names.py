"""Names of ICELEARNING particles: what they tell, what they do not, and that a column of them says the same."""

import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particles.names import CoreName, parse_name, parse_names, sample_of, samples_of

NUMBER = st.integers(0, 999_999_999)
TOLD = {
    "GRIP_3046_0_20_1_1081": (CoreName("GRIP", 3046, 0.0, 20.0, 1), "GRIP_3046_0_20_1"),
    "GRIP_3306_40_55_2": (CoreName("GRIP", 3306, 40.0, 55.0, 2), "GRIP_3306_40_55_2"),
    "grip_3046_0_20_1_000007": (CoreName("GRIP", 3046, 0.0, 20.0, 1), "grip_3046_0_20_1"),
    "QCY_27_3_2_fc80_20x_000001": (CoreName("QCY", 27, None, None, 2), "QCY_27_3_2_fc80_20x"),
    "QCY_27_3_2_fc80_20x": (CoreName("QCY", 27, None, None, 2), "QCY_27_3_2_fc80_20x"),
    "qcy_27_3_2_14": (CoreName("QCY", 27, None, None, 2), "qcy_27_3_2"),
    "QCY_27_3_2": (CoreName("QCY", 27, None, None, 2), "QCY_27_3_2"),
    "camp_11nov_4_fc80_20x_33": (CoreName(), "camp_11nov_4_fc80_20x"),
    "focustest_2nov_1_fc80_20x_20": (CoreName(), "focustest_2nov_1_fc80_20x"),
    "GRIP_3046_0_20": (CoreName(), "GRIP_3046_0"),
    "GRIP_3046_0_20_1_5_6": (CoreName(), "GRIP_3046_0_20_1_5"),
    "GRIP_3046_0_20_1\n": (CoreName(), "GRIP_3046_0_20_1\n"),
    "GRIP_٣_0_20_1": (CoreName(), "GRIP_٣_0_20"),
    "NOTGRIP_3046_0_20_1_5": (CoreName(), "NOTGRIP_3046_0_20_1"),
    "GRIP_99999999999_0_20_1_5": (CoreName(), "GRIP_99999999999_0_20_1"),
    "plot": (CoreName(), "plot"),
    "_7": (CoreName(), "_7"),
    "": (CoreName(), ""),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_name_tells_what_is_documented_and_no_more(name: str) -> None:
    assert (parse_name(name), sample_of(name)) == TOLD[name]


@settings(deadline=None)
@given(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def test_any_grip_name_gives_its_numbers_back(bag: int, top: int, bottom: int, repeat: int, particle: int) -> None:
    sample = f"GRIP_{bag}_{top}_{bottom}_{repeat}"
    assert parse_name(f"{sample}_{particle}") == CoreName("GRIP", bag, float(top), float(bottom), repeat)
    assert sample_of(f"{sample}_{particle}") == sample


PARTS = st.sampled_from(["GRIP", "qcy", "QCY", "_", "_1", "_20", "_3046", "_fc80_20x", "x", "\n", "é", "٣"])
ANY_NAME = st.one_of(st.lists(PARTS, max_size=8).map("".join), st.text(st.characters(codec="utf-8")))


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), ANY_NAME)))
def test_a_column_says_what_its_names_say(names: list[str | None]) -> None:
    column = pd.Series(names, dtype="string", index=range(5, 5 + len(names)))
    table = parse_names(column)
    assert table.index.equals(column.index)
    found = [tuple(None if pd.isna(value) else value for value in row) for row in table.itertuples(index=False)]
    assert found == [CoreName() if name is None else parse_name(name) for name in names]
    samples = [None if pd.isna(sample) else sample for sample in samples_of(column)]
    assert samples == [None if name is None else sample_of(name) for name in names]


def test_a_column_of_a_core_is_read_fast() -> None:
    names = pd.Series([f"GRIP_{3000 + i % 40}_0_20_1_{i}" for i in range(100_000)], dtype="string")
    start = time.process_time()
    table = parse_names(names)
    assert time.process_time() - start < 2, "0.1 s where this was written; three million names must stay cheap"
    assert table["bag"].iloc[[0, 41]].tolist() == [3000, 3001]
