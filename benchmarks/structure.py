"""The package in numbers: files, lines, layers, imports, and how many files a new piece touches.

    python benchmarks/structure.py [CHECKOUT ...]

Each checkout is a column: give an older one beside this to compare. It reads text alone. What a
new piece touches is counted on a piece that is there: the files that name it.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

PIECES = {
    "a density (rings)": r"\b(rings|Rings)\b",
    "a discrete flow (glow)": r"\b(glow|Glow)\b",
    "an objective (flow_matching)": r"\b(flow_matching|FlowMatching)\b",
    "a solver (bosh3)": r"\bbosh3\b",
    "an optimizer (adamw)": r"\b(adamw|AdamW)\b",
    "a schedule (cosine)": r"\b(cosine|Cosine)\b",
    "a trainer key (patience)": r"\bpatience\b",
    "a launcher (joblib)": r"\bjoblib\b",
}


def main() -> None:
    """Print a Markdown table, a column a checkout."""
    folders = [Path(name) for name in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [figures(folder) for folder in folders]
    print("| | " + " | ".join(str(folder) for folder in folders) + " |")
    print("|---|" + "--:|" * len(folders))
    for row in columns[0]:
        print(f"| {row} | " + " | ".join(column[row] for column in columns) + " |")


def figures(folder: Path) -> dict[str, str]:
    """Return the rows of a checkout, as text by their names."""
    package = folder / "flowtrain"
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    graph = {name: imports(path, files) - {name} for name, path in files.items()}
    rows = {
        "Python files": len(files),
        "lines": sum(len(path.read_text("utf-8").splitlines()) for path in files.values()),
        "files over 200 lines": sum(
            len(path.read_text("utf-8").splitlines()) > 200 for path in files.values()
        ),
        "files and folders at the top": sum(
            path.suffix == ".py" or (path / "__init__.py").exists() for path in package.iterdir()
        ),
        "layers of rooms": depth(rooms(graph)),
        "imports between rooms": sum(map(len, rooms(graph).values())),
        "imports between files": sum(map(len, graph.values())),
        "files in conf/": len(list((folder / "conf").rglob("*.yaml"))),
    }
    touched = {f"files touched by {name}": touching(folder, word) for name, word in PIECES.items()}
    return {name: f"{value:,}" for name, value in {**rows, **touched}.items()}


def module_name(path: Path, package: Path) -> str:
    """Return the dotted name of a file below the package."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, files: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                name if (name := f"{node.module}.{alias.name}") in files else node.module
                for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & files.keys() - {"flowtrain"}


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports between what stands at the top of the package."""

    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else "__init__"

    between: dict[str, set[str]] = {}
    for module, targets in graph.items():
        if room(module) != "__init__":
            outside = {room(target) for target in targets} - {room(module)}
            between.setdefault(room(module), set()).update(outside)
    return between


def depth(graph: dict[str, set[str]]) -> int:
    """Return the length of the longest chain of imports; a cycle counts once."""

    @cache
    def below(name: str, above: frozenset[str]) -> int:
        further = graph.get(name, set()) - above
        return 1 + max((below(each, above | {name}) for each in further), default=0)

    return max(below(name, frozenset()) for name in graph)


def touching(folder: Path, word: str) -> int:
    """Return how many files of the package and of conf/, but for recipes, name a piece."""
    files = [*(folder / "flowtrain").rglob("*.py"), *(folder / "conf").rglob("*.yaml")]
    return sum(
        bool(re.search(word, without_prose(path))) or re.search(word, path.stem) is not None
        for path in files
        if not path.parent.name.startswith("experiment")
        and path.name not in ("help.py", "migrate.py")  # what is told, and what was
    )


def without_prose(path: Path) -> str:
    """Return a file's text without docstrings and comments, which may name anything."""
    text = path.read_text("utf-8")
    text = re.sub(r'"""(.|\n)*?"""', "", text)
    text = re.sub(r"help:\n(      .*\n|\n|    .*\n)*", "", text) if path.suffix == ".yaml" else text
    return re.sub(r"#.*", "", text)


if __name__ == "__main__":
    main()
