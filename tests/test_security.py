"""What SECURITY.md promises, each promise by its number, on the folder of a stranger."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch

from flowtrain.cli import flowrun as commands
from flowtrain.config.schema import Config
from flowtrain.errors import CheckpointError, UserError
from flowtrain.runs import checkpoint
from flowtrain.runs.load import load, open_run
from flowtrain.training.trainer import train

Flowtrain = Callable[..., subprocess.CompletedProcess[str]]
Flowrun = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """Promise 9: a folder is opened or refused in seconds."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 20


@pytest.fixture(scope="module")
def trained(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("of_a_stranger") / "run"
    train(tiny("trainer.max_steps=2", "logger=none"), folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run of two steps, to be spoilt; it lies where commands work."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run")).relative_to(tmp_path)


@pytest.fixture
def flowrun(capsys: pytest.CaptureFixture[str]) -> Flowrun:
    """Return a function that runs the command `flowrun` here: its status and what it said."""

    def flowrun(*arguments: str | Path) -> tuple[int, str, str]:
        code = commands.execute([str(each) for each in arguments])
        return code, *capsys.readouterr()

    return flowrun


def forge(run: Path, **settings: Any) -> None:
    """Change settings of both checkpoints, group__key=value, and seal them again."""
    for name in ("last.pt", "best.pt"):
        state = torch.load(run / "checkpoints" / name, weights_only=True)
        for key, value in settings.items():
            *groups, last = key.split("__")
            part = state["config"]
            for group in groups:
                part = part[group]
            part[last] = value
        checkpoint.save(run / "checkpoints" / name, state)


def refused(told: tuple[int, str, str], reason: str) -> None:
    """Check that a command failed, with one line that gives the reason."""
    code, _, err = told
    assert code == 1
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert reason in err


class Executed:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("executed",)


def test_1_no_pickle_is_executed(run: Path, flowrun: Flowrun) -> None:
    torch.save({"config": {}, "model": Executed(), "progress": {}}, run / "checkpoints/best.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of flowtrain's"):
        load(run)
    refused(flowrun("sample", run, "-n", "3", "-o", "-"), "no checkpoint of flowtrain's")
    assert not Path("executed").exists()


def test_1_no_object_array_is_executed(run: Path, flowrun: Flowrun) -> None:
    np.save("points.npy", np.array([Executed(), 1.0], dtype=object), allow_pickle=True)
    refused(flowrun("score", run, "points.npy"), "points.npy")
    assert not Path("executed").exists()


def test_1_no_tag_of_yaml_is_executed(run: Path, flowrun: Flowrun) -> None:
    (run / ".hydra").mkdir()
    (run / ".hydra/config.yaml").write_text("model: !!python/object/apply:os.mkdir [executed]\n")
    result = json.loads((run / "result.json").read_text())
    del result["config"]
    (run / "result.json").write_text(json.dumps(result))
    assert flowrun("compare", run)[0] == 0
    assert not Path("executed").exists()


def test_1_no_interpolation_is_resolved(
    run: Path, flowtrain: Flowtrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    forge(run, init_from="${oc.env:TOKEN}")
    assert open_run(run).config.init_from == "${oc.env:TOKEN}"
    told = flowtrain("resume=run", "trainer.max_steps=3")
    assert told.returncode == 0
    assert not any(b"hunter2" in each.read_bytes() for each in run.rglob("*") if each.is_file())


def test_2_code_that_a_folder_names_is_not_imported(run: Path, flowrun: Flowrun) -> None:
    Path("stranger_code.py").write_text("raise SystemExit('executed')")
    forge(run, data={"name": "custom", "target": "stranger_code:Density", "arguments": {}})
    refused(flowrun("evaluate", run), "if you trust that code")
    assert "stranger_code" not in sys.modules


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "flowtrain.log"])
def test_3_nothing_is_written_through_a_link(run: Path, flowtrain: Flowtrain, name: str) -> None:
    Path("mine").write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(Path("mine").absolute())
    told = flowtrain("resume=run", "trainer.max_steps=3")
    refused((told.returncode, told.stdout, told.stderr), f"{name}: refused: it is a link")
    assert Path("mine").read_text() == "mine"


def test_4_no_file_is_read_through_a_link_nor_a_pipe(run: Path, flowrun: Flowrun) -> None:
    best = run / "checkpoints/best.pt"
    best.rename("elsewhere.pt")
    best.symlink_to(Path("elsewhere.pt").absolute())
    refused(flowrun("evaluate", run), "refused: it leads out of run")
    best.unlink()
    os.mkfifo(best)
    with pytest.raises(UserError):
        load(run)
    (run / "result.json").unlink()
    os.mkfifo(run / "result.json")
    assert flowrun("compare", run)[0] == 1


def test_5_a_table_is_opened_by_what_must_read_it_alone(
    tiny_on_table: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flowrun: Flowrun,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savetxt("rows.csv", np.random.default_rng(0).normal(size=(60, 2)), delimiter=",")
    train(tiny_on_table("rows.csv", "trainer.max_steps=2", "logger=none"), Path("run"))
    Path("rows.csv").unlink()
    os.mkfifo("rows.csv")  # whoever opened it to read would wait, or say so
    assert load("run").dim == 2
    assert flowrun("sample", "run", "-n", "3", "-o", "-")[0] == 0
    assert flowrun("compare", "run")[0] == 0
    refused(flowrun("evaluate", "run"), "rows.csv: this is no regular file")


def test_6_a_compressed_checkpoint_is_not_unfolded(run: Path) -> None:
    best = run / "checkpoints/best.pt"
    with ZipFile(best) as archive, ZipFile("folded.pt", "w", ZIP_DEFLATED) as folded:
        for member in archive.namelist():
            folded.writestr(member, archive.read(member))
    shutil.move("folded.pt", best)
    with pytest.raises(CheckpointError, match="no checkpoint of flowtrain's"):
        load(run)


def test_6_a_result_beyond_its_size_is_not_read(run: Path, flowrun: Flowrun) -> None:
    os.truncate(run / "result.json", 2**40)
    assert flowrun("compare", run)[0] == 1


def test_7_what_does_not_fit_the_memory_is_refused_before_it_is_taken(
    run: Path, flowrun: Flowrun
) -> None:
    forge(run, model__couplings=1000, model__hidden=2**16, model__depth=1000)
    refused(flowrun("sample", run, "-n", "3", "-o", "-"), "of memory")


HOSTILE = "\x1b[2J<script>alert(1)</script> $\\frac{ [x](javascript:x)|"


def test_8_names_are_shown_and_not_obeyed(run: Path, flowrun: Flowrun) -> None:
    result = json.loads((run / "result.json").read_text())
    result["model"] = result["config"]["model"]["name"] = HOSTILE
    named = run.rename("run \x1b[31m<b>")
    (named / "result.json").write_text(json.dumps(result))
    code, out, err = flowrun("compare", named, "-o", "table.md", "--figure", "curves.png")
    assert code == 0
    table = Path("table.md").read_text()
    assert (out + err + table).replace("\n", "").isprintable()
    assert "<script>" not in table
    assert Path("curves.png").stat().st_size > 1000


def test_9_a_refusal_is_one_line_that_a_terminal_may_show(run: Path, flowrun: Flowrun) -> None:
    forge(run, seed="\x1b[2J\nx", dtype="float16", model__hidden=-1)
    refused(flowrun("evaluate", run), "its config is refused")


def test_10_a_checksum_finds_damage_and_not_forgery(run: Path) -> None:
    best = run / "checkpoints/best.pt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load(run)
    shutil.copy(run / "checkpoints/last.pt", best)
    forge(run, seed=7)
    assert open_run(run).config.seed == 7


# --- what surrounds a run: its name and its streams ---------------------------------------------


@pytest.mark.parametrize("name", ["it's", "${oc.env:HOME}", "two\nlines", "a=b, c"])
def test_a_folder_of_any_name_goes_on(run: Path, flowtrain: Flowtrain, name: str) -> None:
    run.rename(name)
    told = flowtrain(f"resume={name}", "trainer.max_steps=3")
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(Path(name, "result.json").read_text())["step"] == 3
    assert [each.name for each in Path().iterdir()] == [name]


def test_closed_streams_end_no_run_and_reach_no_file(run: Path) -> None:
    command = [sys.executable, "-m", "flowtrain", "resume=run", "trainer.max_steps=3"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, check=False).returncode == 0
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert load(run, "last").dim == 2


def test_a_stream_of_ascii_is_written_with_escapes(
    run: Path, flowtrain: Flowtrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert flowtrain("resume=run", "trainer.max_steps=3").returncode == 0
    sys.stdout.flush()
    assert b"\\xb1" in written.getvalue()  # the ± of a standard error


class Head(io.RawIOBase):
    """A pipe whose reader leaves once it has read so many lines."""

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self.reader, self.pipe = os.pipe()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.pipe

    def write(self, content: Any) -> int:
        if self.lines <= 0:
            raise BrokenPipeError
        self.lines -= bytes(content).count(b"\n")
        return len(content)


@pytest.mark.parametrize(("lines", "code"), [(1, 1), (3, 1), (5, 128 + signal.SIGTERM)])
def test_a_reader_that_leaves_ends_the_run_in_silence(
    run: Path, flowtrain: Flowtrain, monkeypatch: pytest.MonkeyPatch, lines: int, code: int
) -> None:
    head = Head(lines)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(cast(IO[bytes], head)))
    told = flowtrain("resume=run", "trainer.max_steps=30")
    assert (told.returncode, told.stderr) == (code, "")
    begun = code != 1
    status = json.loads((run / "result.json").read_text())["status"]
    assert status == ("interrupted" if begun else "completed")
    monkeypatch.undo()
    os.close(head.reader)
