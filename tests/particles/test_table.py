"""The particle table: its schema, and what it refuses."""

import re
from pathlib import Path

import pandas as pd
import pytest

from particles.table import ROW_COLUMNS, empty_rows, read_parquet, validated, write_parquet
from provenance.errors import UserError


def rows(n: int = 3) -> pd.DataFrame:
    table = empty_rows(n)
    table["particle_id"] = [f"GRIP_3046_0_20_1_{i}" for i in range(n)]
    table["image"] = [f"grip/{i}.png" for i in range(n)]
    table["role"] = "core"
    return table


def test_empty_rows_have_the_schema() -> None:
    table = empty_rows(2)
    assert {name: str(table[name].dtype) for name in table} == ROW_COLUMNS
    assert table.isna().all(axis=None)
    assert len(table) == 2


def test_validated_puts_types_right_and_keeps_values() -> None:
    table = rows().astype(object).assign(bag=[3046, 3046, None], top_cm=[0, 20, 40.0])
    good = validated(table.iloc[[2, 0, 1]], "lake")
    assert {name: str(good[name].dtype) for name in ROW_COLUMNS} == ROW_COLUMNS
    assert good["particle_id"].tolist() == ["GRIP_3046_0_20_1_2", "GRIP_3046_0_20_1_0", "GRIP_3046_0_20_1_1"]
    assert good["bag"].isna().tolist() == [True, False, False]
    assert good.index.tolist() == [0, 1, 2]


def refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        validated(table, "lake")
    assert str(error.value).startswith("lake: ")


def test_no_rows() -> None:
    refused(rows(0), "no particles found; give a folder with PNG, JPEG, TIFF or BMP")


def test_missing_columns_are_all_named() -> None:
    refused(rows().drop(columns=["role", "bag"]), r"lacks the column\(s\) role, bag")


def test_a_duplicate_names_both_images() -> None:
    table = rows(4)
    table.loc[3, "particle_id"] = table.loc[1, "particle_id"]
    refused(table, re.escape("'GRIP_3046_0_20_1_1' stands twice (grip/1.png, grip/3.png)"))


def test_a_missing_id_names_its_row() -> None:
    table = rows()
    table.loc[2, "particle_id"] = pd.NA
    refused(table, "row 2 has no particle_id")


@pytest.mark.parametrize(("role", "named"), [("train", r"\['train'\]"), (pd.NA, "missing")])
def test_a_wrong_role_is_named(role: object, named: str) -> None:
    table = rows()
    table.loc[1, "role"] = role
    refused(table, f"role must be one of labeled, core, not {named}")


def test_parquet_round_trip(tmp_path: Path) -> None:
    table = rows().assign(label=pd.array(["Grímsvötn", None, "dust"], dtype="string"))
    write_parquet(table, tmp_path / "a" / "table.parquet")
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a" / "table.parquet"), table)


def test_a_cut_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(rows(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_parquet(path)
    with pytest.raises(UserError, match=r"gone.parquet"):
        read_parquet(tmp_path / "gone.parquet")
