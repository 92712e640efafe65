"""outputs/latest: it moves to what starts, harms nothing, and is never in the way."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowtrain.runs.latest import followed, point_to


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "outputs" / "day" / name).mkdir(parents=True)
    return tmp_path / "outputs"


def test_it_is_relative_and_moves_on(outputs: Path) -> None:
    for name in ("a", "b", "b"):
        point_to(Path("outputs/day") / name)
        assert str((outputs / "latest").readlink()) == f"day/{name}"
    assert sorted(path.name for path in outputs.iterdir()) == ["day", "latest"]


def test_a_link_that_leads_nowhere_is_replaced(outputs: Path) -> None:
    (outputs / "latest").symlink_to("gone")
    point_to(outputs / "day" / "a")
    assert (outputs / "latest").resolve() == outputs / "day" / "a"


def test_what_is_no_link_stays(outputs: Path) -> None:
    (outputs / "latest").mkdir()
    (outputs / "latest" / "mine").touch()
    point_to(outputs / "day" / "a")
    assert [path.name for path in (outputs / "latest").iterdir()] == ["mine"]
    (outputs / "latest" / "mine").unlink()
    (outputs / "latest").rmdir()
    (outputs / "latest").write_text("mine")
    point_to(outputs / "day" / "a")
    assert (outputs / "latest").read_text() == "mine"


def test_a_folder_elsewhere_is_not_linked(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    point_to(tmp_path / "run")
    point_to(outputs)
    assert not (outputs / "latest").is_symlink()


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError, OSError])
def test_where_links_are_impossible_nothing_fails(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_to(outputs / "day" / "a")
    assert [path.name for path in outputs.iterdir()] == ["day"]


def test_there_is_always_one_while_many_start(outputs: Path) -> None:
    point_to(outputs / "day" / "a")

    def look(_: int) -> bool:
        return (outputs / "latest").is_dir()

    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(look, range(300))
        for number in range(100):
            point_to(outputs / "day" / "ab"[number % 2])
        assert all(seen)


def test_a_path_through_it_is_followed(outputs: Path) -> None:
    point_to(outputs / "day" / "a")
    assert followed("outputs/latest") == "outputs/day/a"
    assert followed("outputs/latest/seed=0") == "outputs/day/a/seed=0"
    assert followed("nowhere/latest") == "nowhere/latest"
