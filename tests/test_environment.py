"""One environment: what pyproject.toml asks for, requirements.lock pins, and environment.yml installs."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).resolve().parent.parent
LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
ENVIRONMENT = (PROJECT / "environment.yml").read_text(encoding="utf-8")
CITATION = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
PROJECT_TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [Requirement(r) for r in [*PROJECT_TABLE["dependencies"], *PROJECT_TABLE["optional-dependencies"]["dev"]]]
PYTHONS = ("3.11", "3.12", "3.13")


@cache
def locked() -> dict[str, list[tuple[Version, Marker | None, list[str]]]]:
    """Name -> its pins, each with the condition it holds under and its hashes."""
    joined = re.sub(r"\\\n\s*", " ", LOCK)
    pins: dict[str, list[tuple[Version, Marker | None, list[str]]]] = {}
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *options = re.split(r"\s--", line)
        pin = Requirement(requirement.strip())
        (exact,) = pin.specifier
        assert exact.operator == "==", line
        hashes = [option.strip() for option in options]
        pins.setdefault(canonicalize_name(pin.name), []).append((Version(exact.version), pin.marker, hashes))
    return pins


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_what_is_asked_for(wanted: Requirement, python: str) -> None:
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
             "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
             "implementation_name": "cpython", "platform_python_implementation": "CPython"}  # fmt: skip
    pins = locked().get(canonicalize_name(wanted.name), [])
    valid = [version for version, marker, _ in pins if marker is None or marker.evaluate(where)]
    assert len(valid) == 1, f"{wanted.name} has {len(valid)} pins for Python {python}"
    assert wanted.specifier.contains(valid[0]), f"{wanted} but {valid[0]} is locked"


def test_every_pin_has_hashes() -> None:
    assert len(locked()) > 50
    for name, pins in locked().items():
        for _, _, hashes in pins:
            assert hashes, name
            assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", h) for h in hashes), name


def test_no_pin_is_a_pre_release() -> None:
    assert not [name for name, pins in locked().items() for version, _, _ in pins if version.is_prerelease]


def test_the_lock_names_no_host() -> None:
    """Whoever installs decides where from."""
    assert not re.search(r"://|@ |^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b", LOCK, re.MULTILINE)


def test_conda_installs_the_lock() -> None:
    items = re.findall(r"^\s*- (.+)$", ENVIRONMENT, re.MULTILINE)
    assert "-r requirements.lock" in items
    assert "--require-hashes" in items
    assert {"conda-forge", "pip", "pip:"} <= set(items)


def test_python_bounds_agree() -> None:
    (conda,) = re.findall(r"^\s*- python\s*([<>=~!].*)$", ENVIRONMENT, re.MULTILINE)
    assert SpecifierSet(conda) == SpecifierSet(PROJECT_TABLE["requires-python"])
    (least,) = SpecifierSet(PROJECT_TABLE["requires-python"])
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["ruff"]["target-version"] == "py" + least.version.replace(".", "")
    assert tools["mypy"]["python_version"] == least.version
    assert f"--python-version {least.version}" in LOCK.splitlines()[1]


def test_only_a_version_that_the_changelog_dates_is_called_released() -> None:
    """Who cites 0.1.0 must find one: until then it is a pre-release, without a date."""
    cited = dict(re.findall(r"^(version|date-released): (\S+)$", CITATION, re.MULTILINE))
    log = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = dict(re.findall(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", log, re.MULTILINE))
    version = PROJECT_TABLE["version"]
    assert cited["version"] == version
    assert cited.get("date-released") == released.get(version)
    assert version in released or Version(version).is_prerelease
