"""A file is there whole or not at all."""

import json
import math
from pathlib import Path

import pytest

from provenance.files import read_json, replacing, write_json


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"n": 3, "name": "Grímsvötn", "none": None, "nested": {"list": [1.5, True]}}
    write_json(tmp_path / "new" / "a.json", value)
    assert read_json(tmp_path / "new" / "a.json") == value
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8").endswith("}\n")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"auroc": 0.9})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auroc": math.nan})
    assert read_json(path) == {"auroc": 0.9}
    assert list(tmp_path.glob("*.json")) == [path]


def write(path: Path, text: str, error: BaseException | None = None) -> None:
    """Write by `replacing`, or fail half way."""
    with replacing(path) as beside:
        assert (beside.parent, beside.suffix) == (path.parent, path.suffix), "same disk; the suffix says the format"
        beside.write_text(text)
        if error:
            raise error


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="cut"):
        write(path, "half of the n", RuntimeError("cut"))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["table.parquet"]


def test_a_failed_first_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "z.npy"
    with pytest.raises(KeyboardInterrupt):
        write(path, "half", KeyboardInterrupt())
    assert list(path.parent.iterdir()) == []


def test_a_good_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    path.write_text("old")
    write(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["map.png"]


def test_paths_become_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": str(tmp_path)}
