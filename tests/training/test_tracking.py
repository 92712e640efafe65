"""What a run leaves behind: TensorBoard, metrics.jsonl, figures, result.json, the log."""

import json
import logging
import math
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowtrain.config.logger import NoLogger
from flowtrain.config.schema import Config, validate
from flowtrain.evaluation.tags import board_tag
from flowtrain.live import console_lines
from flowtrain.runs import checkpoint
from flowtrain.runs.folder import RunFolder
from flowtrain.training import trainer, validation
from flowtrain.training.run import Run
from flowtrain.training.state import Progress
from flowtrain.training.step import train_step
from flowtrain.training.tracking import Tracker
from flowtrain.training.trainer import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2

Tiny = Callable[..., Config]
History = Callable[[Path], list[dict[str, Any]]]

LOGGED = {"loss", "nll/batch", "grad_norm", "lr", "speed/steps_per_second"}
MEASURED = {
    "nll/train", "nll_paired/train", "nll/val", "nll_paired/val", "nll_error/val", "nll/entropy",
    "kl/val", "kl_error/val",
}  # fmt: skip
FINAL = {
    "nll/test", "nll_paired/test", "nll_error/test", "kl/test", "kl_error/test", "kl_paired/test",
    "kl_paired_error/test", "mass/test", "inverse_error/test", "inverse_error_rms/test",
    "kl_reverse/test", "kl_reverse_error/test", "ess/test", "least_component/test",
}  # fmt: skip
CONTINUOUS = {
    "solver_gap/val", "solver_gap/test", "nfe/forward", "nfe/backward", "regularization/kinetic",
    "regularization/jacobian", "regularization/kinetic_weighted",
    "regularization/jacobian_weighted", "speed/milliseconds_per_evaluation",
}  # fmt: skip


def board(folder: Path) -> EventAccumulator:
    """Read a run folder as TensorBoard does, every event of it."""
    events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "images"), 0))
    return events.Reload()


def plugin(events: EventAccumulator, name: str, tag: str) -> bytes:
    content: bytes = events.SummaryMetadata(tag).plugin_data.content
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == name
    return content


@pytest.fixture(scope="module", params=["realnvp", "ffjord"])
def run(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Path]:
    """Return the config and the folder of a finished run with figures."""
    overrides = ["trainer.figures=true", "trainer.evaluate_every=20"]
    config = tiny(*overrides, model=request.param)
    folder = tmp_path_factory.mktemp(request.param)
    train(config, folder)
    return config, folder


def tags(config: Config) -> set[str]:
    return LOGGED | MEASURED | FINAL | (CONTINUOUS if config.model.name == "ffjord" else set())


def test_every_scalar_is_in_tensorboard_and_in_metrics_jsonl(
    run: tuple[Config, Path], history: History
) -> None:
    config, folder = run
    events = board(folder)
    assert {*events.Tags()["scalars"]} == {*map(board_tag, tags(config))}
    for line in history(folder):
        step, _ = line.pop("step"), line.pop("seconds")
        for tag, value in line.items():
            (shown,) = (e.value for e in events.Scalars(board_tag(tag)) if e.step == step)
            assert shown == pytest.approx(value, rel=1e-5)


def test_no_tag_has_two_values_for_one_step(run: tuple[Config, Path], history: History) -> None:
    counts = Counter((tag, line["step"]) for line in history(run[1]) for tag in line)
    assert {tag for (tag, _), count in counts.items() if count > 1} <= {"step", "seconds"}


def test_all_is_in_one_event_file(run: tuple[Config, Path]) -> None:
    assert len([path for path in run[1].rglob("*tfevents*") if path.is_file()]) == 1


def test_hparams_are_in_the_run_s_own_file_without_an_experiment(run: tuple[Config, Path]) -> None:
    config, folder = run
    events = board(folder)
    start = plugin(events, "hparams", "_hparams_/session_start_info")
    told = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info.hparams
    assert {*told} == {"model", "data", "lr", "seed"}
    assert told["lr"].number_value == config.optimizer.lr
    assert told["model"].string_value == config.model.name
    plugin(events, "hparams", "_hparams_/session_end_info")
    with pytest.raises(KeyError):
        events.SummaryMetadata("_hparams_/experiment")


def charts(events: EventAccumulator) -> dict[str, list[str]]:
    """Return the tags of each chart of CUSTOM SCALARS, by its title."""
    last = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    (category,) = layout_pb2.Layout.FromString(last).category
    return {chart.title: [each.value for each in chart.margin.series] for chart in category.chart}


def test_the_likelihoods_share_a_chart_with_the_entropy(run: tuple[Config, Path]) -> None:
    assert charts(board(run[1])) == KNOWN


BRIEF = (
    "trainer=debug", "trainer.device=cpu", "trainer.threads=1", "trainer.figures=false",
    "trainer.max_steps=2", "trainer.log_every=1", "evaluation.grid=16",
)  # fmt: skip
OF_OWN = [
    "data=unnormalized",
    "objective=reverse_kl",
    "data.target=own_bowl:bowl",
    "data.window=[-4,4]",
]
FEW = ("splits.val=64", "splits.test=64")
KNOWN = {
    "NLL (nats)": ["nll/batch", "nll/paired/train", "nll/paired/val", "nll/entropy"],
    "KL (nats)": ["kl/val"],
}
ELBO = {
    "ELBO (nats)": ["verification/elbo/batch", "verification/elbo/val", "verification/log_z/val"],
    "ESS": ["verification/ess/val"],
}
VARIATIONAL = {
    "KL(model | data) (nats)": ["samples/kl_reverse/batch", "samples/kl_reverse/val"], **ELBO
}  # fmt: skip
CHARTS = {
    "flow matching": ("ffjord", ["data=moons", "objective=flow_matching", *FEW], KNOWN),
    "a table": (
        "affine", ["data=sklearn", "data.name=iris"],
        {"NLL of rows (nats)": ["nll/batch", "nll/train", "nll/val"]},
    ),
    "points of a target": (
        "affine", ["data=u1", "objective=reverse_kl", *FEW], KNOWN | VARIATIONAL
    ),
    "log Z by quadrature": ("affine", [*OF_OWN, "data.dim=1"], VARIATIONAL),
    "log Z unknown": ("affine", [*OF_OWN, "data.dim=3"], ELBO),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHARTS)
def test_a_run_of_each_kind_has_charts_of_its_validation(
    kind: str,
    compose: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, overrides, expected = CHARTS[kind]
    code = (
        "import torch\n\ndef bowl(x: torch.Tensor) -> torch.Tensor:\n    return -x.pow(4).sum(1)\n"
    )
    (tmp_path / "own_bowl.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    config = validate(compose(f"model={model}", *BRIEF, *overrides))
    train(config, tmp_path / "run")
    events = board(tmp_path / "run")
    assert charts(events) == expected
    written = {*events.Tags()["scalars"]}
    for tags in expected.values():
        assert {tag for tag in tags if tag.endswith("/val")} <= written


def test_the_config_and_the_environment_are_shown_as_text(run: tuple[Config, Path]) -> None:
    config, folder = run
    events = board(folder)
    shown = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(shown.removeprefix("```yaml").removesuffix("```")) == config.model_dump()
    assert b"torch" in events.Tensors("environment/text_summary")[0].tensor_proto.string_val[0]


def test_figures_are_images_and_files(run: tuple[Config, Path]) -> None:
    config, folder = run
    kinds = {"density", "paths"} if config.model.name == "ffjord" else {"density"}
    events = board(folder)
    assert {*events.Tags()["images"]} == {f"pictures/{kind}" for kind in kinds}
    for kind in kinds:
        assert {image.step for image in events.Images(f"pictures/{kind}")} == {20}
    names = {"step-000020", "final"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "curves-final.png",
        *(f"{kind}-{name}.png" for kind in kinds for name in names),
    }


def test_the_result_tells_status_metrics_and_environment(run: tuple[Config, Path]) -> None:
    config, folder = run
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "completed"
    assert (result["model"], result["data"]) == (config.model.name, config.data.name)
    assert result["step"] == 20
    assert {"nll/train", "nll/val", "kl/val", *FINAL} <= {*result["metrics"]}
    assert {"command", "flowtrain", "revision", "python", "torch", "device"} <= {
        *result["environment"]
    }
    assert all(math.isfinite(value) for value in result["metrics"].values())


def test_the_folder_holds_what_a_run_is_made_of(run: tuple[Config, Path]) -> None:
    names = {path.name for path in run[1].iterdir() if "tfevents" not in path.name}
    assert names == {"checkpoints", "figures", "metrics.jsonl", "result.json"}
    assert {path.name for path in (run[1] / "checkpoints").iterdir()} == {"best.pt", "last.pt"}


# --- after an interruption ----------------------------------------------------------------------


@pytest.mark.parametrize(("dies_at", "resumes_at"), [(17, 10), (7, 0)])
def test_a_run_that_is_killed_and_goes_on_shows_one_curve(
    tiny: Tiny,
    tmp_path: Path,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    dies_at: int,
    resumes_at: int,
) -> None:
    original = train_step

    def die(run: Run, tracker: Tracker) -> None:
        original(run, tracker)
        if run.progress.step == dies_at:
            raise KeyboardInterrupt

    config = tiny("trainer.log_every=1")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", die)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    assert checkpoint.read(tmp_path / "checkpoints/last.pt")["progress"]["step"] == resumes_at
    time.sleep(1.1)  # TensorBoard orders a folder's event files by the second
    train(config, tmp_path)

    events = board(tmp_path)
    assert [e.step for e in events.Scalars("training/loss")] == list(range(1, 21))
    assert charts(events)["NLL (nats)"][0] == "nll/batch"
    assert [e.step for e in events.Scalars("nll/val")] == [0, 10, 20]
    assert [line["step"] for line in history(tmp_path) if "loss" in line] == list(range(1, 21))
    assert [line["step"] for line in history(tmp_path) if "nll/val" in line] == [0, 10, 20]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(run: Run, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", die)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), tmp_path)
    train(tiny(), tmp_path)
    assert [e.step for e in board(tmp_path).Scalars("nll/val")] == [0, 10, 20]
    assert [line["step"] for line in history(tmp_path) if "nll/val" in line] == [0, 10, 20]


def test_half_a_line_is_taken_back(tmp_path: Path, history: History) -> None:
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}', '{"step": 2, "nll/va']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with Tracker(RunFolder(tmp_path), step=2, evaluated=2) as tracker:
        tracker.scalars(Progress(step=3), {"loss": math.inf})
    assert [(line["step"], line["loss"]) for line in history(tmp_path)] == [
        (1, 3.0), (2, 2.0), (3, None),
    ]  # fmt: skip


def test_a_folder_that_is_removed_under_a_run_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    none = NoLogger(name="none")
    with Tracker(RunFolder(folder), step=-1, evaluated=-1, logger=none) as tracker:
        tracker.scalars(Progress(step=1), {"loss": 1.0})
        shutil.rmtree(folder)
        with pytest.raises(FileNotFoundError, match="removed while the run was at work"):
            tracker.scalars(Progress(step=2), {"loss": 1.0})


def test_a_run_killed_in_its_closing_phase_closes_once(
    tiny: Tiny, tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole")

    def killed(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(validation, "final_report", killed)
        with pytest.raises(ZeroDivisionError):
            train(tiny(), tmp_path / "run")
    assert train(tiny(), tmp_path / "run").metrics == whole.metrics
    tags = [{*line} for line in history(tmp_path / "run")]
    assert sum("kl/test" in line for line in tags) == 1
    assert tags == [{*line} for line in history(tmp_path / "whole")]
    events = board(tmp_path / "run")
    for tag in ("kl/test", "nll/val", "loss"):
        points = [event.step for event in events.Scalars(board_tag(tag))]
        expected = board(tmp_path / "whole").Scalars(board_tag(tag))
        assert points == [event.step for event in expected], tag


# --- the console --------------------------------------------------------------------------------


def test_lines_are_printed_where_there_is_no_terminal(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with console_lines():
        train(tiny("trainer.log_every=1"), tmp_path)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "cpu: 68 parameters, 512 training points, 20 steps"
    assert lines[1].startswith("step      0  NLL ")
    assert any(line.lstrip().startswith("5%  step 1/20  KL ") for line in lines)
    for closing in ("KL(data | model)", "mass of the model", "run folder", "tensorboard --logdir"):
        assert closing in out
    assert logging.getLogger("flowtrain").handlers == []


def test_a_rate_counts_the_steps_since_the_last(tmp_path: Path) -> None:
    with Tracker(RunFolder(tmp_path), step=-1, evaluated=-1) as tracker:
        tracker.mark = (100, time.monotonic() - 2.0)
        assert tracker.rate(120) == pytest.approx(10, rel=0.2)
        assert tracker.mark[0] == 120
