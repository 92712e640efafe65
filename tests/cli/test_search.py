"""`sweep=optuna` on the command line."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from flowtrain.cli.search_space import search_space
from flowtrain.errors import UserError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import write_result
from hydra_plugins.flowtrain_sweepers import OptunaSweeper

Flowtrain = Callable[..., subprocess.CompletedProcess[str]]


def space_of(*overrides: str) -> tuple[dict[str, str], dict[str, Any]]:
    return search_space(OverridesParser.create().parse_overrides(list(overrides)))


def test_hydra_s_syntax_says_what_is_searched() -> None:
    distributions = pytest.importorskip("optuna.distributions")
    floats, ints = distributions.FloatDistribution, distributions.IntDistribution
    fixed, space = space_of(
        "model=spline", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "trainer.ema=interval(0,0.5)",
        "model.hidden=int(interval(8,64))", "model.couplings=range(1,8,3)",
        "trainer.clip=range(0.5,2,0.5)", "optimizer=adam,adamw", "seed=choice(1,2)", "seed=3",
    )  # fmt: skip
    assert fixed == {"model": "spline", "seed": "3"}
    assert space == {
        "optimizer.lr": floats(1e-4, 1e-1, log=True),
        "trainer.ema": floats(0.0, 0.5),
        "model.hidden": ints(8, 64),
        "model.couplings": ints(1, 7, step=3),
        "trainer.clip": floats(0.5, 1.5, step=0.5),
        "optimizer": distributions.CategoricalDistribution(["adam", "adamw"]),
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=spline"], "there is nothing to search"),
        (["seed=range(3,3)"], "seed=range"),
        (["optimizer.lr=interval(1,0.1)"], "optimizer.lr=interval"),
        (["optimizer.lr=tag(log,interval(0,0.1))"], "optimizer.lr=tag"),
    ],
)
def test_an_empty_space_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(UserError) as refused:
        space_of(*overrides)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_search_says_nothing_while_it_waits_for_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(RunFolder(tmp_path / "0-trial"), status="completed", metrics={})
    batches = iter([[SimpleNamespace(number=0)]] * 3 + [[]])
    told = iter([[], ["trial 0: failed", "trial 1: pruned"], []])
    waited: list[float] = []
    monkeypatch.setattr("flowtrain.sweeps.study.next_trials", lambda *_, **__: next(batches))
    monkeypatch.setattr("flowtrain.sweeps.study.tell", lambda *_, **__: next(told))
    monkeypatch.setattr("time.sleep", waited.append)
    sweeper = OptunaSweeper(n_jobs=1)
    sweeper.config = OmegaConf.create({"hydra": {"overrides": {"hydra": []}}})
    sweeper._search(None, tmp_path, [], {}, {})
    assert capsys.readouterr().out == "trial 0: failed\ntrial 1: pruned\n"
    assert len(waited) == 2


def test_a_search_without_optuna_says_how_to_install_it(
    flowtrain: Flowtrain, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flowtrain.config.section.find_spec", lambda _: None)
    lr = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
    told = flowtrain("-m", "sweep=optuna", *tiny_overrides, lr, "hydra.sweeper.n_trials=3")
    assert told.returncode == 1
    assert told.stderr == ("flowtrain: sweep=optuna is an extra: pip install 'flowtrain[optuna]'\n")
    assert not [*tmp_path.iterdir()]


def test_a_search_prunes_reports_and_goes_on(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    command = [
        "-m", "sweep=optuna", *tiny_overrides, "trainer.evaluate_every=5", "hydra.sweep.dir=sweep",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))", "hydra.sweeper.startup_trials=2",
    ]  # fmt: skip
    told = flowtrain(*command, "hydra.sweeper.n_trials=4")
    assert (told.returncode, told.stderr) == (0, "")
    results = {
        path.parent.name: json.loads(path.read_text())
        for path in (tmp_path / "sweep").glob("*/result.json")
    }
    assert results.keys() == {"0-trial", "1-trial", "2-trial", "3-trial"}
    completed = {n: r["metrics"]["kl/val"] for n, r in results.items() if r["status"] != "pruned"}
    best = min(completed, key=lambda name: completed[name])
    pasted = re.search(r"\n  (flowtrain .*)\n", told.stdout)
    assert pasted is not None
    lr = results[best]["config"]["optimizer"]["lr"]
    assert pasted[1].endswith(f" optimizer.lr={lr}")
    assert "sweep=" not in pasted[1]

    told = flowtrain("-m", "resume_sweep=sweep", "hydra.sweeper.n_trials=5")
    assert (told.returncode, told.stderr) == (0, "")
    assert "trial 4: " in told.stdout
    assert "trial 3: " not in told.stdout
    told = flowtrain(*command[:-2], "seed=1,2")
    assert told.stderr.startswith("flowtrain: sweep holds another study: its space differ; ")


def test_a_failed_trial_is_a_failure_and_not_the_end(
    flowtrain: Flowtrain, tiny_overrides: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    told = flowtrain(
        "-m", "sweep=optuna", *tiny_overrides, "hydra.sweep.dir=sweep", "optimizer.lr=1e30,1e-3",
        "hydra.sweeper.sampler=grid",
    )  # fmt: skip
    assert told.returncode == 1
    assert "trial 0: failed\n" in told.stdout
    assert "trial 1: " in told.stdout
    assert "0-trial (failed); the study counts them as failures" in told.stderr
