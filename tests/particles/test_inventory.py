"""Rows in frames of any length are the same rows; what is wrong with them is said before a crop is read."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from particles import packing
from particles.packing import pack
from particles.scalars import SCALARS, measure
from particles.sources.source import BadCrop
from particles.squares import PackSettings
from particles.table import empty_rows, read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.settings import entry

PLAIN = PackSettings(size=8, fit="native", scalars=False)


@dataclass(frozen=True)
class Nothing:
    """Settings of a command that has none."""


@dataclass(frozen=True)
class Streamed:
    """Twenty-three crops that are listed a few at a time."""

    n: int = 23
    step: int = 4
    size: int = 8
    name: str = "streamed"
    oriented: bool = False

    def whole(self) -> pd.DataFrame:
        rows = empty_rows(self.n)
        rows["particle_id"] = rows["image"] = [f"p{i}" for i in range(self.n)]
        rows["sample"], rows["volume_ml"], rows["role"] = "S1", 0.25, "core"
        return rows

    def rows(self) -> Iterator[pd.DataFrame]:
        whole = self.whole()
        for start in range(0, len(whole), self.step):
            yield whole.iloc[start : start + self.step]

    def read(self, row: Any) -> np.ndarray:
        i = int(row.image[1:])
        if i % 10 == 6:
            raise BadCrop(f"bad {i}")
        crop = np.full((7, 6), 200, np.uint8)
        crop[2:5, 1 : 2 + i % 4] = i
        return crop

    def describe(self) -> dict[str, Any]:
        return {"kind": "streamed", "n": self.n}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_ROWS", 5)
    monkeypatch.setattr(packing, "TASK_ROWS", 2)
    monkeypatch.setattr(packing.os, "cpu_count", lambda: 1)


def silent(line: str) -> None:
    """Messages are not what is tested."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("step", [1, 3, 5, 7, 23])
def test_frames_of_any_length_pack_to_the_same_bytes(tmp_path: Path, step: int) -> None:
    class Whole(Streamed):
        def rows(self) -> Any:
            return self.whole()

    pack(Whole(), tmp_path / "whole", PLAIN, silent)
    pack(Streamed(step=step), tmp_path / "streamed", PLAIN, silent)
    assert content(tmp_path / "streamed") == content(tmp_path / "whole")
    assert read_parquet(tmp_path / "whole" / "table.parquet")["volume_ml"].eq(0.25).all()


def test_the_table_has_a_row_group_for_each_shard(tmp_path: Path) -> None:
    pack(Streamed(), tmp_path, PLAIN, silent)
    file = pq.ParquetFile(tmp_path / "table.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    shards = [len(np.load(path)) for path in sorted((tmp_path / "pixels").iterdir())]
    assert groups == shards == [5, 4, 5, 4, 3]


def test_rows_rejected_while_listing_are_listed_and_never_read(tmp_path: Path) -> None:
    class Cut(Streamed):
        def whole(self) -> pd.DataFrame:
            reasons = ["line 7 has 3 fields" if i in (2, 21) else None for i in range(self.n)]
            rows = super().whole().assign(reject=pd.array(reasons, dtype="string"))
            rows.loc[[2, 21], "particle_id"] = "unreadable"  # nothing can be told apart here
            return rows

        def read(self, row: Any) -> np.ndarray:
            assert row.image not in ("p2", "p21")
            return super().read(row)

    pack(Cut(), tmp_path, PLAIN, silent)
    rejected = pd.read_csv(tmp_path / "rejected.csv")
    assert rejected["reason"].tolist() == ["line 7 has 3 fields", "bad 6", "bad 16", "line 7 has 3 fields"]
    assert rejected["image"].tolist() == ["p2", "p6", "p16", "p21"]
    assert read_json(tmp_path / "set.json")["n"] == 19
    assert "reject" not in read_parquet(tmp_path / "table.parquet")


def test_scalars_of_the_instrument_are_kept_and_the_others_measured_on_its_mask(tmp_path: Path) -> None:
    class Instrument(Streamed):
        def whole(self) -> pd.DataFrame:
            area = np.arange(self.n, dtype=float)
            area[1] = np.nan
            return super().whole().assign(um_per_px=0.5, **{"Area (ABD)": area})

        def mask(self, row: Any) -> np.ndarray:
            mask = np.zeros((7, 6), dtype=bool)
            mask[1:6, 1:5] = True
            return mask

        def fringe_px(self, row: Any) -> float:
            return 1.5

    source = Instrument(n=6)
    pack(source, tmp_path, PackSettings(size=8, fit="native"), silent)
    table = read_parquet(tmp_path / "table.parquet")
    np.testing.assert_array_equal(table["Area (ABD)"].to_numpy(float, na_value=np.nan), [0, np.nan, 2, 3, 4, 5])
    row = source.whole().iloc[4]
    wanted = measure(source.read(row), 0.5, source.mask(row), 1.5)
    for name in set(SCALARS) - {"Area (ABD)"}:
        assert table[name][4] == pytest.approx(wanted[name], nan_ok=True), name


def test_two_rows_of_one_id_are_refused_before_a_crop_is_read(tmp_path: Path) -> None:
    class Twice(Streamed):
        def whole(self) -> pd.DataFrame:
            return super().whole().replace({"particle_id": {"p17": "p3"}})

        def read(self, row: Any) -> np.ndarray:
            raise AssertionError("hours of work before the fault is said")

    with pytest.raises(UserError, match=r"streamed: particle_id 'p3' stands twice \(p3, p17\)"):
        pack(Twice(), tmp_path, PLAIN, silent)


def test_a_source_that_yields_nothing_has_no_particles(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="streamed: no particles found"):
        pack(Streamed(n=0), tmp_path, PLAIN, silent)


def test_a_killed_packing_does_not_list_again(tmp_path: Path) -> None:
    class Killed(Streamed):
        def read(self, row: Any) -> np.ndarray:
            if row.image == "p12":
                raise KeyboardInterrupt
            return super().read(row)

    class ListedBefore(Streamed):
        def rows(self) -> Any:
            raise AssertionError("the rows were listed before")

    with pytest.raises(KeyboardInterrupt):
        pack(Killed(), tmp_path / "cut", PLAIN, silent)
    pack(ListedBefore(), tmp_path / "cut", PLAIN, silent)
    pack(Streamed(), tmp_path / "whole", PLAIN, silent)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


KILLED = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from particles import packing
from particles.packing import pack
sys.path.insert(0, {tests!r})
from test_inventory import PLAIN, Streamed

@dataclass(frozen=True)
class Slow(Streamed):
    def read(self, row):
        time.sleep(0.004)
        return super().read(row)

packing.SHARD_ROWS, packing.TASK_ROWS = 5, 2
print("begun", flush=True)
pack(Slow(n=60), Path(sys.argv[1]), PLAIN)
"""


def test_kill_9_at_ten_random_moments_loses_nothing(tmp_path: Path) -> None:
    pack(Streamed(n=60), tmp_path / "whole", PLAIN, silent)
    script = KILLED.format(tests=str(Path(__file__).parent))
    moments = np.random.default_rng(0).uniform(0.0, 0.15, size=10)
    for after in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "cut")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)  # the workers too: a power cut spares nobody
        process.wait()
    pack(Streamed(n=60), tmp_path / "cut", PLAIN, silent)
    assert content(tmp_path / "cut") == content(tmp_path / "whole"), "no half-written file is left either"
    assert read_json(tmp_path / "cut" / "set.json")["n"] == 54


def test_an_unchanged_source_is_not_packed_twice(tmp_path: Path) -> None:
    class Unread(Streamed):
        def rows(self) -> Any:
            raise AssertionError("packed before")

    pack(Streamed(), tmp_path, PLAIN, silent)
    before = content(tmp_path)
    said: list[str] = []
    pack(Unread(), tmp_path, PLAIN, said.append)
    assert content(tmp_path) == before
    assert "has not changed" in said[0]
    pack(Streamed(n=9), tmp_path, PLAIN, silent)
    assert read_json(tmp_path / "set.json")["n"] == 8


@pytest.mark.parametrize("what", ["write_shard", "write_parquet"])
def test_a_full_disk_is_said_and_what_is_packed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    pack(Streamed(), tmp_path / "whole", PLAIN, silent)
    write = getattr(packing, what)

    def full_at_the_third(*arguments: Any) -> None:
        if any("00002" in str(argument) for argument in arguments if isinstance(argument, Path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/00002")
        write(*arguments)

    monkeypatch.setattr(packing, what, full_at_the_third)
    monkeypatch.setattr(sys, "argv", ["pack.py"])
    with pytest.raises(SystemExit) as ended:
        entry(Nothing, lambda _: pack(Streamed(), tmp_path / "cut", PLAIN, silent))
    assert ended.value.code == 2
    assert "error: /disk/00002: No space left on device; free space and run again" in capsys.readouterr().err
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut" / "parts").iterdir()}
    assert {"00000.parquet", "00001.parquet"} <= set(kept)
    monkeypatch.setattr(packing, what, write)
    pack(Streamed(), tmp_path / "cut", PLAIN, silent)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_folder_with_other_files_is_not_packed_into(tmp_path: Path) -> None:
    (tmp_path / "pixels").mkdir()
    (tmp_path / "pixels" / "thesis.tif").write_text("years")
    (tmp_path / ".gitignore").write_text("*")
    before = content(tmp_path)
    with pytest.raises(UserError, match="holds other files"):
        pack(Streamed(), tmp_path, PLAIN, silent)
    assert content(tmp_path) == before


def test_what_others_keep_beside_a_packed_set_stays(tmp_path: Path) -> None:
    pack(Streamed(), tmp_path, PLAIN, silent)
    (tmp_path / ".keep").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".env").write_text("mine")
    pack(Streamed(n=9), tmp_path, PLAIN, silent)
    assert (tmp_path / ".keep").exists()
    assert (tmp_path / "notes" / ".env").exists()


def test_a_set_says_who_measured_its_scalars_and_in_what(tmp_path: Path) -> None:
    class Instrument(Streamed):
        def whole(self) -> pd.DataFrame:
            return super().whole().assign(um_per_px=0.5, **{"Area (ABD)": 3.0})

    def info(source: Streamed, **settings: Any) -> tuple[str, bool]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        pack(source, folder, PackSettings(size=8, fit="native", **settings), silent)
        found = read_json(folder / "set.json")
        return found["scalars_by"], found["in_um"]

    assert info(Instrument(n=3)) == ("instrument", True)
    assert info(Instrument(n=3), instrument_scalars=False) == ("pixels", True)
    assert info(Streamed(n=3)) == ("pixels", False)
    assert info(Streamed(n=3), scalars=False) == ("nobody", False)
    own = read_parquet(tmp_path / "1" / "table.parquet")
    crop = Streamed().read(Streamed().whole().iloc[2])
    assert own["Area (ABD)"][2] == pytest.approx(measure(crop, 0.5)["Area (ABD)"]), "not the instrument's 3.0"
