"""`flowrun diagnose`: words, figures and a page from a run's folder."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Flowrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("model", ["realnvp", "ffjord"])
def test_a_run_is_diagnosed_in_words_and_on_a_page(
    flowrun: Flowrun, folders: dict[str, Path], tmp_path: Path, model: str
) -> None:
    told = flowrun("diagnose", folders[model], "-o", "report", "--batch-size", "1000")
    assert told.returncode == 0, told.stderr
    *findings, summary = told.stdout.splitlines()
    assert {line.split()[0] for line in findings} <= {"fits", "off"}
    assert [line.split()[1] for line in findings] == [
        "coverage:", "base:", "classifier:", "marginals:", "tails:", "weights:",
    ]  # fmt: skip
    good = sum(line.startswith("fits") for line in findings)
    assert summary == f"{good} of 6 tests find nothing, by 64 test points"
    assert told.stderr == "flowrun: wrote report/diagnosis.json and diagnosis.png\n"
    found = json.loads((tmp_path / "report" / "diagnosis.json").read_text())
    assert found["points"] == 64
    assert (tmp_path / "report" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_finds_the_same(flowrun: Flowrun, folders: dict[str, Path]) -> None:
    for seed, name in (("1", "a"), ("1", "b"), ("2", "c")):
        flowrun("diagnose", folders["realnvp"], "-o", name, "--seed", seed)
    a, b, c = (Path(name, "diagnosis.json").read_text() for name in "abc")
    assert a == b != c


def test_a_run_of_few_test_points_is_refused(
    flowrun: Flowrun, tiny: Callable[..., object], tmp_path: Path
) -> None:
    from flowtrain.training.trainer import train

    train(tiny("splits.test=19"), tmp_path / "few")  # type: ignore[arg-type]
    told = flowrun("diagnose", tmp_path / "few")
    assert told.returncode == 1
    assert "a diagnosis needs at least 20 test points, there are 19" in told.stderr
