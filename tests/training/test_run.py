"""What a run is made of: everything that its config names, from its seed alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowtrain.config.schema import Config
from flowtrain.errors import TrainingError
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.training.run import build_run
from flowtrain.training.trainer import train

Tiny = Callable[..., Config]


def test_dtype_holds_for_weights_data_and_solver(tiny: Tiny, tmp_path: Path) -> None:
    run = build_run(tiny("dtype=float64", model="ffjord"), RunFolder(tmp_path))
    assert {weight.dtype for weight in run.state.flow.state_dict().values()} == {torch.float64}
    parts = (run.splits.train, run.splits.val, run.splits.test)
    assert {split.x.dtype for split in parts} == {torch.float64}
    train(run.config, tmp_path)
    saved = checkpoint.read(run.folder.checkpoint("last"))["model"]
    assert {weight.dtype for weight in saved.values()} == {torch.float64}


def test_splits_are_as_large_as_asked_and_share_no_point(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("splits.train=511", "splits.val=512")
    splits = build_run(config, RunFolder(tmp_path)).splits
    parts = [splits.train.x, splits.val.x, splits.test.x]
    assert [len(x) for x in parts] == [511, 512, 64]
    assert len(torch.cat(parts).unique(dim=0)) == 511 + 512 + 64


def test_the_seed_decides_weights_data_and_batches(tiny: Tiny, tmp_path: Path) -> None:
    def drawn(seed: int) -> list[Tensor]:
        run = build_run(tiny(f"seed={seed}"), RunFolder(tmp_path))
        weight = next(run.state.flow.parameters()).detach()
        return [weight, run.splits.train.x, torch.rand(3, generator=run.state.generator)]

    assert all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn(0), drawn(1), strict=True))


def test_the_training_points_do_not_depend_on_the_size_of_other_splits(
    tiny: Tiny, tmp_path: Path
) -> None:
    few, many = (
        build_run(tiny(f"splits.{name}=80"), RunFolder(tmp_path)) for name in ("val", "test")
    )
    assert torch.equal(few.splits.train.x, many.splits.train.x)


def test_no_checkpoint_is_written_of_a_weight_that_is_nan(tiny: Tiny, tmp_path: Path) -> None:
    run = build_run(tiny(), RunFolder(tmp_path))
    for weight in run.state.flow.parameters():
        weight.requires_grad_(False)  # a weight that is held counts, too
        kept = weight.flatten()[-1].item()
        weight.view(-1)[-1] = torch.nan
        with pytest.raises(TrainingError, match="a weight is NaN or infinite at step 0"):
            run.save("last")
        weight.view(-1)[-1] = kept
    run.save("last")
    assert run.folder.checkpoint("last").is_file()
