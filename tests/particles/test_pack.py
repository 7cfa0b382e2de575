"""Packing: every row has its pixels, whoever packed it, however often it was killed."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from particles import pack as command
from particles import packing
from particles.packing import pack, pack_key
from particles.pixels import PixelStore
from particles.scalars import SCALARS
from particles.sets import DataSettings, open_set
from particles.sources.source import BadCrop
from particles.squares import PackSettings
from particles.table import empty_rows, read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import RunSettings

QUICK = PackSettings(scalars=False)


@dataclass(frozen=True)
class Made:
    """Crops made up from their number; every seventh is bad."""

    n: int = 23
    size: int = 8
    name: str = "made"
    oriented: bool = False
    version: int = 0

    def rows(self) -> pd.DataFrame:
        rows = empty_rows(self.n)
        rows["particle_id"] = rows["image"] = [str(i) for i in range(self.n)]
        rows["label"] = rows["truth"] = pd.array([f"kind{i % 2}" for i in range(self.n)], dtype="string")
        rows["role"] = "labeled"
        return rows

    def read(self, row: Any) -> np.ndarray:
        i = int(row.image)
        if i % 7 == 3:
            raise BadCrop(f"number {i}, which is bad")
        crop = np.full((6 + i % 5, 9), 200, np.uint8)
        crop[2:5, 2:6] = i % 200
        return crop

    def describe(self) -> dict[str, Any]:
        return {"kind": "made", "n": self.n, "version": self.version}


@dataclass(frozen=True)
class Killed(Made):
    """The same crops, but at one of them the power fails."""

    at: int = 0

    def read(self, row: Any) -> np.ndarray:
        if int(row.image) == self.at:
            raise KeyboardInterrupt
        return super().read(row)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_ROWS", 5)
    monkeypatch.setattr(packing, "TASK_ROWS", 2)
    monkeypatch.setattr(packing.os, "cpu_count", lambda: 1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in sorted((folder / "pixels").iterdir())}


def silent(line: str) -> None:
    """Messages are not what is tested."""


def test_every_row_has_its_own_pixels(tmp_path: Path, small_parts: None) -> None:
    pack(Made(), tmp_path, PackSettings(fit="native", size=12, scalars=False), silent)
    table = read_parquet(tmp_path / "table.parquet")
    info = read_json(tmp_path / "set.json")
    store = PixelStore([tmp_path / "pixels" / f"{n:05d}.npy" for n in range(info["shards"])])
    assert table["particle_id"].tolist() == [str(i) for i in range(23) if i % 7 != 3]
    assert (len(store), info["n"], info["rejected"], info["shards"]) == (20, 20, 3, 5)
    everything = store[np.arange(len(store))]
    for row, square in zip(table.itertuples(), everything, strict=True):
        crop = Made().read(row)
        assert (row.height_px, row.width_px, row.scale, row.background) == (*crop.shape, 1.0, 200.0)
        top = (12 - crop.shape[0]) // 2
        np.testing.assert_array_equal(square[top : top + crop.shape[0], 1:10], crop)


def test_rejected_crops_are_listed_in_order(tmp_path: Path, small_parts: None) -> None:
    said: list[str] = []
    pack(Made(), tmp_path, QUICK, said.append)
    rejected = pd.read_csv(tmp_path / "rejected.csv", dtype=str)
    assert rejected.to_numpy().tolist() == [[str(i), str(i), f"number {i}, which is bad"] for i in (3, 10, 17)]
    assert len(said) == 1
    assert said[0].startswith("3 of 23 crops left out")
    assert said[0].endswith("rejected.csv; most often (3): number 3, which is bad"), "whatever the number"


def test_scalars_are_measured_on_the_crop_in_its_scale(tmp_path: Path) -> None:
    class Scaled(Made):
        def rows(self) -> pd.DataFrame:
            return super().rows().assign(um_per_px=0.5)

    pack(Made(n=2), tmp_path / "px", PackSettings(), silent)
    pack(Scaled(n=2), tmp_path / "um", PackSettings(), silent)
    px, um = (read_parquet(tmp_path / unit / "table.parquet") for unit in ("px", "um"))
    assert px["Area (ABD)"].tolist() == [12.0, 12.0]
    assert um["Area (ABD)"].tolist() == [3.0, 3.0]
    assert (um["Aspect Ratio"] == px["Aspect Ratio"]).all()
    pack(Made(n=2), tmp_path / "none", QUICK, silent)
    assert read_parquet(tmp_path / "none" / "table.parquet")["Area (ABD)"].isna().all()


def test_mean_correction_shifts_crop_and_fill(tmp_path: Path) -> None:
    pack(Made(n=1), tmp_path, PackSettings(size=12, fit="native", mean_correction=True), silent)
    square = np.load(tmp_path / "pixels" / "00000.npy")[0]
    assert square[0, 0] == square[3, 1] == 128
    assert square.min() == 0, "200 levels darker than the background is clipped"
    assert read_parquet(tmp_path / "table.parquet")["background"].tolist() == [200.0], "of the crop as it came"


def test_workers_pack_the_same_bytes(tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[int] = []
    executor = packing.ProcessPoolExecutor

    def counted(workers: int, mp_context: multiprocessing.context.BaseContext) -> Any:
        pools.append(workers)
        return executor(workers, mp_context=mp_context)

    monkeypatch.setattr(packing, "ProcessPoolExecutor", counted)
    pack(Made(), tmp_path / "alone", PackSettings(), silent)
    assert pools == []
    monkeypatch.setattr(packing.os, "cpu_count", lambda: 2)
    pack(Made(), tmp_path / "together", PackSettings(), silent)
    assert pools == [2]
    assert content(tmp_path / "together") == content(tmp_path / "alone")


@pytest.mark.parametrize("at", [0, 5, 12, 22])
def test_a_killed_packing_goes_on(tmp_path: Path, small_parts: None, at: int) -> None:
    pack(Made(), tmp_path / "whole", QUICK, silent)
    with pytest.raises(KeyboardInterrupt):
        pack(Killed(at=at), tmp_path / "cut", QUICK, silent)
    assert not (tmp_path / "cut" / "set.json").exists()
    done = times(tmp_path / "cut") if at >= 5 else {}
    assert len(done) == at // 5
    pack(Made(), tmp_path / "cut", QUICK, silent)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert done.items() <= times(tmp_path / "cut").items(), "finished shards are not written again"


def test_a_kill_between_pixels_and_table_packs_the_part_again(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(Made(), tmp_path / "whole", QUICK, silent)
    write = packing.write_parquet

    def dies_at_the_second(frame: pd.DataFrame, path: Path) -> None:
        if path.stem == "00001":
            raise KeyboardInterrupt
        write(frame, path)

    monkeypatch.setattr(packing, "write_parquet", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        pack(Made(), tmp_path / "cut", QUICK, silent)
    monkeypatch.setattr(packing, "write_parquet", write)
    before = times(tmp_path / "cut")
    assert len(before) == 2
    pack(Made(), tmp_path / "cut", QUICK, silent)
    after = times(tmp_path / "cut")
    assert after["00000.npy"] == before["00000.npy"]
    assert after["00001.npy"] != before["00001.npy"]
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


CHANGES: list[Callable[[], tuple[Made, PackSettings]]] = [
    lambda: (Made(version=1), QUICK),
    lambda: (Made(), PackSettings(scalars=False, fit="squash")),
    lambda: (Made(), PackSettings(scalars=False, size=10)),
]


@pytest.mark.parametrize("change", CHANGES, ids=["source", "fit", "size"])
def test_half_a_packing_of_other_settings_is_thrown_away(
    tmp_path: Path, small_parts: None, change: Callable[[], tuple[Made, PackSettings]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(Killed(at=12), tmp_path / "cut", QUICK, silent)
    source, settings = change()
    assert pack_key(source, settings) != pack_key(Made(), QUICK)
    pack(source, tmp_path / "cut", settings, silent)
    pack(source, tmp_path / "whole", settings, silent)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_part_of_bad_crops_only_leaves_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_ROWS", 1)
    pack(Made(n=6), tmp_path, QUICK, silent)
    store = PixelStore([tmp_path / "pixels" / f"{n:05d}.npy" for n in range(6)])
    ids = read_parquet(tmp_path / "table.parquet")["particle_id"].tolist()
    assert ids == ["0", "1", "2", "4", "5"]
    assert store[[3, 4]].min(axis=(1, 2)).tolist() == [4, 5], "each crop's darkest grey is its number"


def test_the_key_follows_the_content_not_the_object() -> None:
    assert pack_key(Made(), PackSettings()) == pack_key(Made(), PackSettings())
    changed = [PackSettings(size=9), PackSettings(mean_correction=True), PackSettings(min_size=15)]
    assert len({pack_key(Made(), s) for s in [PackSettings(), *changed]}) == 4


def fingerprint(folder: Path, source: Made) -> str:
    pack(source, folder, PackSettings(size=12, fit="native", scalars=False), silent)
    return str(read_json(folder / "set.json")["fingerprint"])


def test_the_fingerprint_is_of_ids_labels_splits_and_pixels(tmp_path: Path) -> None:
    class Dot(Made):
        def read(self, row: Any) -> np.ndarray:
            crop = super().read(row)
            crop[2, 2] += row.image == "4"
            return crop

    class Renamed(Made):
        def rows(self) -> pd.DataFrame:
            return super().rows().replace({"label": {"kind1": "kind2"}})

    @dataclass(frozen=True)
    class Divided(Made):
        tests: int = 0

        def rows(self) -> pd.DataFrame:
            split = np.where(np.arange(self.n) < self.tests, "test", "train")
            return super().rows().assign(split=split)

    made = fingerprint(tmp_path / "a", Made())
    assert fingerprint(tmp_path / "b", Made(version=1)) == made, "the same data from elsewhere is the same data"
    assert len({made, fingerprint(tmp_path / "c", Dot()), fingerprint(tmp_path / "d", Renamed())}) == 3
    divided = {fingerprint(tmp_path / f"of {n}", Divided(version=n, tests=n)) for n in (5, 6)}
    assert len({made, *divided}) == 3, "what may be learned from has changed"


def test_nothing_is_left_over(tmp_path: Path, small_parts: None) -> None:
    pack(Made(), tmp_path, QUICK, silent)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "packing.json", "pixels", "rejected.csv", "set.json", "table.parquet",
    ]  # fmt: skip
    assert len(list((tmp_path / "pixels").iterdir())) == 5


def test_scalars_that_the_tables_lack_are_said(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Brought(Made):
        lacks: tuple[str, ...] = ()

        def rows(self) -> pd.DataFrame:
            return super().rows().assign(**{name: 1.0 for name in SCALARS if name not in self.lacks})

    def said(settings: PackSettings, source: Made) -> list[str]:
        lines: list[str] = []
        pack(source, tmp_path / str(len(list(tmp_path.iterdir()))), settings, lines.append)
        return lines

    two = Brought(n=2, lacks=("Width", "Area (ABD)"))
    assert said(PackSettings(), two) == ["not in the tables, measured from the pixels: Area (ABD), Width"]
    many = Brought(n=2, lacks=tuple(SCALARS)[:12])
    assert said(PackSettings(), many)[0].endswith(f"{tuple(SCALARS)[9]} and 2 more")
    own = PackSettings(instrument_scalars=False)
    assert said(PackSettings(), Brought(n=2)) == said(PackSettings(), Made(n=2)) == said(own, two) == []
    assert said(QUICK, two) == [], "and then they are measured by nobody"


def test_the_command_names_an_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "packed").touch()
    data = DataSettings(data=str(tmp_path / "lake"))
    with pytest.raises(UserError, match=r"^--out \S+/packed: is a file; give another folder"):
        command.main(command.Settings(out=tmp_path / "packed", data=data))


def test_no_rows_no_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made: no particles found"):
        pack(Made(n=0), tmp_path, QUICK, silent)


def test_the_command_packs_a_folder_for_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lake").mkdir()
    for i, (_, row) in enumerate(Made().rows().iloc[4:10].iterrows()):
        Image.fromarray(Made().read(row)).save(tmp_path / "lake" / f"{i}.png")
    data = DataSettings(data=str(tmp_path / "lake"), pack=PackSettings(size=12, fit="native", scalars=False))
    command.main(command.Settings(out=tmp_path / "packed", data=data))
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "packed")
    packed = open_set(DataSettings(data=str(tmp_path / "packed")), RunSettings(), silent)
    assert (packed.name, packed.pixels.size, len(packed.table)) == ("lake", 12, 6)
    assert packed.folder == (tmp_path / "packed").resolve()
    crop = np.asarray(Image.open(tmp_path / "lake" / "2.png"))
    top = (12 - crop.shape[0]) // 2
    np.testing.assert_array_equal(packed.pixels[[2]][0][top : top + crop.shape[0], 1:10], crop)


@pytest.mark.parametrize(
    ("given", "flag", "way_out"),
    [
        ({"core": "other"}, "--core", "pack it by itself"),
        ({"held_out": ("dust",)}, "--held-out", "give it to the training"),
        ({"extra_labels": Path("m.csv")}, "--extra-labels", "give it to the training"),
        ({"use_labels": False}, "--no-use-labels", "give it to the training"),
    ],
)
def test_the_command_refuses_what_no_packed_set_holds(
    given: dict[str, Any], flag: str, way_out: str, tmp_path: Path
) -> None:
    (tmp_path / "lake").mkdir()
    data = DataSettings(data=str(tmp_path / "lake"), **given)
    with pytest.raises(UserError, match=f"^{flag}: packing takes one set as it is; {way_out}"):
        command.main(command.Settings(out=tmp_path / "packed", data=data))
    assert not (tmp_path / "packed").exists()


def test_the_command_says_what_it_took_for_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("camp", "bag12"):
        (tmp_path / "lake" / name).mkdir(parents=True)
        Image.fromarray(Made().read(Made().rows().iloc[4])).save(tmp_path / "lake" / name / f"{name}.png")
    command.main(command.Settings(tmp_path / "packed", DataSettings(str(tmp_path / "lake"), pack=QUICK)))
    assert capsys.readouterr().out.splitlines()[-2].startswith("labels from subfolders: bag12 (1), camp (1); --no-use")


def test_pillow_agrees_with_the_store(tmp_path: Path) -> None:
    """A packed crop is what Pillow's own bilinear resize makes of it."""
    pack(Made(n=1), tmp_path, PackSettings(size=18, scalars=False), silent)
    square = np.load(tmp_path / "pixels" / "00000.npy")[0]
    crop = Image.fromarray(Made().read(Made().rows().iloc[0])).resize((18, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(square[3:15], np.asarray(crop))
    assert (square[[0, 1, 2, 15, 16, 17]] == 200).all()
