import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from figures.curves import dimensions, draw_curves, panels_of
from provenance.errors import UserError


def metrics(epochs: int, kind: str) -> pd.DataFrame:
    fall = np.exp(-np.arange(epochs) / 3)
    frame = pd.DataFrame({"epoch": range(epochs), "train_loss": 40 * fall + 1, "val_loss": 42 * fall + 2})
    if kind == "classifier":
        return frame.assign(train_accuracy=1 - fall / 2, val_accuracy=1 - fall / 2, seconds=1.0)
    frame = frame.assign(train_reconstruction=fall, val_reconstruction=fall, train_kl=0.0, val_kl=0.0, active_units=3.0)
    if kind in ("vae", "planar-vae"):
        dims = {f"kl_dim_{d:02d}": fall * d for d in range(12)} if kind == "vae" else {}
        frame = frame.assign(train_kl=fall, val_kl=fall, kl_weight=1 - fall, **dims)
    return frame


@pytest.mark.parametrize(
    ("kind", "panels"),
    [
        ("classifier", ["Loss", "Accuracy"]),
        ("ae", ["Loss", "Active units"]),
        ("vae", ["Loss", "KL divergence and its weight", "KL per latent dimension", "Active units"]),
        ("planar-vae", ["Loss", "KL divergence and its weight", "Active units"]),
    ],
)
@pytest.mark.parametrize("epochs", [1, 5])
def test_each_kind_has_its_panels_even_after_one_epoch(
    kind: str, panels: list[str], epochs: int, tmp_path: Path
) -> None:
    frame = metrics(epochs, kind)
    assert list(panels_of(frame)) == panels
    frame.to_csv(tmp_path / "metrics.csv", index=False)
    width, height = Image.open(draw_curves(tmp_path / "metrics.csv", tmp_path / "c.png", "t")).size
    assert width == 44 + 74 + 2 * (700 + 150) - 20
    assert height == 44 + 48 + 34 + math.ceil(len(panels) / 2) * (400 + 168) - 12


@pytest.mark.parametrize(("kind", "lines"), [("ae", 2), ("vae", 4), ("planar-vae", 4)])
def test_a_variational_loss_is_drawn_with_its_reconstruction(kind: str, lines: int) -> None:
    frame = metrics(5, kind)
    axes = Figure().subplots()
    panels_of(frame)["Loss"](axes, frame)
    drawn = [line.get_label() for line in axes.lines]
    assert len(drawn) == lines
    assert ("validation, reconstruction only" in drawn) == (kind != "ae")


def test_a_loss_that_falls_far_has_plain_numbers_on_its_axis() -> None:
    frame = metrics(5, "classifier").assign(train_loss=[3.0, 1.0, 0.3, 0.1, 0.03])
    figure = Figure()
    axes = figure.subplots()
    panels_of(frame)["Loss"](axes, frame)
    figure.draw_without_rendering()
    assert axes.get_yscale() == "log"
    assert {"0.1", "1"} <= {label.get_text() for label in axes.get_yticklabels()}
    assert not [label.get_text() for label in axes.get_yticklabels(which="both") if "$" in label.get_text()]


def test_dimensions_are_in_the_latents_order() -> None:
    assert dimensions(pd.DataFrame(columns=["kl_dim_100", "kl_dim_02", "kl_weight", "kl_dim_10"])) == [
        "kl_dim_02",
        "kl_dim_10",
        "kl_dim_100",
    ]


def test_a_diverged_run_and_a_run_without_validation_are_drawn(tmp_path: Path) -> None:
    frame = metrics(3, "vae").drop(columns="val_loss").assign(val_kl=np.nan, kl_dim_03=np.nan)
    frame.loc[2, "train_loss"] = np.inf
    frame.to_csv(tmp_path / "m.csv", index=False)
    assert draw_curves(tmp_path / "m.csv", tmp_path / "c.png", "t").exists()


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("epoch,train_loss\n")
    for name in ("empty.csv", "missing.csv"):
        with pytest.raises(UserError, match=name):
            draw_curves(tmp_path / name, tmp_path / "c.png", "t")
    assert not (tmp_path / "c.png").exists()
