"""`flowrun sample`: the flow's own points, to the bit, in every format."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import flowtrain
from flowtrain.data.read import read_table

Flowrun = Callable[..., subprocess.CompletedProcess[str]]
Launch = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_samples_are_the_flow_s_own_to_the_bit_in_every_format(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, model: str, suffix: str
) -> None:
    name = f"samples.{suffix}"
    told = flowrun(
        "sample", folders[model], "-n", "25", "-o", name, "--seed", "3", "--batch-size", "10"
    )
    assert (told.returncode, told.stdout) == (0, "")
    first, second = told.stderr.splitlines()
    assert first == f"flowrun: wrote 25 points, x0,x1, to {name}"
    assert second.startswith(
        f"flowrun: they are of {model} on gaussian_mixture in {folders[model]}"
    )
    assert "best weights, of step " in second
    assert ("rtol" in second) == (model == "ffjord")
    flow, generator = flowtrain.load(folders[model]), torch.Generator().manual_seed(3)
    expected = torch.cat([flow.sample(rows, generator) for rows in (10, 10, 5)])
    table = read_table(tmp_path / name, columns=None, header="auto")
    assert torch.equal(table.values.float(), expected)
    assert table.columns == ("x0", "x1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_points_come_with_their_log_prob(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, model: str
) -> None:
    arguments = ("-n", "25", "-o", "told.csv", "--seed", "3", "--batch-size", "10")
    flowrun("sample", folders[model], *arguments, "--log-prob")
    flow, generator = flowtrain.load(folders[model]), torch.Generator().manual_seed(3)
    batches = [flow.sample_with_log_prob(rows, generator) for rows in (10, 10, 5)]
    x, log_q = (torch.cat(each) for each in zip(*batches, strict=True))
    told = read_table(tmp_path / "told.csv", columns=None, header="auto")
    assert told.columns == ("x0", "x1", "log_prob")
    assert torch.equal(told.values.float(), torch.cat([x, log_q[:, None]], 1))


def test_arrays_are_stored_in_the_flow_s_dtype(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    for suffix in ("npy", "parquet"):
        flowrun("sample", folders["realnvp"], "-n", "7", "-o", f"s.{suffix}", "--batch-size", "3")
    assert np.load(tmp_path / "s.npy", mmap_mode="r").dtype == np.float32
    written = pq.ParquetFile(tmp_path / "s.parquet")
    assert written.num_row_groups == 3
    assert {str(field.type) for field in written.schema_arrow} == {"float"}


def test_the_same_seed_gives_the_same_bits(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path
) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flowrun("sample", folders["realnvp"], "-n", "50", "-o", f"{name}.npy", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.npy").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_missing_pyarrow_is_told(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = flowrun("sample", folders["realnvp"], "-n", "7", "-o", "s.parquet")
    assert told.stderr == (
        "flowrun: writing Parquet needs pyarrow: pip install 'flowtrain[parquet]'\n"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_told_in_one_line_and_keeps_the_old_file(
    flowrun: Flowrun,
    folders: dict[str, Path],
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    (tmp_path / "s.npy").write_text("old")
    with full_disk(10_000):
        told = flowrun("sample", folders["realnvp"], "-n", "100000", "-o", "s.npy")
    assert (told.returncode, told.stderr) == (1, "flowrun: cannot write s.npy: File too large\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_ended_command_leaves_no_half_written_file(
    launch_flowrun: Launch, folders: dict[str, Path], tmp_path: Path
) -> None:
    many = str(10**9)
    process = launch_flowrun("sample", folders["realnvp"], "-n", many, "-o", tmp_path / "s.npy")
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("s.npy.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any(tmp_path.glob("s.npy.*.tmp"))
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM
    assert [*tmp_path.iterdir()] == []


def test_a_reader_that_has_seen_enough_is_no_mistake(
    launch_flowrun: Launch, folders: dict[str, Path]
) -> None:
    with launch_flowrun("sample", folders["realnvp"], "-n", "1000000", "-o", "-") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x0,x1\n"
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_is_told_in_one_line(
    launch_flowrun: Launch, folders: dict[str, Path]
) -> None:
    with Path("/dev/full").open("w") as full:
        process = launch_flowrun("sample", folders["realnvp"], "-n", "10", "-o", "-", stdout=full)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (
        1, "flowrun: standard output: No space left on device\n",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_points_beyond_the_disk_are_refused_before_they_are_drawn(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    told = flowrun("sample", folders["realnvp"], "-n", f"{10**17}", "-o", f"new/x.{suffix}")
    assert (told.returncode, told.stdout) == (1, "")
    size = {"csv": "2.2 EB", "npy": "800 PB"}[suffix]
    assert told.stderr.startswith(
        f"flowrun: new/x.{suffix}: 100,000,000,000,000,000 points take about {size}; its disk has "
    )
    assert told.stderr.endswith(" free\n")
    assert not [*tmp_path.iterdir()]
