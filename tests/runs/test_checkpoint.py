"""Checkpoints: whole or not at all, plain containers, nothing that aliases the live weights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from flowtrain.config.schema import Config
from flowtrain.errors import CheckpointError
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.migrate import SCHEMA, saved_config
from flowtrain.training.run import build_run
from flowtrain.training.trainer import train

STATE: dict[str, Any] = {
    "config": {"schema": SCHEMA}, "dim": 2, "model": {"weight": torch.arange(5000.0)},
    "ema": None, "optimizer": {}, "generator": torch.zeros(16, dtype=torch.uint8),
    "progress": {"step": 1},
}  # fmt: skip
PLAIN = (dict, list, tuple, str, int, float, bool, torch.Tensor, type(None))


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(path, STATE)
    state = checkpoint.read(path)
    assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
    assert (state["config"], state["dim"], state["progress"]) == ({}, 2, {"step": 1})
    assert [each.name for each in path.parent.iterdir()] == ["last.pt"]


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()
    with full_disk(4096), pytest.raises(CheckpointError, match="the one before it is kept") as told:
        checkpoint.save(path, {**STATE, "progress": {"step": 2}})
    assert str(path) in str(told.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_it_writes_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def half_a_write(state: object, file: Any) -> None:
        file.write(b"PK half a checkpoint")
        raise Killed

    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_a_write)
        with pytest.raises(Killed):
            checkpoint.save(path, {**STATE, "progress": {"step": 2}})
    assert checkpoint.read(path)["progress"] == {"step": 1}
    checkpoint.save(path, {**STATE, "progress": {"step": 3}})
    assert checkpoint.read(path)["progress"] == {"step": 3}


def test_a_checkpoint_is_replaced_and_never_written_over(tmp_path: Path) -> None:
    path, old = tmp_path / "last.pt", tmp_path / "old.pt"
    checkpoint.save(path, STATE)
    old.hardlink_to(path)
    checkpoint.save(path, {**STATE, "progress": {"step": 2}})
    assert checkpoint.read(path)["progress"] == {"step": 2}
    assert checkpoint.read(old)["progress"] == {"step": 1}


def test_a_checkpoint_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.save(tmp_path / "checkpoints" / "last.pt", STATE)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(STATE["model"]["weight"].numpy().tobytes()[400:440])] ^= 1
    path.write_bytes(content)


def write_noise(path: Path) -> None:
    path.write_bytes(bytes(range(200, 256)))


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def save_a_foreign_dict(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def save_an_object(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        flip_a_bit,
        write_noise,
        write_nothing,
        save_a_foreign_dict,
        save_an_object,
        make_a_folder,
        remove,
    ],
)
def test_an_unreadable_checkpoint_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    spoil(path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- the seal -----------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 200)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.read(path)
    path.write_bytes(whole)
    assert checkpoint.read(path)["progress"] == {"step": 1}


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is empty" if length == 0 else "is truncated"):
            checkpoint.read(path)


def test_a_checkpoint_of_a_newer_format_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    path.write_bytes(
        path.read_bytes().replace(b"flowtrain checkpoint 1 ", b"flowtrain checkpoint 2 ")
    )
    with pytest.raises(CheckpointError, match=r"newer flowtrain \(checkpoint format 2; .* upgrade"):
        checkpoint.read(path)


def test_a_checkpoint_without_a_seal_is_one_of_release_0_1(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "last.pt")
    assert checkpoint.read(tmp_path / "last.pt")["progress"] == {"step": 1}


def test_a_sealed_checkpoint_is_a_file_that_torch_loads(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", STATE)
    assert torch.load(tmp_path / "last.pt", weights_only=True).keys() == STATE.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": "2"}, {"dim": 10**12}, {"model": [1]}, {"model": {"weight": 1}}, {"model": None},
        {"model": {"weight": torch.ones(2).to_sparse()}}, {"model": {3: torch.ones(1)}},
        {"ema": 1}, {"optimizer": []}, {"generator": "0"}, {"generator": torch.ones(3)},
        {"progress": []}, {"progress": {"step": "1"}}, {"config": []}, {"config": {"schema": "x"}},
        {"config": {"schema": 0}}, {"config": {"schema": SCHEMA, "x": torch.ones(1)}},
        {"model": {"weight": torch.empty(2, device="meta")}},
    ],
)  # fmt: skip
def test_a_well_formed_checkpoint_that_holds_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {**STATE, **changes})
    with pytest.raises(CheckpointError, match=r"last\.pt .*(no checkpoint|newer)"):
        checkpoint.read(path)
    for missing in ("dim", "generator", "optimizer"):
        checkpoint.save(path, {key: value for key, value in STATE.items() if key != missing})
        with pytest.raises(CheckpointError, match="no checkpoint of flowtrain's"):
            checkpoint.read(path)


def test_an_archive_that_unfolds_is_refused_without_unfolding_it(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    with ZipFile(path) as archive, ZipFile(tmp_path / "bomb.pt", "w", ZIP_DEFLATED) as bomb:
        for member in archive.infolist():
            bomb.writestr(member.filename, archive.read(member))
        bomb.writestr("archive/more", bytes(10**7))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.read(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "weight is (1, 3), not (1, 2)"),
        ({"bias": torch.zeros(1)}, "weight is missing"),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.zeros(1, dtype=torch.float64)},
            "bias is of torch.float64, not torch.float32",
        ),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.full((1,), torch.nan)},
            "bias has numbers that are NaN or infinite",
        ),
    ],
)
def test_weights_are_loaded_whole_or_not_at_all(
    weights: dict[str, torch.Tensor], problem: str
) -> None:
    layer = torch.nn.Linear(2, 1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(layer, weights)
    assert str(caught.value) == f"the weights do not fit the model: {problem}"
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


# --- what a run saves ---------------------------------------------------------------------------


def parts(state: Any) -> Iterator[Any]:
    yield state
    if isinstance(state, dict):
        for key, value in state.items():
            yield key
            yield from parts(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from parts(value)


def test_a_run_saves_plain_containers_and_everything_it_needs(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("trainer.ema=0.9", "trainer.max_steps=2", model="ffjord")
    train(config, tmp_path)
    for name in ("last", "best"):
        state = torch.load(tmp_path / "checkpoints" / f"{name}.pt", weights_only=True)
        assert {type(part) for part in parts(state)} - {*PLAIN} <= {type(state["model"])}
        assert {*state} == {
            "config", "dim", "model", "ema", "optimizer", "generator", "progress", "columns",
            "grid",
        }  # fmt: skip
        assert state["config"] == {"schema": SCHEMA, **config.model_dump()}
        assert checkpoint.read(tmp_path / "checkpoints" / f"{name}.pt")["config"] == (
            config.model_dump()
        )


def test_a_saved_state_does_not_alias_the_live_weights(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run = build_run(tiny("trainer.ema=0.9"), RunFolder(tmp_path))
    run.save("best")
    before = [weight.clone() for weight in run.state.flow.parameters()]
    with torch.no_grad():
        for weight in [*run.state.flow.parameters(), *run.state.eval_flow.parameters()]:
            weight.add_(1.0)
    best = checkpoint.read(tmp_path / "checkpoints" / "best.pt")
    for saved, (name, _) in zip(before, run.state.flow.named_parameters(), strict=True):
        assert torch.equal(best["model"][name], saved)
        assert torch.equal(best["ema"][f"module.{name}"], saved)


def test_a_state_from_another_kind_of_device_draws_other_batches_than_the_first(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run = build_run(tiny(), RunFolder(tmp_path))
    state = run.state.state_dict(saved_config(run.config))
    state["generator"] = torch.zeros(16, dtype=torch.uint8)  # as long as a GPU's
    state["progress"]["step"] = 7
    fresh = torch.rand(5, generator=run.state.generator)
    run.state.load_state_dict(state)
    assert not torch.equal(torch.rand(5, generator=run.state.generator), fresh)
    assert run.progress.step == 7
