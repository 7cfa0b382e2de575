"""The house's rules, read from the source: who may import whom, and what no file may do."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "provenance": set(),
    "particles": {"provenance"},
    "encoders": {"provenance", "particles"},
    "autoencoders": {"provenance", "particles", "encoders"},
    "clustering": {"provenance", "particles"},
    "figures": {"provenance", "particles"},
    "experiments": {"provenance", "particles", "encoders", "autoencoders", "clustering", "figures"},
}
WITH_SCRIPTS = ("clustering", "experiments", "figures")
TORCH = {"torch", "torchvision", "lightning", "pytorch_lightning"}
LONGEST_BODY = 40


@cache
def sources() -> dict[str, ast.Module]:
    """Module name -> syntax tree, for all product code."""
    files = [path for room in MAY_IMPORT for path in sorted((PROJECT / room).rglob("*.py"))]
    named = {".".join(path.relative_to(PROJECT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in named.items()}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that the code names in an import, and what it takes from it, which may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module is: not what stands inside functions."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from imported(node)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_is_read() -> None:
    assert {room_of(name) for name in sources()} == set(MAY_IMPORT)
    assert {"provenance.run", "particles.sources.folder", "clustering.run"} <= set(sources())


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = {
        f"{name} imports {other}"
        for name, tree in sources().items()
        if room_of(name) == room
        for other in imported(tree)
        if room_of(other) in MAY_IMPORT and room_of(other) not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("room", ["clustering", "figures"])
def test_torch_is_out_of_reach(room: str) -> None:
    reached, todo = set(), [name for name in sources() if room_of(name) == room]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        todo += [other for other in at_import(sources()[name]) if other in sources()]
    heavy = {f"{name} imports {o}" for name in reached for o in at_import(sources()[name]) if room_of(o) in TORCH}
    assert not heavy
    assert "particles.sets" in reached, "the walk found its way into the next room"


def test_torch_is_not_loaded_by_clustering_and_figures(tmp_path: Path) -> None:
    """The same from outside: what a library drags in counts too."""
    code = f"import sys, clustering.run, figures.draw; print(sorted(set(sys.modules) & {TORCH!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def listed() -> dict[str, set[str]]:
    """Room -> the modules that docs/architecture.md lists there, some as patterns (`map_*.py`)."""
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.split(r"^ {4}(\w+)/", page.partition("## Rooms")[2].partition("\nImports run")[0], flags=re.MULTILINE)
    return {room: set(re.findall(r"[\w*]+\.py", text)) for room, text in zip(rooms[1::2], rooms[2::2], strict=True)}


@pytest.mark.parametrize("room", sorted(set(MAY_IMPORT) - {"experiments"}))
def test_the_page_of_the_house_lists_what_is_there_and_nothing_else(room: str) -> None:
    files = {path.name for path in (PROJECT / room).rglob("*.py")} - {"__init__.py"}
    assert not {name for name in files if not any(fnmatch(name, pattern) for pattern in listed()[room])}
    assert not {pattern for pattern in listed()[room] if not any(fnmatch(name, pattern) for name in files)}


def test_no_room_is_a_junk_drawer() -> None:
    names = {part for name in sources() for part in name.split(".")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_no_script_hides_a_library() -> None:
    """The folder of a script comes first on the path: a file there must not have a library's name."""
    taken = set(packages_distributions()) | set(sys.stdlib_module_names) | set(MAY_IMPORT)
    assert {"hdbscan", "umap", "sklearn"} <= taken
    clashes = {p.stem for room in WITH_SCRIPTS for p in (PROJECT / room).glob("*.py")} & taken
    assert not clashes


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Calls that run code from a file, or load it without saying what did not fit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"pickle.load", "pickle.loads", "joblib.load"}:
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module in {"pickle", "joblib"}:
            yield from (f"from {node.module} import {a.name}" for a in node.names if a.name in {"load", "loads"})
        elif isinstance(node, ast.Call) and ast.unparse(node.func) != "zip":
            given = {ast.unparse(keyword) for keyword in node.keywords}
            yield from given & {"allow_pickle=True", "weights_only=False", "strict=False"}


def test_unsafe_code_is_recognized() -> None:
    code = "pickle.load(f); np.load(f, allow_pickle=True); net.load_state_dict(s, strict=False)"
    assert len(list(unsafe(ast.parse(code)))) == 3
    assert not list(unsafe(ast.parse("np.load(f, allow_pickle=False); zip(a, b, strict=False)")))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_nothing_is_loaded_unsafely(room: str) -> None:
    found = {f"{name}: {u}" for name, tree in sources().items() if room_of(name) == room for u in unsafe(tree)}
    assert not found


def test_torch_load_says_weights_only() -> None:
    calls = [
        (name, {k.arg for k in node.keywords})
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls, "checkpoints are read somewhere"
    assert not [name for name, keywords in calls if "weights_only" not in keywords]


def test_package_files_are_empty() -> None:
    inits = [path for room in MAY_IMPORT for path in (PROJECT / room).rglob("__init__.py")]
    assert len(inits) >= len(MAY_IMPORT)
    assert not [str(path) for path in inits if path.stat().st_size]


def test_functions_are_short() -> None:
    """Without their docstring; one line that explains is never one too many."""
    lengths = {
        f"{name}.{node.name}": body_lines(node)
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 100
    longest = max(lengths, key=lambda name: lengths[name])
    assert lengths[longest] <= LONGEST_BODY, f"{longest} has {lengths[longest]} lines"


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = ast.get_docstring(node) is not None and len(node.body) > 1
    first = node.body[1 if documented else 0]
    return int(node.body[-1].end_lineno or 0) - first.lineno + 1
