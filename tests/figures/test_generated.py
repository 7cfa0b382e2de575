from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from figures import style
from figures.generated import _GAP, _HEAD, _LEFT, _MARGIN, SIDE, draw_run, draw_samples, draw_traversals
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import Run


def test_traversals_stand_in_rows_of_dimensions_and_columns_of_steps(tmp_path: Path) -> None:
    levels = np.array([[10, 60], [110, 160], [210, 250]], np.uint8)
    images = np.broadcast_to(levels[..., None, None], (3, 2, 4, 4))
    path = draw_traversals(images, [5, 0, 31], [2.5, 1.0, 0.1], [-3, 3], tmp_path / "t.png", "t")
    drawn = np.asarray(Image.open(path).convert("RGB"))
    top = _MARGIN + style.heading_height("said") + _HEAD
    for (row, column), level in np.ndenumerate(levels):
        y, x = top + row * (SIDE + _GAP), _MARGIN + _LEFT + column * (SIDE + _GAP)
        assert (drawn[y + 2 : y + SIDE - 2, x + 2 : x + SIDE - 2] == level).all()


def test_samples_are_enlarged_without_smoothing_and_odd_counts_fit(tmp_path: Path) -> None:
    image = np.array([[0, 255], [255, 0]], np.uint8)
    path = draw_samples(np.stack([image] * 5), tmp_path / "s.png", "t")
    drawn = np.asarray(Image.open(path).convert("L"))
    y, x = _MARGIN + style.heading_height("said") + SIDE + _GAP, _MARGIN + SIDE + _GAP
    shown = drawn[y + 2 : y + SIDE - 2, x + 2 : x + SIDE - 2]
    assert set(np.unique(shown)) == {0, 255}
    assert draw_samples(np.zeros((0, 4, 4), np.uint8), tmp_path / "0.png", "t").exists()


def test_a_run_without_arrays_draws_nothing_and_a_cut_one_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "vae" / "id")
    run.path.mkdir(parents=True)
    assert draw_run(run, tmp_path) == []
    (run.path / "samples.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"samples\.npy"):
        draw_run(run, tmp_path)
    np.save(run.path / "samples.npy", np.zeros((4, 4, 4), np.uint8))
    np.save(run.path / "traversals.npy", np.zeros((2, 3, 4, 4), np.uint8))
    write_json(run.path / "traversals.json", {"dimensions": [0], "kl": [1.0], "steps": [-1, 0, 1]})
    with pytest.raises(UserError, match=r"does not fit traversals\.json"):
        draw_run(run, tmp_path)
