"""latest: it moves to what starts, harms nothing, and is never in the way."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories

from flowtrain.runs.latest import followed, point_to


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "outputs" / "day" / name).mkdir(parents=True)
    return tmp_path / "outputs"


def test_it_is_relative_and_moves_on(outputs: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "b"):
        point_to(Path("outputs/day") / name)
        assert (tmp_path / "latest").readlink().as_posix() == f"outputs/day/{name}"
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "latest"}


def test_tensorboard_finds_each_run_once(outputs: Path) -> None:
    (outputs / "day" / "a" / "events.out.tfevents.1").touch()
    point_to(outputs / "day" / "a")
    assert [*GetLogdirSubdirectories(str(outputs))] == [str(outputs / "day" / "a")]


def test_outputs_may_be_a_link_itself(outputs: Path, tmp_path: Path) -> None:
    outputs.rename(tmp_path / "disk")
    outputs.symlink_to("disk")
    point_to(Path("outputs/day/a"))
    assert (tmp_path / "latest").readlink().as_posix() == "outputs/day/a"
    point_to(Path("outputs/day/b"))
    assert (tmp_path / "latest").resolve() == tmp_path / "disk" / "day" / "b"


def test_a_link_that_leads_to_a_run_that_is_gone_is_replaced(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("outputs/gone")
    point_to(outputs / "day" / "a")
    assert (tmp_path / "latest").resolve() == outputs / "day" / "a"


def test_what_is_no_link_to_a_run_stays(outputs: Path, tmp_path: Path) -> None:
    latest = tmp_path / "latest"
    latest.mkdir()
    (latest / "mine").touch()
    point_to(outputs / "day" / "a")
    assert [path.name for path in latest.iterdir()] == ["mine"]
    (latest / "mine").unlink()
    latest.rmdir()
    latest.write_text("mine")
    point_to(outputs / "day" / "a")
    assert latest.read_text() == "mine"
    latest.unlink()
    latest.symlink_to("elsewhere")
    point_to(outputs / "day" / "a")
    assert str(latest.readlink()) == "elsewhere"


def test_a_folder_elsewhere_is_not_linked(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    point_to(tmp_path / "run")
    point_to(outputs)
    assert not (tmp_path / "latest").is_symlink()


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError, OSError])
def test_where_links_are_impossible_nothing_fails(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_to(outputs / "day" / "a")
    assert [path.name for path in outputs.parent.iterdir()] == ["outputs"]


def test_there_is_always_one_while_many_start(outputs: Path) -> None:
    point_to(outputs / "day" / "a")

    def look(_: int) -> bool:
        return outputs.with_name("latest").is_dir()

    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(look, range(300))
        for number in range(100):
            point_to(outputs / "day" / "ab"[number % 2])
        assert all(seen)


def test_a_path_through_it_is_followed(outputs: Path) -> None:
    point_to(outputs / "day" / "a")
    assert followed("latest") == "outputs/day/a"
    assert followed("latest/seed=0") == "outputs/day/a/seed=0"
    assert followed("nowhere/latest") == "nowhere/latest"
