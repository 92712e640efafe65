"""What is told where a checkpoint is not."""

import shutil
from pathlib import Path

import pytest

from flowtrain.errors import CheckpointError
from flowtrain.runs.existing import existing_checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import write_failed_start


def refusal(folder: Path, name: str = "best") -> str:
    with pytest.raises(CheckpointError) as caught:
        existing_checkpoint(folder, name)
    return str(caught.value)


def test_a_folder_of_dated_folders_names_a_run(tmp_path: Path) -> None:
    one = tmp_path / "2026-01-31" / "12-00-00-000000-affine-moons"
    (one / "checkpoints").mkdir(parents=True)
    (one / "checkpoints" / "best.pt").touch()
    assert refusal(tmp_path).endswith(f" is no run folder; one below it is: {one}")


def test_a_folder_without_the_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.pt"
    assert refusal(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder"
    assert refusal(tmp_path) == f"there is no checkpoint {path}: {tmp_path} is no run folder"
    (tmp_path / "0-seed=0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0-seed=0" / "checkpoints" / "best.pt").touch()
    assert refusal(tmp_path).endswith(
        f" is no run folder; one below it is: {tmp_path / '0-seed=0'}"
    )
    (tmp_path / "result.json").write_text("{}")
    assert refusal(tmp_path) == f"there is no checkpoint {path}: the run has saved none yet"
    assert refusal(tmp_path / "result.json").endswith(": a file, not a run folder")
    one = RunFolder(tmp_path).replica(0)
    one.checkpoint("last").parent.mkdir(parents=True)
    assert refusal(tmp_path).endswith(": the run has saved none yet")
    one.checkpoint("last").touch()
    assert refusal(tmp_path).endswith(f" holds replicas; name one of them: {one.path}")
    shutil.rmtree(one.path)
    path.parent.mkdir()
    path.with_name("last.pt").touch()
    assert refusal(tmp_path) == f"there is no checkpoint {path}; the run has last"
    within = path.with_name("last.pt")
    assert refusal(within) == f"{within}: a file, not a run folder; the run is {tmp_path}"


def test_a_checkpoint_that_is_there_is_found(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.pt"
    path.parent.mkdir()
    path.touch()
    assert existing_checkpoint(tmp_path, "best") == path
    assert "; the run has best" in refusal(tmp_path, "last")


def test_a_run_that_never_began_says_why(tmp_path: Path) -> None:
    reason = "data: points.csv: no such file"
    write_failed_start(RunFolder(tmp_path), reason, model="affine", data="table", seed=0)
    assert refusal(tmp_path) == f"{tmp_path}: this run failed at its start: {reason}"
