"""`--data PATH`: what a path is, is found out and said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_run import write_run

from benchmarks.icelearning_tree import make_tree
from particles.sets import DataSettings, find_source
from particles.sources.flowcam import FlowCam
from particles.sources.folder import Folder
from particles.sources.icelearning import IceLearning


def found(path: Path, **settings: object) -> tuple[object, str]:
    said: list[str] = []
    source = find_source(str(path), DataSettings(**settings), 0, said.append)  # type: ignore[arg-type]
    return source, said[-1]


def test_flowcam_runs_are_known_by_their_listing(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "photo.png")
    for folder in (tmp_path, tmp_path / "run"):
        source, said = found(folder, flat_field=True)
        assert source == FlowCam(folder.resolve(), flat_field=True)
        assert said == f"data: {folder} holds FlowCam runs"


def test_an_icelearning_tree_is_known_at_any_level(tmp_path: Path) -> None:
    datasets = make_tree(tmp_path, 30, seed=0)
    for folder in (tmp_path, datasets, datasets / "test" / "GRIP_raw"):
        assert found(folder) == (IceLearning(folder.resolve()), f"data: {folder} is an ICELEARNING tree")
    assert found(tmp_path, um_per_px=0.5)[0] == IceLearning(tmp_path.resolve(), 0.5)


def test_crops_with_a_table_of_something_else_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dust").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "dust" / "a.png")
    (tmp_path / "notes.csv").write_text("who,when\nme,today\n")
    source, said = found(tmp_path, um_per_px=0.2752)
    assert source == Folder(tmp_path.resolve(), 0.2752)
    assert said.endswith("is a folder of crops")


@pytest.mark.parametrize("name", ["GRIP_3046_0_20_1_7", "QCY_12_3_2_fc80_20x_7"])
def test_loose_crops_of_an_ice_core_know_where_they_come_from(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / f"{name}.png")
    rows = Folder(tmp_path).rows()
    assert rows["sample"].tolist() == [name.removesuffix("_7")]
    assert (rows["core"][0], rows["bag"][0]) == (("GRIP", 3046) if name.startswith("GRIP") else ("QCY", 12))
