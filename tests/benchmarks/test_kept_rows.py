"""Rows of a table that a benchmark finds in its work folder are of the settings it was asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mnist_digits, troubles
from encoders.fit import FitSettings
from provenance.errors import UserError
from provenance.files import write_json
from provenance.settings import plain


def test_digits_are_judged_again_with_other_settings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class StoppedError(Exception):
        """Stands for the work."""

    def worked(*given: Any, **_: Any) -> None:
        asked.append(given)
        raise StoppedError

    monkeypatch.setattr(mnist_digits, "open_set", worked)
    settings = mnist_digits.Settings(digits=(3,), work_dir=tmp_path)
    with pytest.raises(StoppedError):
        mnist_digits._judged(3, settings)
    rows, how = [{"latent": "vae", "digit": 3}], plain(replace(settings, digits=(), work_dir=Path()))
    write_json(tmp_path / "without-3-0" / "rows.json", {"settings": how, "rows": rows})
    assert mnist_digits._judged(3, replace(settings, digits=(1, 3))) == rows
    assert len(asked) == 1
    with pytest.raises(StoppedError):
        mnist_digits._judged(3, replace(settings, chain=replace(settings.chain, pretrain_epochs=1)))


def test_troubles_of_other_settings_are_refused(tmp_path: Path) -> None:
    settings = troubles.Settings(work_dir=tmp_path)
    for seeds in ((0,), (1, 2)):
        troubles._refuse_other_settings(replace(settings, seeds=seeds))
    model = replace(settings.chain.model, fit=FitSettings(epochs=9))
    with pytest.raises(UserError, match="holds rows of other settings; give another --work-dir"):
        troubles._refuse_other_settings(replace(settings, chain=replace(settings.chain, model=model)))
