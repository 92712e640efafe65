"""What is written appears whole, stays, and goes where it was meant to go, not where links lead."""

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from flowtrain.errors import CheckpointError
from flowtrain.files import appending, leaving_no_empty, remove_leftovers, replacing
from flowtrain.runs.folder import RunFolder


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    with replacing(tmp_path / "new") as file:
        file.write(b"1")
    (tmp_path / "usual").write_text("1")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "usual")]
    assert modes[0] == modes[1]


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "result.json").symlink_to(tmp_path / "outside")
    with replacing(tmp_path / "result.json") as file:
        file.write(b"new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "result.json").is_symlink()
    (tmp_path / "lines").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic link"):
        appending(tmp_path / "lines")
    assert (tmp_path / "outside").read_text() == "mine"


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if folder else "file")
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    with replacing(tmp_path / "last.pt") as file:
        file.write(b"1")
    assert done == ["file", "rename", "folder"]


def test_of_folders_that_the_work_made_only_empty_ones_go(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    time = tmp_path / "outputs" / "day" / "time"
    with suppress(FileNotFoundError), leaving_no_empty(time):
        time.mkdir(parents=True)
        (time / "mistyped").read_text()
    assert [*tmp_path.rglob("*")] == [tmp_path / "outputs"]
    with leaving_no_empty(time):
        time.mkdir(parents=True)
        (time.parent / "kept").touch()
    assert sorted(time.parent.iterdir()) == [time.parent / "kept"]


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    for name in ("last.pt", "mine.tmp", "last.pt.0123abcd.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "mine.tmp"]


@pytest.mark.parametrize(
    "name", ["flowtrain.log", "metrics.jsonl", "result.json", "checkpoints", "figures", ".hydra"]
)
def test_a_run_folder_with_a_link_where_a_run_writes_is_refused(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    RunFolder(run).refuse_links()
    (run / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=f"{name}: refused: it is a link"):
        RunFolder(run).refuse_links()
