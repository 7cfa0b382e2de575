import pytest

from provenance.progress import show_table

LONG = "7-Pygsuia-3LB-SFSW-Terasakiella-sample2-replicate1-day7-11Apr2025"


@pytest.mark.parametrize(("columns", "longest"), [(2, 80), (5, 80), (12, 152)])
def test_long_names_are_folded_and_numbers_stay_whole(
    columns: int, longest: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = [f"{number:.1f}±0.4" for number in range(10, 10 + columns)]
    show_table("title", ["sample", *"abcdefghijkl"[:columns]], [[LONG, *numbers], ["[b]", *[None] * columns]])
    lines = capsys.readouterr().out.splitlines()
    assert all(any(number in line for line in lines) for number in numbers)
    names = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(names) == LONG + "[b]"
    assert max(map(len, lines)) <= longest


def test_values_are_written_to_three_digits(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("title", ["class", "share", "n"], [["dust", 0.12345, 7], ["camp", None, 8]])
    printed = capsys.readouterr().out
    assert "0.123" in printed
    assert "–" in printed
    show_table("title", ["class", "share"], [])
    assert "share" in capsys.readouterr().out
