"""Vectors and whose they are travel together."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from particles.latents import INDEX_COLUMNS, Latents, read_latents
from provenance.errors import UserError


@pytest.fixture
def latents() -> Latents:
    index = pd.DataFrame(
        {
            "particle_id": pd.array(["a", "b", "Öræfa"], dtype="string"),
            "label": pd.array(["dust", None, None], dtype="string"),
            "truth": pd.array(["dust", "diatom", None], dtype="string"),
            "role": pd.array(["labeled", "core", "core"], dtype="string"),
            "split": pd.array(["train", "train", "val"], dtype="string"),
            "is_outlier": pd.array([None, True, None], dtype="boolean"),
            "kl": [0.5, 1.5, np.nan],
        }
    )
    return Latents(np.array([[1, 2], [3, 4], [5, 6.1]]), index)


def test_round_trip(latents: Latents, tmp_path: Path) -> None:
    latents.write(tmp_path / "run")
    back = read_latents(tmp_path / "run")
    assert back.z.dtype == np.float32
    np.testing.assert_array_equal(back.z, latents.z.astype(np.float32))
    pd.testing.assert_frame_equal(back.index, latents.index)
    assert set(INDEX_COLUMNS) <= set(back.index)
    assert isinstance(back.z, np.memmap)
    assert len(back) == 3


def test_vectors_come_by_id_and_none_is_somebody_elses(latents: Latents) -> None:
    ids = latents.index["particle_id"].iloc[::-1].tolist()
    wanted = pd.Series([ids[2], "nobody", ids[0]])
    found = latents.of(wanted)
    where = latents.index["particle_id"].tolist()
    np.testing.assert_array_equal(
        found[[0, 2]], latents.z[[where.index(ids[2]), where.index(ids[0])]].astype(np.float32)
    )
    assert np.isnan(found[1]).all()
    assert found.dtype == np.float32


def test_where_keeps_vectors_and_rows_together(latents: Latents) -> None:
    core = latents.where(latents.index["role"] == "core")
    assert core.index["particle_id"].tolist() == ["b", "Öræfa"]
    assert core.index.index.tolist() == [0, 1]
    assert core.z.tolist() == [[3, 4], [5, 6.1]]
    assert len(latents.where(np.zeros(3, bool))) == 0


def test_a_vector_without_a_row_is_refused(latents: Latents) -> None:
    with pytest.raises(ValueError, match="2 vectors but 3 index rows"):
        Latents(latents.z[:2], latents.index)


@pytest.mark.parametrize("name", ["z.npy", "index.parquet"])
@pytest.mark.parametrize("left", [0, 20, None])
def test_a_cut_or_missing_file_is_named(latents: Latents, tmp_path: Path, name: str, left: int | None) -> None:
    latents.write(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if left is not None:
        (tmp_path / name).write_bytes(whole[:left])
    with pytest.raises(UserError, match=str(tmp_path)):
        read_latents(tmp_path)


def test_files_of_two_runs_do_not_mix(latents: Latents, tmp_path: Path) -> None:
    latents.write(tmp_path / "a")
    latents.where(latents.index["role"] == "core").write(tmp_path / "b")
    (tmp_path / "a" / "z.npy").replace(tmp_path / "b" / "z.npy")
    with pytest.raises(UserError, match="3 vectors but 2 index rows"):
        read_latents(tmp_path / "b")


def test_z_is_written_last(latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its presence says that both are there."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space"):
        latents.write(tmp_path / "run")
    assert not (tmp_path / "run" / "z.npy").exists()
