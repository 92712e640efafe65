"""Imports go one way, torch and Hydra stay where they belong, and the listing is what it says."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flowtrain"
# From top to bottom: a file may import from layers below its own, and from its own room.
LAYERS = (
    ("__main__",),
    ("api",),
    ("cli",),
    ("training", "comparison", "sweeps"),
    ("runs",),
    ("build", "evaluation"),
    ("data",),
    ("densities", "flows"),
    ("config",),
    ("files", "untrusted", "batching", "live", "roots"),
    ("progress", "text"),
    ("errors",),
)
LAYER = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))
TORCH_FREE = (
    "config", "errors", "files", "untrusted", "text", "progress", "live", "comparison/summary",
    "runs/folder", "runs/lock", "runs/migrate", "runs/result", "sweeps",
)  # fmt: skip


def room(path: Path) -> str:
    """Return the file or folder at the top of the package that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """Return the modules that a file imports: all of them, or only those it does at once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_import else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_a_layer() -> None:
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert rooms == {*LAYER}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # it offers names from several rooms, each on first use
    own = room(path)
    for module in imported(path):
        top, _, rest = module.partition(".")
        target = rest.split(".")[0]
        if top == "flowtrain" and target in LAYER and target != own:
            assert LAYER[target] > LAYER[own], f"{path} imports {module}, which is not below it"


def test_only_the_command_line_knows_hydra() -> None:
    knowing = {
        room(path)
        for path in FILES
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imported(path))
    }
    assert knowing == {"cli"}


def test_only_one_file_knows_torchdiffeq() -> None:
    knowing = [path for path in FILES if any("torchdiffeq" in name for name in imported(path))]
    assert knowing == [PACKAGE / "flows" / "ode.py"]


@pytest.mark.parametrize("place", TORCH_FREE)
def test_what_must_be_quick_does_not_import_torch(place: str) -> None:
    files = [path for path in FILES if str(path.relative_to(PACKAGE)).startswith(place)]
    assert files
    for path in files:
        assert not {n for n in imported(path, at_import=True) if n.split(".")[0] == "torch"}, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_says_in_its_first_line_why_it_exists(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith('"""')
    assert len(first) > 20


def test_tests_mirror_the_folders() -> None:
    tests = Path(__file__).parent
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    mirrored = {path.name for path in tests.iterdir() if any(path.glob("test_*.py"))}
    assert mirrored == rooms | {"faults"}  # of no room: whole runs, disturbed
