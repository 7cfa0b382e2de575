"""Progress bars, tables and lists of names in the terminal, one look for all commands."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

NARROWEST = 16
"""Letters to which long names in the first column of a table are folded, at least."""
_RULED = 3  # letters of a column beside its text: a space at either side and a rule


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


def progress() -> Progress:
    """A bar with count, rate and time left; where the output is no terminal it shows its end only."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def show_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers to three digits, what is missing as a dash.

    On a narrow terminal long names in the first column go on below; every number stays whole, if the lines must be
    longer than the terminal.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)] or [0] * len(header)
    widths[0] = min(widths[0], NARROWEST)
    table = Table(title=title, title_justify="left")
    for name, width in zip(header, widths, strict=True):
        side: JustifyMethod = "right" if table.columns else "left"
        table.add_column(name, justify=side, overflow="fold", min_width=width)
    for row in cells:
        table.add_row(*map(Text, row))  # of a name nothing is markup
    console = Console()
    needed = sum(width + _RULED for width in widths) + 1
    console.width = max(console.width, needed)
    console.print(table)


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
