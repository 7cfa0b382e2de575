"""What all tests share: where the data lies, a work folder of their own, small folders of crops."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# A busy machine is slow, not wrong; the same examples every time, so that a failure can be seen again.
settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
REAL_FOLDERS = ("flowcam", "flowcam_runs", "icelearning_crops")
TinySet = Callable[[str, Mapping[str, int]], Path]


def _root() -> Path | None:
    named = os.environ.get("NUNATAK_DATA")
    return Path(named).expanduser().resolve() if named else None


def _lacks_mnist(root: Path) -> str | None:
    folders = [base / "MNIST" / "raw" for base in (root / "mnist", root)]
    if any(all((folder / name).is_file() for name in MNIST_FILES) for folder in folders):
        return None
    return f"no MNIST files in {folders[0]}"


def _lacks_real(root: Path) -> str | None:
    missing = [name for name in REAL_FOLDERS if not (root / name).is_dir()]
    return f"no real crops: {root} lacks {', '.join(missing)}" if missing else None


NEEDS = {"mnist": _lacks_mnist, "real": _lacks_real}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs data or a library that is not there, and say which."""
    if find_spec("ray") is None:
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.skip(reason="ray: Ray is not installed (pip install 'ray[data]>=2.40')"))
    root = _root()
    for marker, lacks in NEEDS.items():
        reason = "NUNATAK_DATA is not set" if root is None else lacks(root)
        if reason is None:
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))


@pytest.fixture
def data_root() -> Path:
    """The folder with the data; for tests marked `mnist` or `real`, which do not run without it."""
    root = _root()
    assert root is not None, "a test that takes data_root must be marked mnist or real"
    return root


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, packed sets and pictures go to a folder of the test's own."""
    folder = tmp_path / "work"
    monkeypatch.setenv("NUNATAK_WORK", str(folder))
    return folder


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A real Ray cluster of two nodes on this machine, one CPU each; for tests marked `ray`."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # workers import what tests import
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        cluster.second = cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def tiny_set(tmp_path: Path) -> TinySet:
    """Make a folder of crops: `tiny_set("lake", {"ash": 6, "": 4})`; the class "" lies loose."""

    def make(name: str, classes: Mapping[str, int]) -> Path:
        root = tmp_path / name
        root.mkdir()
        for number, (label, count) in enumerate(classes.items()):
            (root / label).mkdir(exist_ok=True)
            rng = np.random.default_rng([number, count])
            for i in range(count):
                crop = np.full((12, 10 + number), 200, np.uint8)
                crop[3:9, 2:8] = rng.integers(20, 120, (6, 6))
                Image.fromarray(crop).save(root / label / f"{name}_{label or 'loose'}_{i}.png")
        return root

    return make
