"""What a search cost: time, energy, CO₂; each run once, with all that it stands on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from figures.report_results import Results
from figures.report_text import DASH, Table, duration, table
from provenance.energy import NOT_NOTED, OWN_GRID, WORLD_G_CO2_PER_KWH, Spent
from provenance.progress import listed
from provenance.run import Run

_PARTS = (("cpu", "processor"), ("gpu", "GPU"))
_TIMES = (
    "Each run once, with the runs that it stands on; what resumed runs cost is the sum over their stretches. Packing, "
    "drawing and the time between runs are not counted."
)
_ENERGY = (
    " Energy is that of whole processors and of all visible GPUs, with whatever else ran on them; memory, disks and "
    "cooling are not in it."
)


@dataclass(frozen=True)
class Bill:
    """What one run has noted."""

    kind: str
    device: str | None
    """`cpu`, `cuda:0`; None where it was not noted."""
    spent: Spent
    co2_g: float | None
    g_co2_per_kwh: float | None

    @property
    def missing(self) -> list[str]:
        """Why energy is missing: of the processor always, of a GPU only where the run used one."""
        used = ["cpu"] if self.device in (None, "cpu") else ["cpu", "gpu"]
        return [self.spent.not_measured[part] for part in used if self.spent.energy_wh[part] is None]


@dataclass(frozen=True)
class Cost:
    """The sum in words, and a row a run."""

    lines: tuple[str, ...]
    table: Table


def cost_of(results: Results) -> Cost:
    """What the runs of a search have cost, together and each."""
    runs, gone = stood_on(results)
    bills = [_bill(run) for run in runs]
    lines = [_summed(bills, bool(gone)), *_not_measured(bills)]
    if gone:
        lines.append(f"Not counted, because they are gone: {listed(gone)}.")
    return Cost(tuple(lines), _table(bills))


def stood_on(results: Results) -> tuple[list[Run], list[str]]:
    """The runs of a search and all that they stand on, each once, in the order in which they were started.

    Returns:
        The runs, and the names of those that are gone.
    """
    found: dict[str, Run] = {}
    gone: list[str] = []
    todo = list(results.all_runs)
    while todo:
        run = todo.pop()
        if run.name in found or run.name in gone:
            continue
        if not (run.path / "run.json").is_file():
            gone.append(run.name)
            continue
        found[run.name] = run
        todo += [Run(run.path.parents[1] / name) for name in run.info["parents"]]
    return sorted(found.values(), key=lambda run: (str(run.info["started"]), run.name)), sorted(gone)


def _bill(run: Run) -> Bill:
    info = run.info
    return Bill(run.kind, info.get("device"), Spent.of(info), info.get("co2_g"), info.get("g_co2_per_kwh"))


def _summed(bills: Sequence[Bill], more: bool) -> str:
    """One sentence; `at least` before a sum that leaves out what is not known.

    Args:
        bills: of the runs.
        more: whether there were runs that are gone.
    """
    seconds, cpu_seconds = (bill.spent.seconds for bill in bills), (bill.spent.cpu_seconds for bill in bills)
    parts = [
        _least(more, seconds, duration) + " of wall time", _least(more, cpu_seconds, duration) + " of processor time",
    ]  # fmt: skip
    if any(bill.spent.measured_wh is not None for bill in bills):
        more = more or any(bill.missing for bill in bills)
        shares = [f"{name} {amount(_sum(bills, part))}" for part, name in _PARTS if _sum(bills, part) is not None]
        energy = _least(more, (bill.spent.measured_wh for bill in bills), amount)
        parts += [
            f"{energy} Wh of energy ({', '.join(shares)})",
            _least(more, (bill.co2_g for bill in bills), amount) + " g of CO₂",
        ]
    return f"All runs together: {', '.join(parts)}."


def _least(more: bool, values: Iterable[float | None], said: Callable[[float], str]) -> str:
    values = list(values)
    known = [value for value in values if value is not None]
    if not known:
        return "an unknown amount"
    return ("at least " if more or len(known) < len(values) else "") + said(sum(known))


def _sum(bills: Sequence[Bill], part: str) -> float | None:
    known = [value for bill in bills if (value := bill.spent.energy_wh[part]) is not None]
    return sum(known) if known else None


def _not_measured(bills: Sequence[Bill]) -> list[str]:
    """Which energy is missing, and why."""
    lacking = [bill for bill in bills if bill.missing]
    reasons = sorted({reason for bill in lacking for reason in bill.missing} - {NOT_NOTED})
    why = f"not measurable on this machine ({'; '.join(reasons)})" if reasons else "not noted by an earlier version"
    if not lacking:
        return []
    if all(bill.spent.measured_wh is None for bill in bills):
        return [f"Energy and CO₂: {why}."]
    return [f"Energy of {listed([bill.kind for bill in lacking])}, whole or in part: {why}."]


def _table(bills: Sequence[Bill]) -> Table:
    """A row a run; columns of energy only where some was measured."""
    header = ["Run", "Device", "Wall time", "Processor time"]
    rows = [[b.kind, b.device, duration(b.spent.seconds), duration(b.spent.cpu_seconds)] for b in bills]
    for part, name in _PARTS:
        if _sum(bills, part) is not None:
            header.append(f"{name[0].upper()}{name[1:]}, Wh")
            for row, bill in zip(rows, bills, strict=True):
                row.append(amount(bill.spent.energy_wh[part]))
    note = _TIMES
    if any(bill.co2_g is not None for bill in bills):
        header.append("CO₂, g")
        for row, bill in zip(rows, bills, strict=True):
            row.append(amount(bill.co2_g))
        note += _ENERGY + _factor({bill.g_co2_per_kwh for bill in bills if bill.g_co2_per_kwh is not None})
    return table("What each run cost", header, rows, note)


def _factor(grams: set[float]) -> str:
    """What the CO₂ was reckoned with."""
    if grams == {WORLD_G_CO2_PER_KWH}:
        return f" CO₂ at {WORLD_G_CO2_PER_KWH:g} g/kWh, the world's average of 2024 (IEA); ${OWN_GRID} sets another."
    return f" CO₂ at {listed([f'{value:g}' for value in sorted(grams)])} g/kWh."


def amount(value: float | None) -> str:
    """Wh or grams to three digits: `0.0123`, `12.3`, `1,235`."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
