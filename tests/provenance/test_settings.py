"""The command line: flags in, frozen settings out; a user's mistake is one line and exit code 2."""

import errno
import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from provenance.errors import UserError
from provenance.files import write_json
from provenance.settings import changed_flags, entry, flags_of, from_plain, parse, plain


@dataclass(frozen=True)
class Inner:
    """Nested settings."""

    out: Path | None = None
    """A folder."""
    rate: float = 0.5
    """A number."""


@dataclass(frozen=True)
class Outer:
    """Settings of a made-up script."""

    names: tuple[str, ...] = ("a",)
    """Some names."""
    kind: Literal["ae", "vae"] = "ae"
    """One of two."""
    labels: bool = True
    """A switch."""
    where: Path = Path("here")
    """A path."""
    limit: int | None = None
    """Maybe a number."""
    inner: Inner = field(default_factory=Inner)
    """More."""


OTHER = Outer(("x", "y"), "vae", False, Path("/data/ice"), 7, Inner(Path("out"), 1e-3))
FLAGS = [
    "--names",
    "x",
    "y",
    "--kind",
    "vae",
    "--no-labels",
    "--where",
    "/data/ice",
    "--limit",
    "7",
    "--out",
    "out",
    "--rate",
    "1e-3",
]


@pytest.fixture
def replay(tmp_path: Path) -> str:
    """The folder of a run that was started with OTHER."""
    write_json(tmp_path / "old" / "config.json", plain(OTHER))
    return str(tmp_path / "old")


@pytest.mark.parametrize("settings", [Outer(), OTHER, Outer(names=())], ids=["defaults", "all changed", "empty tuple"])
def test_plain_round_trip_through_json(settings: Outer) -> None:
    values = json.loads(json.dumps(plain(settings)))
    assert from_plain(Outer, values) == settings


def test_plain_holds_json_values_only() -> None:
    assert plain(OTHER) == {
        "names": ["x", "y"], "kind": "vae", "labels": False, "where": "/data/ice", "limit": 7,
        "inner": {"out": "out", "rate": 1e-3},
    }  # fmt: skip


@pytest.mark.parametrize("values", [{"nmaes": ["a"]}, {"inner": {"rates": 1.0}}])
def test_settings_of_another_version_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"does not know: (nmaes|rates)"):
        from_plain(Outer, values)


def test_parse_defaults() -> None:
    assert parse(Outer, []) == Outer()


def test_parse_flags_of_all_levels_stand_in_one_list() -> None:
    assert parse(Outer, FLAGS) == OTHER


@pytest.mark.parametrize("settings", [Outer(), OTHER, Outer(labels=False, limit=3)])
def test_the_changed_flags_give_the_same_settings_again(settings: Outer) -> None:
    assert parse(Outer, changed_flags(settings)) == settings
    assert (changed_flags(settings) == []) == (settings == Outer())


def test_flags_for_a_command_come_back_from_the_shell() -> None:
    inner = Inner(Path("my crops/$site; ls"), 0.25)
    assert flags_of(Outer(names=("x",)), inner) == "--names x --out 'my crops/$site; ls' --rate 0.25"
    assert parse(Inner, shlex.split(flags_of(inner))) == inner
    assert flags_of(Outer(), Inner()) == ""


def test_replay_takes_all_settings_of_a_run(replay: str) -> None:
    assert parse(Outer, ["--replay", replay]) == OTHER


@pytest.mark.parametrize("order", [["--replay", "RUN", "--rate", "2"], ["--rate", "2", "--replay", "RUN"]])
def test_replay_with_one_change(replay: str, order: list[str]) -> None:
    parsed = parse(Outer, [replay if word == "RUN" else word for word in order])
    assert plain(parsed) == plain(OTHER) | {"inner": {"out": "out", "rate": 2.0}}


def test_replay_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no readable config.json to replay"):
        parse(Outer, ["--replay", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--replay needs the folder of a run"):
        parse(Outer, ["--replay"])


def test_replay_of_a_cut_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"names": ["x"')
    with pytest.raises(UserError, match=r"no readable config.json"):
        parse(Outer, ["--replay", str(tmp_path)])


@dataclass(frozen=True)
class Resumable:
    """Settings of a script that can go on."""

    epochs: int = 1
    """A number."""
    resume: Path | None = None
    """A run."""


def test_resume_takes_the_settings_and_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"epochs": 9, "resume": None})
    assert parse(Resumable, ["--resume", str(tmp_path)]) == Resumable(9, tmp_path)
    assert parse(Resumable, [f"--resume={tmp_path}"]) == Resumable(9, tmp_path), "or it would go on with the defaults"


@dataclass(frozen=True)
class Chained:
    """How several models are trained."""

    go_on: bool = False
    """A switch."""


@dataclass(frozen=True)
class Several:
    """Settings of a script that trains several models."""

    chain: Chained = field(default_factory=Chained)
    """The models."""


def made_by(script: str, settings: object, run: Path) -> Path:
    write_json(run / "config.json", plain(settings))
    write_json(run / "run.json", {"argv": [script, "--epochs", "3"]})
    return run


@pytest.mark.parametrize("flag", ["--resume", "--replay"])
def test_a_run_of_a_script_that_trains_several_models_names_it_and_its_flag(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_by("my tools/find_all.py", Several(), tmp_path / "vae" / "1")
    monkeypatch.setattr(sys, "argv", ["experiments/train_one.py"])
    with pytest.raises(UserError) as refused:
        parse(Resumable, [flag, str(run)])
    assert str(refused.value).startswith(f"{run}: my tools/find_all.py has made this run, and train_one.py does not")
    command = str(refused.value).split("`")[1]
    assert shlex.split(command) == ["python", "my tools/find_all.py", "--replay", str(run), "--go-on"]
    assert parse(Several, shlex.split(command)[2:]) == Several(Chained(go_on=True)), "and that command works"


def test_a_run_of_a_script_that_trains_one_model_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_by("train_other.py", OTHER, tmp_path / "vae" / "1")
    monkeypatch.setattr(sys, "argv", ["train_one.py"])
    with pytest.raises(
        UserError, match=r"train_other\.py has made this run.*; give the folder of a run of train_one\.py$"
    ):
        parse(Resumable, ["--resume", str(run)])


def test_a_run_of_another_version_of_the_same_script_says_what_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_by("/elsewhere/train_one.py", Several(), tmp_path / "vae" / "1")
    monkeypatch.setattr(sys, "argv", ["experiments/train_one.py"])
    with pytest.raises(UserError, match=r"no readable config.json to replay \(.* does not know: chain\)"):
        parse(Resumable, ["--resume", str(run)])


@pytest.mark.parametrize("argv", [["--nmaes", "x"], ["--limit", "many"], ["--kind", "gan"], ["--rate"]])
def test_a_wrong_flag_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Outer, argv)
    assert stopped.value.code == 2
    printed = "".join(capsys.readouterr())
    assert argv[0] in printed
    assert "Traceback" not in printed


def ends(
    error: BaseException | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...] = (),
) -> tuple[object, str]:  # fmt: skip
    """Exit code and stderr of an entry script whose work raises `error`."""

    def main(settings: Outer) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    code: object = 0
    try:
        entry(Outer, main)
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr().err


def test_entry_passes_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Outer] = []
    monkeypatch.setattr(sys, "argv", ["script.py", *FLAGS])
    entry(Outer, seen.append)
    assert seen == [OTHER]


def test_entry_is_quiet_when_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(None, monkeypatch, capsys) == (0, "")


def test_a_users_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ends(UserError("lake: no particles\n  found; give\tmore"), monkeypatch, capsys)
    assert (code, err) == (2, "error: lake: no particles found; give more\n")


def test_a_missing_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, err = ends(None, monkeypatch, capsys, ("--replay", str(tmp_path / "gone")))
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'gone'}: no readable config.json")
    assert err.count("\n") == 1


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ends(OSError(errno.ENOSPC, "No space left on device", "z.npy"), monkeypatch, capsys)
    assert (code, err) == (2, "error: z.npy: No space left on device; free space and run again\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/vae"),
            "runs/vae: Permission denied; check that the path exists and can be read and written",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "set.json"),
            "set.json: No such file or directory; check that the path exists and can be read and written",
        ),
        (OSError("bad\nmagic"), "while writing: bad magic; check that the path exists and can be read and written"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error, monkeypatch, capsys) == (2, f"error: {line}\n")


def test_control_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ends(KeyboardInterrupt(), monkeypatch, capsys)
    assert code == 130
    assert err.count("\n") == 1
    assert "--resume RUN" in err
    assert "--go-on" not in err


def test_control_c_of_several_models_names_the_flag_that_goes_on_with_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(settings: Several) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit) as stopped:
        entry(Several, main)
    err = capsys.readouterr().err
    assert (stopped.value.code, err.count("\n")) == (130, 1)
    assert "the same command with --go-on" in err
    assert "--resume" not in err, "which a script of several models refuses"


@pytest.mark.parametrize("error", [KeyError("ours"), ZeroDivisionError("ours")])
def test_a_defect_of_ours_is_not_dressed_up(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)):
        ends(error, monkeypatch, capsys)
