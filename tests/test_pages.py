"""The pages of docs/: their menu is whole, and what they list is what the program has."""

import re
from pathlib import Path
from typing import Any

import yaml

from docs.hooks import command_reference
from docs.hooks.doctests import fenced
from flowtrain.cli.flowrun import COMMANDS
from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.evaluation.tags import METRICS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Of mkdocs.yml, where `!ENV [NAME, default]` reads a variable."""


Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node)[-1])


def menu() -> Any:
    """Return the menu of the site."""
    with (ROOT / "mkdocs.yml").open(encoding="utf-8") as file:
        return yaml.load(file, Loader)["nav"]


def pages(menu: Any) -> list[str]:
    """Return the files that a menu of mkdocs names."""
    match menu:
        case str():
            return [menu]
        case dict():
            return [page for entry in menu.values() for page in pages(entry)]
    return [page for entry in menu for page in pages(entry)]


def test_every_page_is_in_the_menu() -> None:
    written = [*DOCS.rglob("*.md"), *(DOCS / "notebooks").glob("*.py")]
    missing = {str(path.relative_to(DOCS)) for path in written} - {*pages(menu())}
    assert missing == set()


def test_links_of_notebooks_lead_to_pages_of_the_site() -> None:
    """A notebook's links are written out as they are, from its folder of the site."""
    texts = [path.read_text(encoding="utf-8") for path in (DOCS / "notebooks").glob("*.py")]
    links = [link for text in texts for link in re.findall(r"\]\((?!https?:|#)([^)\n]+)\)", text)]
    assert links
    for link in links:
        above, page = link.split("../../")
        assert above == ""
        assert (DOCS / f"{page.partition('#')[0].rstrip('/')}.md").is_file(), link


def test_every_room_but_the_command_line_has_a_page() -> None:
    listed = {page for page in pages(menu()) if page.startswith("api/")}
    rooms = {path.parent.name for path in (ROOT / "flowtrain").glob("*/__init__.py")} - {"cli"}
    assert listed == {"api/index.md", *(f"api/{room}.md" for room in rooms)}


def test_every_metric_is_explained() -> None:
    text = (DOCS / "run-folder.md").read_text(encoding="utf-8")
    explained = {tag.split("/")[0] for tag in re.findall(r"`([a-z_0-9]+/[a-z_]+)`", text)}
    assert {*METRICS} - explained == set()


def test_the_reference_of_commands_has_the_help_of_each() -> None:
    text = command_reference.reference()
    assert "usage: flowtrain [-m] [group=option | key=value] ..." in text
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        assert f"usage: flowrun {name} " in text


def test_the_examples_of_a_docstring_become_code() -> None:
    docstring = "Sum.\n\nArgs:\n    x: of it.\n\n>>> f(\n...     1)\n1\n\nMore.\n\n>>> f(2)\n2"
    assert fenced(docstring) == (
        "Sum.\n\nArgs:\n    x: of it.\n\n```pycon\n>>> f(\n...     1)\n1\n```\n\nMore.\n\n"
        "```pycon\n>>> f(2)\n2\n```"
    )


def test_the_page_of_run_folders_lists_what_a_resumed_run_may_change() -> None:
    page = (DOCS / "run-folder.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"may change on the way:\n\n(.*?)\n\n", page, re.DOTALL)
    keys = {key for key in marked(Config, Mark.RESUMABLE) if not key.startswith("logger.")}
    assert {*re.findall(r"`([\w.]+)`", listed)} == keys
