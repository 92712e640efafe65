"""How training ends, and what it says then."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flowtrain.config.schema import Config
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.training.outcome import more_of, reporting_failure
from flowtrain.training.run import build_run
from flowtrain.training.state import Progress
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]


@pytest.mark.parametrize(
    ("limits", "ended", "more"),
    [
        (["trainer.max_steps=6"], [Progress(step=6)], "trainer.max_steps=12"),
        (["trainer.max_seconds=5"], [Progress(step=15, seconds=5.2)], "trainer.max_seconds=10"),
        (
            ["trainer.max_seconds=5", "trainer.max_steps=200"],
            [Progress(step=15, seconds=5.2)],
            "trainer.max_seconds=10",
        ),
        (
            ["trainer.max_steps=200", "trainer.patience=3"],
            [Progress(step=40, stale=3)],
            "trainer.patience=null",
        ),
        (
            ["trainer.max_steps=200", "trainer.patience=3"],
            [Progress(step=40, stale=3), Progress(step=200)],
            "trainer.max_steps=400 trainer.patience=null",
        ),
    ],
)
def test_each_limit_that_was_reached_is_named(
    tiny: Tiny, limits: list[str], ended: list[Progress], more: str
) -> None:
    assert more_of(tiny(*limits).trainer, ended) == more


def test_a_run_that_ended_early_goes_on_as_it_is_told(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flowtrain")
    config = tiny(
        "optimizer.lr=1e-30", "trainer.patience=1", "trainer.evaluate_every=2",
        "trainer.max_steps=8",
    )  # fmt: skip
    assert train(config, tmp_path).step == 2
    assert train(config, tmp_path).step == 2
    assert "to train on, ask for more: trainer.patience=null" in caplog.messages
    assert train(config, tmp_path, asked={"trainer": {"patience": None}}).step == 8


@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_interrupted_at_once_stands_where_its_checkpoint_does(
    tiny: Tiny, tmp_path: Path, damaged: bool
) -> None:
    run = build_run(tiny(), RunFolder(tmp_path))
    run.progress.step = 3
    run.save("last")
    if damaged:
        run.folder.checkpoint("last").write_bytes(b"half")
    run.progress.step = 5
    with pytest.raises(KeyboardInterrupt), reporting_failure(run):
        raise KeyboardInterrupt
    found = read_result(run.folder)
    assert (found["status"], found["step"]) == ("interrupted", 5 if damaged else 3)
