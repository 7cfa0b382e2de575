"""Learning curves of one run: `python figures/curves.py --run runs/vae/<id>`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures import paper, style
from figures.finished import Redraw, opened
from provenance.errors import UserError
from provenance.run import TRAINED_BY, Run
from provenance.settings import entry

_TRAIN, _VAL, _OTHER = "#0072B2", "#D55E00", "#6a6a6a"
_WIDTH, _HEIGHT = 700, 400  # px of one panel's frame
_MARGIN, _LEFT, _BETWEEN, _BELOW = 44, 74, 150, 168  # px
_LOG_FROM = 20.0  # a curve that falls by more than this factor is shown on a logarithmic axis
_FEW_EPOCHS = 3  # below this a strip over epochs shows nothing that bars do not

Panel = Callable[[Axes, pd.DataFrame], None]


def main(settings: Redraw) -> None:
    """Draw the learning curves of a finished training run again."""
    run = opened(settings.run, tuple(TRAINED_BY), needs="metrics.csv")
    with settings.formats:
        print(draw_run(run, settings.folder(run)))


def draw_run(run: Run, folder: Path) -> Path:
    """Draw the curves of a training run into `folder`/curves-<kind>.png; below the title, what troubled it."""
    troubles = [str(one["line"]).partition(":")[0] for one in run.info.get("troubles", [])]
    below = "; ".join([run.name, *dict.fromkeys(troubles)])
    return draw_curves(run.path / "metrics.csv", folder / f"curves-{run.kind}.png", f"Training: {run.kind}", below)


def draw_curves(metrics_csv: Path, path: Path, title: str, subtitle: str | None = None) -> Path:
    """Draw a run's metrics.csv: loss, accuracy, KL and its weight, KL per dimension, active units.

    Args:
        metrics_csv: one row an epoch: `epoch`, `train_loss`, `val_loss`; from a classifier `train_accuracy`,
            `val_accuracy`; from an autoencoder `*_reconstruction`, `*_kl`, `kl_weight`, `active_units` and,
            where its KL is a sum over dimensions, `kl_dim_00`, ... in nats.
        path: PNG to write.
        title: above the panels.
        subtitle: a fainter line below the title.

    Returns:
        `path`.

    Raises:
        UserError: the file cannot be read or has no rows.
    """
    metrics = _read(metrics_csv)
    panels = panels_of(metrics)
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    head = _MARGIN + style.heading_height(subtitle) + 34
    width = _MARGIN + _LEFT + columns * (_WIDTH + _BETWEEN) - 20
    height = head + rows * (_HEIGHT + _BELOW) - 12
    with paper.picture(path, width, height) as figure:
        style.heading(style.page(figure), _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        for number, (name, panel) in enumerate(panels.items()):
            left = _MARGIN + _LEFT + number % columns * (_WIDTH + _BETWEEN)
            axes = style.axes_at(figure, left, head + number // columns * (_HEIGHT + _BELOW), _WIDTH, _HEIGHT)
            axes.set_title(name)
            panel(axes, metrics)
    return path


def _read(metrics_csv: Path) -> pd.DataFrame:
    try:
        metrics = pd.read_csv(metrics_csv)
    except (OSError, ValueError) as error:
        raise UserError(f"{metrics_csv}: cannot be read as CSV ({error}); train again") from error
    if metrics.empty or "epoch" not in metrics:
        raise UserError(f"{metrics_csv}: holds no epochs; train again")
    return metrics.assign(epoch=metrics["epoch"] + 1)  # people count from one, as --epochs does


def panels_of(metrics: pd.DataFrame) -> dict[str, Panel]:
    """The panels that these columns can fill, by name."""
    panels: dict[str, Panel] = {"Loss": _loss}
    if has_any(metrics, ["train_accuracy", "val_accuracy"]):
        panels["Accuracy"] = _accuracy
    if variational(metrics):
        panels["KL divergence and its weight"] = _kl
    if dimensions(metrics):  # a flow mixes the dimensions: its KL is no sum over them
        panels["KL per latent dimension"] = _kl_per_dimension
    if has_any(metrics, ["active_units"]):
        panels["Active units"] = _active_units
    return panels


def has_any(metrics: pd.DataFrame, names: list[str]) -> bool:
    """Whether one of the columns is there with at least one value."""
    return any(name in metrics and metrics[name].notna().any() for name in names)


def variational(metrics: pd.DataFrame) -> bool:
    """Whether there is a KL; a plain autoencoder logs zeros."""
    return has_any(metrics, ["val_kl"]) and bool(metrics["val_kl"].any())


def dimensions(metrics: pd.DataFrame) -> list[str]:
    """The columns `kl_dim_00`, `kl_dim_01`, ... in the order of the latent's dimensions."""
    return sorted((name for name in metrics if str(name).startswith("kl_dim_")), key=style.natural)


# --- panels


def _loss(axes: Axes, metrics: pd.DataFrame) -> None:
    _lines(axes, metrics, {"train_loss": ("train", _TRAIN, "-"), "val_loss": ("validation", _VAL, "-")})
    if variational(metrics):
        parts = {
            "train_reconstruction": ("train, reconstruction only", _TRAIN, ":"),
            "val_reconstruction": ("validation, reconstruction only", _VAL, ":"),
        }
        _lines(axes, metrics, parts)
    shown = [name for name in ("train_loss", "val_loss") if name in metrics]
    values = metrics[shown].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > _LOG_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the own one writes TeX, which no style reads
        axes.yaxis.set_minor_formatter(NullFormatter())
    _over_epochs(axes, metrics, "nats per image")


def _accuracy(axes: Axes, metrics: pd.DataFrame) -> None:
    _lines(axes, metrics, {"train_accuracy": ("train", _TRAIN, "-"), "val_accuracy": ("validation", _VAL, "-")})
    low = metrics[[c for c in ("train_accuracy", "val_accuracy") if c in metrics]].min().min()
    axes.set_ylim(max(0.0, float(low) - 0.05) if np.isfinite(low) else 0.0, 1.005)
    _over_epochs(axes, metrics, "share of images")


def _kl(axes: Axes, metrics: pd.DataFrame) -> None:
    _lines(axes, metrics, {"train_kl": ("train", _TRAIN, "-"), "val_kl": ("validation", _VAL, "-")})
    low, high = axes.get_ylim()
    low = min(0.0, low)
    axes.set_ylim(low, high + 0.05 * (high - low))  # the curves' own margin is small beside the way down to 0
    if has_any(metrics, ["kl_weight"]):
        right = axes.twinx()
        _lines(right, metrics, {"kl_weight": ("weight (right axis)", _OTHER, "--")})
        right.set_ylim(0, 1.05 * max(1.0, float(metrics["kl_weight"].max())))
        right.set_ylabel("weight of the KL")
        right.spines["right"].set_visible(True)
        axes.plot([], [], "--", color=_OTHER, label="weight (right axis)")
    _over_epochs(axes, metrics, "nats per image")


def _kl_per_dimension(axes: Axes, metrics: pd.DataFrame) -> None:
    """A strip over epochs, dimensions sorted by what they carry at the end; bars where epochs are too few."""
    names = dimensions(metrics)
    last = metrics[names].iloc[-1].to_numpy(dtype=float)
    order = np.argsort(-np.nan_to_num(last), kind="stable")
    if len(metrics) < _FEW_EPOCHS:
        axes.bar(np.arange(1, len(names) + 1), last[order], color=_VAL, width=0.85)
        axes.set(xlabel="dimension, sorted by its KL", ylabel=f"nats, epoch {int(metrics['epoch'].iloc[-1])}")
        axes.xaxis.set_major_locator(_whole(8))
        axes.set_xlim(0.2, len(names) + 0.8)
        return
    strip = metrics[names].to_numpy(dtype=float)[:, order].T
    first, final = float(metrics["epoch"].iloc[0]), float(metrics["epoch"].iloc[-1])
    extent = (first - 0.5, final + 0.5, len(names) + 0.5, 0.5)
    colors = style.amount_colors()
    image = axes.imshow(strip, aspect="auto", interpolation="nearest", cmap=colors, extent=extent, vmin=0)
    axes.set(xlabel="epoch", ylabel="dimension, sorted by final KL")
    axes.xaxis.set_major_locator(_whole(8))
    axes.yaxis.set_major_locator(_whole(6))
    _bar_beside(axes, image)


def _bar_beside(axes: Axes, image: AxesImage) -> None:
    """A colorbar within the panel's width, so that it does not reach into the next panel."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    box, px = axes.get_position(), 1 / (figure.get_size_inches()[0] * style.DPI)
    axes.set_position((box.x0, box.y0, box.width - 104 * px, box.height))
    beside = figure.add_axes((box.x1 - 90 * px, box.y0, 16 * px, box.height))
    bar = figure.colorbar(image, cax=beside, label="nats")
    bar.outline.set(visible=False)


def _active_units(axes: Axes, metrics: pd.DataFrame) -> None:
    _lines(axes, metrics, {"active_units": ("validation", _VAL, "-")})
    count = len(dimensions(metrics))
    if count:
        axes.axhline(count, color=_OTHER, linestyle="--", linewidth=1, label=f"all {count} dimensions")
    axes.set_ylim(0, 1.08 * max(count, float(metrics["active_units"].max()), 1))
    axes.yaxis.set_major_locator(_whole(6))
    _over_epochs(axes, metrics, "dimensions in use")


# --- lines


def _lines(axes: Axes, metrics: pd.DataFrame, lines: dict[str, tuple[str, str, str]]) -> None:
    """Lines by column: (name, color, dashes); dots where epochs are few, so that a single one can be seen."""
    marker = "o" if len(metrics) <= 30 else ""
    for column, (name, color, dashes) in lines.items():
        if has_any(metrics, [column]):
            axes.plot(
                metrics["epoch"],
                metrics[column],
                dashes,
                color=color,
                marker=marker,
                markersize=3.2,
                label=name,
            )


def _over_epochs(axes: Axes, metrics: pd.DataFrame, unit: str) -> None:
    axes.set(xlabel="epoch", ylabel=unit)
    axes.grid(axis="y")
    first, last = float(metrics["epoch"].iloc[0]), float(metrics["epoch"].iloc[-1])
    room = max(0.02 * (last - first), 0.5 if last == first else 0.1)
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(_whole(8))
    entries = len(axes.get_legend_handles_labels()[0])
    if entries:  # below the axis: within it, it hides a curve sooner or later
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.14), ncols=2 if entries > 3 else 3)


def _whole(most: int) -> MaxNLocator:
    """Ticks at whole numbers only, even if that is one tick."""
    return MaxNLocator(most, integer=True, min_n_ticks=1)


if __name__ == "__main__":
    entry(Redraw, main)
