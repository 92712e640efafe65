"""The new density of docs/extending.md, carried out as written: in a copy, and without one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"<!-- extend:.*?-->(.*?)<!-- end of extend -->", TEXT, re.DOTALL)
# Each file of the example: its name, whether the text goes to its end, and the text.
FILES = re.findall(r"`([\w/]+\.\w+)`(, at its end)?\n\n```\w+\n(.*?)```", EXAMPLE, re.DOTALL)
# A target's: its file, and the commands that use it.
(TARGET,) = re.findall(r"<!-- target:.*?-->(.*?)<!-- end of target -->", TEXT, re.DOTALL)
# A field and an objective of one's own: their files, and a command for each.
(OWN,) = re.findall(r"<!-- own:.*?-->(.*?)<!-- end of own -->", TEXT, re.DOTALL)
TINY = (
    "trainer=debug", "trainer.figures=false", "trainer.device=cpu", "splits.train=512",
    "splits.val=64", "splits.test=64", "evaluation.grid=64", "model=affine", "seed=1",
)  # fmt: skip


def python(folder: Path, *arguments: str, package: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(package)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(folder: Path, *arguments: str, package: Path) -> None:
    python(folder, "-m", "flowtrain", *arguments, *TINY, "hydra.run.dir=run", package=package)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package with the example's files."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("flowtrain", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, appended, text in FILES:
        path = copy / name
        path.write_text(path.read_text() + "\n\n" + text if appended else text)
    return copy


def test_the_example_is_three_files() -> None:
    names = [name for name, _, _ in FILES]
    assert names == [
        "flowtrain/densities/ellipse.py", "flowtrain/config/data.py", "conf/data/ellipse.yaml"
    ]  # fmt: skip


def test_a_density_in_the_package_takes_three_files(extended: Path, tmp_path: Path) -> None:
    run(tmp_path, "data=ellipse", "data.axes=[3.0,1.0]", package=extended)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["config"]["data"] == {"name": "ellipse", "axes": [3.0, 1.0]}
    # An affine flow starts at the moments of the training points: a Gaussian is met at once.
    assert 0 <= result["metrics"]["kl/test"] < 0.02


def test_the_new_density_keeps_to_the_contract_and_is_public(extended: Path) -> None:
    code = (
        "import flowtrain.densities as d\n"
        "from flowtrain.densities.check import check_density\n"
        "check_density(d.Ellipse(axes=[2.0, 1.0]))\n"
        "assert 'Ellipse' in dir(d)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=extended,
        env={**os.environ, "PYTHONPATH": str(extended)},
    )  # fmt: skip


def test_a_new_section_is_offered_and_checked_at_once(extended: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    command = [sys.executable, "-m", "flowtrain"]
    told = subprocess.run(
        [*command, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "eight_gaussians, ellipse, funnel" in told.stdout
    refused = subprocess.run(
        [*command, "data=ellipse", "data.axes=[1.0,-1.0]"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr.startswith("flowtrain: data.axes.1: -1.0 is refused")
    assert len(refused.stderr.splitlines()) == 1


def test_a_density_of_ones_own_needs_no_copy(tmp_path: Path) -> None:
    (text,) = (text for name, _, text in FILES if name.endswith("ellipse.py"))
    (tmp_path / "ellipse.py").write_text(text)
    run(
        tmp_path, "data=custom", "data.target=ellipse:Ellipse", "data.arguments.axes=[2.0,1.0]",
        package=ROOT,
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["data"]["target"] == "ellipse:Ellipse"
    assert 0 <= result["metrics"]["kl/test"] < 0.02


@pytest.mark.parametrize("piece", ["field", "objective"])
def test_a_field_and_an_objective_of_ones_own_train(tmp_path: Path, piece: str) -> None:
    for file, source in re.findall(r"`(\w+\.py)`\n\n```python\n(.*?)```", OWN, re.DOTALL):
        (tmp_path / file).write_text(source)
    (command,) = re.findall(rf"^flowtrain .*=my_{piece}:.*", OWN, re.MULTILINE)
    few = ("trainer.max_steps=3", "trainer.log_every=1", "evaluation.grid=16", "model=realnvp")
    asked = [*TINY, *few, *shlex.split(command)[1:]]
    python(tmp_path, "-m", "flowtrain", *asked, "hydra.run.dir=run", package=ROOT)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    tag = {"field": "nll/batch", "objective": "nll/blurred"}[piece]
    assert sum(tag in json.loads(line) for line in lines) == 3


def test_a_target_known_up_to_a_constant_is_a_function(
    tmp_path: Path,
) -> None:
    (file,) = re.findall(r"`(\w+\.py)`", TARGET)
    source, commands = re.findall(r"```(?:python)?\n(.*?)```", TARGET, re.DOTALL)
    (tmp_path / file).write_text(source)
    lines = commands.replace("\\\n", "").strip().splitlines()
    train, sample = map(shlex.split, lines)
    brief = (
        "trainer=debug", "trainer.device=cpu", "trainer.max_steps=400", "model=affine",
        "trainer.evaluate_every=400", "optimizer=adam", "optimizer.lr=0.03",
    )  # fmt: skip
    told = python(tmp_path, "-m", *train, *brief, package=ROOT)
    assert "  log Z by weights " in told
    assert "NLL" not in told
    metrics = json.loads((tmp_path / "outputs" / "line" / "result.json").read_text())["metrics"]
    # -5.782 is log Z by a sum over a grid of the three weights.
    assert metrics["elbo/test"] < -5.782 < metrics["log_z/test"] + 4 * metrics["log_z_error/test"]
    assert metrics["ess/test"] > 0.3
    assert not any(tag.startswith(("nll", "kl")) for tag in metrics)
    python(tmp_path, "-m", "flowtrain.cli.flowrun", *sample[1:], package=ROOT)
    assert (tmp_path / "draws.csv").read_text().startswith("x0,x1,x2,log_prob")
