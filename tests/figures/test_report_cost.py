"""What the report says of time, energy and CO₂: each run once, nothing guessed."""

from pathlib import Path

import pytest
from planted_search import Config, Planted, plant

from figures.report import rendered
from figures.report_cost import amount, cost_of, stood_on
from figures.report_results import Results, results_of
from provenance.energy import Spent
from provenance.files import write_json
from provenance.run import Run, RunSettings, started

ROOT_ONLY = "the processor's counters are readable by root only"
NO_NVML = "nvidia-ml-py is not installed"


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return plant(tmp_path)


def results(planted: Planted) -> Results:
    return results_of(planted.particles, planted.consensus)


def everyone(planted: Planted) -> list[Run]:
    return [*planted.runs, *planted.clustered, planted.consensus]


def noted(run: Run, cpu: float | None, gpu: float | None = None, grams: float = 445, device: str = "cpu") -> None:
    missing = ({"cpu": ROOT_ONLY} if cpu is None else {}) | ({"gpu": NO_NVML} if gpu is None else {})
    run.record(device=device, **Spent(60.0, 90.0, {"cpu": cpu, "gpu": gpu}, missing).fields(grams))


def test_energy_is_summed_and_shown_by_run(planted: Planted) -> None:
    for number, run in enumerate(everyone(planted)):
        noted(run, cpu=float(number))
    noted(planted.runs[0], cpu=10.0, gpu=20.0, device="cuda:0")
    cost = cost_of(results(planted))
    assert cost.lines == (
        "All runs together: 5 min of wall time, 8 min of processor time, 40 Wh of energy (processor 20, GPU 20), "
        "17.8 g of CO₂.",
    )
    assert cost.table.header == ("Run", "Device", "Wall time", "Processor time", "Processor, Wh", "GPU, Wh", "CO₂, g")
    assert cost.table.rows[0] == ("classifier", "cuda:0", "60 s", "90 s", "10", "20", "13.3")
    assert cost.table.rows[-1] == ("consensus", "cpu", "60 s", "90 s", "4", "–", "1.78")
    assert [row[0] for row in cost.table.rows] == [run.kind for run in everyone(planted)]
    assert "whole processors and of all visible GPUs, with whatever else ran on them" in cost.table.note
    assert "CO₂ at 445 g/kWh, the world's average of 2024 (IEA)" in cost.table.note


def test_what_cannot_be_measured_is_said_with_the_reason(planted: Planted) -> None:
    for run in everyone(planted):
        noted(run, cpu=None)
    noted(planted.runs[1], cpu=None, device="cuda:0")
    cost = cost_of(results(planted))
    assert cost.lines == (
        "All runs together: 5 min of wall time, 8 min of processor time.",
        f"Energy and CO₂: not measurable on this machine ({NO_NVML}; {ROOT_ONLY}).",
    )
    assert cost.table.header == ("Run", "Device", "Wall time", "Processor time")
    page = rendered(results(planted))
    assert 'id="cost"' in page
    assert "Energy and CO₂: not measurable on this machine (nvidia-ml-py" in page


def test_a_gpu_that_was_not_used_is_not_missed(planted: Planted) -> None:
    for run in everyone(planted):
        noted(run, cpu=1.0)
    (line,) = cost_of(results(planted)).lines
    assert "5 Wh of energy (processor 5), 2.23 g of CO₂." in line


def test_a_sum_that_leaves_something_out_says_so(planted: Planted) -> None:
    for run in everyone(planted):
        noted(run, cpu=1.0)
    noted(planted.runs[1], cpu=1.0, device="cuda:0")
    noted(planted.clustered[0], cpu=None)
    cost = cost_of(results(planted))
    assert "at least 4 Wh of energy (processor 4), at least 1.78 g of CO₂." in cost.lines[0]
    assert cost.lines[1] == (
        "Energy of vae, clusters-classifier, whole or in part: not measurable on this machine "
        f"({NO_NVML}; {ROOT_ONLY})."
    )


def test_runs_of_an_earlier_version_have_noted_less(planted: Planted) -> None:
    later = ("cpu_seconds", "energy_wh", "not_measured", "co2_g", "g_co2_per_kwh")
    for run in everyone(planted):
        older = {name: value for name, value in run.info.items() if name not in later}
        write_json(run.path / "run.json", {**older, "seconds": 60.0})
    cost = cost_of(results(planted))
    assert cost.lines == (
        "All runs together: 5 min of wall time, an unknown amount of processor time.",
        "Energy and CO₂: not noted by an earlier version.",
    )
    assert cost.table.rows[0] == ("classifier", "–", "60 s", "–")


def test_other_factors_are_shown(planted: Planted) -> None:
    for run in everyone(planted):
        noted(run, cpu=1.0, grams=56)
    assert "CO₂ at 56 g/kWh." in cost_of(results(planted)).table.note
    noted(planted.consensus, cpu=1.0)
    assert "CO₂ at 56, 445 g/kWh." in cost_of(results(planted)).table.note


def test_no_run_is_counted_twice_and_none_forgotten(planted: Planted) -> None:
    """The models stand on one more run, which only their parents tell, and name each other's."""
    config = Config(common=RunSettings(work_dir=planted.work))
    with started("icelearning", config, config.common, planted.particles.identity) as before:
        pass
    for run in planted.runs:
        run.record(parents=[before.name])
    planted.runs[1].record(parents=[before.name, planted.runs[0].name])
    for run in (*everyone(planted), before):
        noted(run, cpu=1.0)
    runs, gone = stood_on(results(planted))
    assert (sorted(run.name for run in runs), gone) == (sorted(r.name for r in [*everyone(planted), before]), [])
    assert "All runs together: 6 min of wall time, 9 min of processor time, 6 Wh" in cost_of(results(planted)).lines[0]
    (before.path / "run.json").unlink()
    cost = cost_of(results(planted))
    assert "at least 5 min of wall time" in cost.lines[0]
    assert cost.lines[1] == f"Not counted, because they are gone: {before.name}."


def test_amounts_read_well() -> None:
    assert [amount(v) for v in (None, 0.0, 0.012345, 12.345, 123.4, 1234.5)] == [
        "–", "0", "0.0123", "12.3", "123", "1,234",
    ]  # fmt: skip
