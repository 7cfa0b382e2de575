"""Command line -> frozen dataclass; what a user got wrong -> one line and exit code 2."""

import dataclasses
import errno
import shlex
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from provenance.energy import grams_per_kwh
from provenance.errors import UserError
from provenance.files import read_json

S = TypeVar("S")


def plain(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values (paths become text), so that checkpoints load without pickle."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return [convert(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return {k: convert(v) for k, v in dataclasses.asdict(settings).items()}


def from_plain(cls: type[S], values: dict[str, Any]) -> S:
    """The inverse of `plain`: rebuild a (nested) settings dataclass, refusing fields it does not have."""
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise UserError(f"config.json has settings this version does not know: {', '.join(sorted(unknown))}")
    return cls(**{name: _revive(hints[name], value) for name, value in values.items()})


def _revive(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value)
    if isinstance(value, list):
        return tuple(value)
    options = typing.get_args(hint)
    return Path(value) if isinstance(value, str) and (hint is Path or Path in options) else value


def parse(cls: type[S], argv: Sequence[str] | None = None, description: str | None = None) -> S:
    """Read `cls` from the command line.

    Args:
        cls: a frozen dataclass; nested dataclasses are flattened into one list of flags.
        argv: the arguments, default `sys.argv[1:]`. `--replay RUN` takes another run's `config.json` as the
            defaults, so that `--replay RUN --seed 3` repeats a run with one change; `--resume RUN` takes them too, and
            stays on the line, because the script itself goes on with that run.
        description: the text above `--help`.

    Raises:
        UserError: RUN has no readable `config.json`.
        SystemExit: with code 2 on a flag that does not exist or a value of the wrong type.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    args = [part for word in given for part in _unjoined(word)]
    default = None
    for flag in ("--replay", "--resume"):
        if flag in args:
            at = args.index(flag)
            if at + 1 >= len(args):
                raise UserError(f"{flag} needs the folder of a run, for example runs/vae/<id>")
            default = replayed(cls, Path(args[at + 1]))
            if flag == "--replay":
                del args[at : at + 2]
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    if default is None:
        return tyro.cli(cls, args=args, config=config, description=description)
    return tyro.cli(cls, args=args, default=default, config=config, description=description)


def changed_flags(settings: Any) -> list[str]:
    """The words that turn the defaults of a settings dataclass (nested ones included) into `settings`.

    Returns:
        E.g. `["--data", "lake", "--no-scalars"]`.
    """
    words: list[str] = []
    for part in dataclasses.fields(settings):
        value, flag = getattr(settings, part.name), f"--{part.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            words += changed_flags(value)
        elif value == part.default:
            continue
        elif isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def flags_of(*settings: Any) -> str:
    """The changed flags of several settings as text for a command to be copied, quoted where a shell needs it."""
    return shlex.join(word for part in settings for word in changed_flags(part))


def _unjoined(word: str) -> list[str]:
    """`--resume=RUN` as two words, because the settings of that run are needed before the line is read."""
    flag, equals, value = word.partition("=")
    return [flag, value] if equals and flag in ("--replay", "--resume") else [word]


def replayed(cls: type[S], run: Path) -> S:
    """The settings that the run in folder `run` was started with.

    Raises:
        UserError: it has none, or they are another script's.
    """
    try:
        return from_plain(cls, read_json(run / "config.json"))
    except (UserError, OSError, TypeError) as error:
        _refuse_of_another_script(run)
        raise UserError(
            f"{run}: no readable config.json to replay ({error}); give the folder of a run of the same script"
        ) from error


def _refuse_of_another_script(run: Path) -> None:
    """Say which script has made a run, and where that can go on with it, how; of a run that says nothing, nothing."""
    try:
        made_by, values = str(read_json(run / "run.json")["argv"][0]), read_json(run / "config.json")
    except (UserError, OSError, LookupError, TypeError):
        return
    here = Path(sys.argv[0]).name
    if Path(made_by).name == here:  # settings of an earlier version
        return
    onward = shlex.join(["python", made_by, "--replay", str(run), _GO_ON])
    way_out = f"`{onward}` goes on with it" if _holds_go_on(values) else f"give the folder of a run of {here}"
    raise UserError(f"{run}: {made_by} has made this run, and {here} does not take its settings; {way_out}")


_GO_ON = "--go-on"
"""The flag of scripts that train several models: --resume names one training, this one goes on with all of them."""


def _holds_go_on(values: Any) -> bool:
    return isinstance(values, dict) and ("go_on" in values or any(map(_holds_go_on, values.values())))


def _takes_go_on(cls: Any) -> bool:
    """Whether a settings dataclass, or one within it, has that flag."""
    hints = typing.get_type_hints(cls)
    return "go_on" in hints or any(_takes_go_on(hint) for hint in hints.values() if dataclasses.is_dataclass(hint))


_REPLAY = "--replay RUN takes the settings of the earlier run in that folder; further flags change them."


_ONE_GOES_ON = "packing and downloads go on with the same command, a training and an encoding with --resume RUN"
_ALL_GO_ON = (
    f"the same command with {_GO_ON} takes the models that it has finished, and goes on with the one it has not"
)


def entry(cls: type[S], main: Callable[[S], Any]) -> None:
    """Run an entry script: parse, call `main`, turn what the user can mend into one line and exit code 2."""
    try:
        settings = parse(cls, description=f"{main.__doc__}\n\n{_REPLAY}")
        grams_per_kwh()  # wrong, it is refused now, not by the first run after an hour of packing
        main(settings)
    except UserError as error:
        sys.exit(_complain(str(error)))
    except OSError as error:
        full = error.errno == errno.ENOSPC
        way_out = "free space and run again" if full else "check that the path exists and can be read and written"
        sys.exit(_complain(f"{error.filename or 'while writing'}: {error.strerror or error}; {way_out}"))
    except KeyboardInterrupt:
        onward = _ALL_GO_ON if _takes_go_on(cls) else _ONE_GOES_ON
        print(f"stopped; what is finished is kept: {onward}", file=sys.stderr)
        sys.exit(130)


def _complain(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2
