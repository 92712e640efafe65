"""The paths of a run folder."""

from pathlib import Path

from flowtrain.runs.folder import RunFolder


def test_everything_that_a_run_keeps_lies_below_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    paths = [
        folder.result, folder.metrics, folder.composed, folder.checkpoint("best"),
        folder.figure("flow.gif"),
    ]  # fmt: skip
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "result.json", "metrics.jsonl", ".hydra/config.yaml", "checkpoints/best.pt",
        "figures/flow.gif",
    ]  # fmt: skip
    assert [*tmp_path.iterdir()] == []
