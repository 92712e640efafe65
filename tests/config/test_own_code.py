"""Pieces of the user's own: how they are found, and what a mistake in them is told."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtrain.config.own_code import build_own, import_own
from flowtrain.config.schema import validate
from flowtrain.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget the modules that a test imported from it."""
    known = {*sys.modules}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in {*sys.modules} - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def refusal(action: Callable[[], Any]) -> str:
    """Return what the user is told, one line."""
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_file_in_the_working_directory_is_found_and_does_not_stay_on_the_path(
    here: Path,
) -> None:
    (here / "mine_found.py").write_text("class Square:\n    side = 2\n")
    before = list(sys.path)
    assert str(here) not in before
    assert import_own("data", "mine_found:Square").side == 2
    assert sys.path == before


def test_a_file_on_the_path_comes_before_one_beside_it(here: Path) -> None:
    (here / "json.py").write_text("class Square: ...\n")
    assert "no 'Square'" in refusal(lambda: import_own("data", "json:Square"))


def test_a_module_of_a_package_is_found(here: Path) -> None:
    (here / "mine_package").mkdir()
    (here / "mine_package" / "__init__.py").touch()
    (here / "mine_package" / "inner.py").write_text("def square(side): return side * side\n")
    assert build_own("data", "mine_package.inner:square", {"side": 3}) == 9
    assert refusal(lambda: import_own("data", "mine_package.outer:square")) == (
        f"data: no module 'mine_package.outer' on PYTHONPATH or in {here}"
    )


def test_a_module_that_is_not_there_is_named_with_where_it_was_sought(here: Path) -> None:
    before = list(sys.path)
    assert refusal(lambda: import_own("data", "mine_absent:Square")) == (
        f"data: no module 'mine_absent' on PYTHONPATH or in {here}"
    )
    assert sys.path == before


def test_a_module_that_another_lacks_is_told_as_that_module_s_mistake(here: Path) -> None:
    (here / "mine_lacking.py").write_text("\nimport nowhere_at_all\n")
    assert refusal(lambda: import_own("data", "mine_lacking:Square")) == (
        "data: mine_lacking:Square: ModuleNotFoundError: No module named 'nowhere_at_all' "
        "(mine_lacking.py, line 2)"
    )


def test_a_name_that_a_module_lacks_is_told(here: Path) -> None:
    (here / "mine_other.py").write_text("class Circle: ...\n")
    message = refusal(lambda: import_own("objective", "mine_other:Square"))
    assert message == "objective: mine_other has no 'Square'"


def test_a_mistake_of_syntax_is_told_with_its_line(here: Path) -> None:
    (here / "mine_broken.py").write_text("class Square:\n    def (self): ...\n")
    message = refusal(lambda: import_own("data", "mine_broken:Square"))
    assert (
        message == "data: mine_broken:Square: SyntaxError: invalid syntax (mine_broken.py, line 2)"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('no\\n  luck')", "RuntimeError: no luck (mine_raising.py, line 1)"),
        (
            "import sys\nsys.nothing",
            "AttributeError: module 'sys' has no attribute 'nothing' (mine_raising.py, line 2)",
        ),
    ],
)
def test_what_a_module_raises_is_told_in_one_line(here: Path, code: str, told: str) -> None:
    (here / "mine_raising.py").write_text(code)
    message = refusal(lambda: import_own("data", "mine_raising:Square"))
    assert message == f"data: mine_raising:Square: {told}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"width": 1}, "TypeError: Square.__init__() got an unexpected keyword argument 'width'"),
        ({}, "TypeError: Square.__init__() missing 1 required positional argument: 'side'"),
        ({"side": -1}, "ValueError: side must be > 0, got -1 (mine_square.py, line 4)"),
    ],
)
def test_a_class_that_refuses_its_arguments_is_told_in_one_line(
    here: Path, arguments: dict[str, Any], told: str
) -> None:
    (here / "mine_square.py").write_text(
        "class Square:\n"
        "    def __init__(self, side):\n"
        "        if side <= 0:\n"
        "            raise ValueError(f'side must be > 0, got {side}')\n"
        "        self.side = side\n"
    )
    assert build_own("data", "mine_square:Square", {"side": 2}).side == 2
    message = refusal(lambda: build_own("data", "mine_square:Square", arguments))
    assert message == f"data: mine_square:Square: {told}"


def test_what_is_no_class_is_told(here: Path) -> None:
    (here / "mine_number.py").write_text("Square = 3\n")
    message = refusal(lambda: build_own("data", "mine_number:Square", {}))
    assert message == "data: mine_number:Square: TypeError: 'int' object is not callable"


@pytest.mark.parametrize("group", ["data", "objective"])
@pytest.mark.parametrize(
    "target",
    ["mine", "mine.Square", "mine:", ":Square", "mine:a.b", "m y:A", "", "os:system('true')"],
)
def test_a_target_that_names_nothing_is_refused_in_one_line(
    compose: Callable[..., dict[str, Any]], group: str, target: str
) -> None:
    raw = compose("model=realnvp", f"{group}=custom")
    raw[group]["target"] = target
    assert refusal(lambda: validate(raw)) == (
        f"{group}.target: {target!r} is refused: it should be module:Name"
    )


def test_a_custom_section_builds_what_its_target_names(
    here: Path, compose: Callable[..., dict[str, Any]]
) -> None:
    (here / "mine_built.py").write_text("def keep(**arguments): return arguments\n")
    raw = compose("model=realnvp", "data=custom", "objective=custom")
    for group in ("data", "objective"):
        raw[group] |= {"target": "mine_built:keep", "arguments": {"group": group, "side": 2}}
    config = validate(raw)
    assert config.data.build() == {"group": "data", "side": 2}
    assert config.objective.build() == {"group": "objective", "side": 2}
