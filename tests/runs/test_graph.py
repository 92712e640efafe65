"""Exports run elsewhere: as exact as they say, whitening inside, at any batch size."""

import copy
import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowtrain.build import build_flow
from flowtrain.config.model import BASES, Model
from flowtrain.config.schema import Config
from flowtrain.config.section import names, options
from flowtrain.config.solver import Adaptive, FixedStep
from flowtrain.errors import UserError
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow, Standardize
from flowtrain.flows.traceable import RungeKutta
from flowtrain.flows.whiten import Whiten
from flowtrain.runs.graph import Function, Graph, save_onnx, save_pt2, trace
from flowtrain.runs.load import SavedRun

slow = pytest.mark.slow
FUNCTIONS: tuple[Function, ...] = ("log_prob", "sample")
DISCRETE = [
    name
    for each in options(Model)
    for name in names(each)
    if name not in ("ffjord", "zuko", "normflows")
]
EXACT = Adaptive(name="dopri8", rtol=1e-8, atol=1e-8, max_steps=2000)


@pytest.fixture
def saved(
    tiny: Callable[..., Config], randomize: Callable[..., None], tmp_path: Path
) -> Callable[..., SavedRun]:
    """Return a builder of runs with random weights, and a whitening that is not the identity."""

    def saved(model: str, base: str = "normal") -> SavedRun:
        size = {**dict.fromkeys(("realnvp", "glow", "spline", "ffjord", "affine"), model)}
        small = size.get(model, "affine")
        extra = [] if model in size else [f"model={model}"]
        config = tiny(*extra, f"model.base={base}", model=small)
        mean, std = torch.tensor([3.0, -100.0]), torch.tensor([0.5, 20.0])
        flow = build_flow(config, Standardize(mean, std), seed=0)
        randomize(flow, torch.Generator().manual_seed(0))
        for weight in flow.parameters():
            weight.data.mul_(0.2 if model == "iaf" else 0.7)  # its inverse is d passes, and steep
        return SavedRun(tmp_path, config, flow.eval(), 6)

    return saved


def exact(flow: torch.nn.Module, function: Function, points: Tensor) -> Tensor:
    """Return what the flow itself gives in float64, an ODE solved as well as it can be."""
    flow = copy.deepcopy(flow).double()
    if isinstance(flow, ContinuousFlow):
        flow = flow.with_solver(EXACT)
    method = flow.log_prob if function == "log_prob" else flow.to_data
    with torch.no_grad():
        result: Tensor = method(points.double())  # type: ignore[operator]
    return result


def check(run: Callable[[Tensor], Tensor], saved: SavedRun, graph: Graph, off: float) -> None:
    """Hold an export to be as exact as the flow itself, in its own dtype, at any batch size."""
    function = graph.about["function"]
    itself = saved.flow.log_prob if function == "log_prob" else saved.flow.to_data
    scale = 1.0 if function == "log_prob" else 20.0
    with torch.no_grad():
        allowed = 1e-4 * scale + 4 * graph.off(itself)
    for n in (1, 2, 64):
        found = run(graph.inputs[0][:n])
        assert found.dtype == graph.inputs[0].dtype
        truth = exact(saved.flow, function, graph.inputs[0][:n])
        assert found.shape == truth.shape
        assert (found.double() - truth).abs().max() < allowed
    assert 0 < off < allowed


@pytest.mark.parametrize(
    ("model", "function"),
    [
        ("realnvp", "log_prob"),
        *(
            pytest.param(model, function, marks=slow)
            for model in DISCRETE
            for function in FUNCTIONS
            if (model, function) != ("planar", "log_prob")
        ),
    ],
)
def test_a_pt2_of_a_discrete_flow(
    saved: Callable[..., SavedRun], tmp_path: Path, model: str, function: Function
) -> None:
    run = saved(model)
    graph = trace(run, function)
    off = save_pt2(tmp_path / "model.pt2", graph)
    extra = {"flowtrain.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    check(program.module(), run, graph, off)
    told = json.loads(extra["flowtrain.json"])
    assert (told["format"], told["function"], told["dtype"]) == (1, function, "float32")
    assert told["config"]["model"]["name"] == model


@pytest.mark.parametrize("base", [each for each in BASES if each != "normal"])
def test_an_export_holds_its_base(
    saved: Callable[..., SavedRun], tmp_path: Path, base: str
) -> None:
    run = saved("affine", base)
    graph = trace(run, "log_prob")
    check(graph.program.module(), run, graph, save_pt2(tmp_path / "model.pt2", graph))
    told = json.loads(json.dumps(graph.about["base"]))
    assert told.pop("name") == base
    assert told
    for name, values in told.items():
        assert torch.equal(torch.tensor(values), getattr(run.flow.base, name).squeeze())
    if find_spec("onnxscript"):
        save_onnx(tmp_path / "model.onnx", graph)


@slow
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_continuous_flow_states_the_error_of_its_steps(
    saved: Callable[..., SavedRun], tmp_path: Path, function: Function
) -> None:
    run = saved("ffjord")
    graph = trace(run, function, steps=2)
    off = save_pt2(tmp_path / "model.pt2", graph)
    program = torch.export.load(tmp_path / "model.pt2").module()
    error = graph.about["solver"]["error"]
    assert (graph.about["solver"]["name"], graph.about["solver"]["steps"]) == ("rk4", 2)
    found = program(graph.inputs[0]).double()
    difference = found - exact(run.flow, function, graph.inputs[0])
    size = difference.abs() if function == "log_prob" else difference.norm(dim=1)
    assert size.max().item() == pytest.approx(error["max"], rel=0.1, abs=4 * off)
    assert size.square().mean().sqrt().item() == pytest.approx(error["rms"], rel=0.1, abs=4 * off)
    assert error["max"] > 10 * off  # or this compares nothing


def test_the_error_falls_with_the_fourth_power_of_the_steps(
    saved: Callable[..., SavedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)  # to measure needs no graph
    run = saved("ffjord")
    assert isinstance(run.flow, ContinuousFlow)
    run = SavedRun(run.folder, run.config, run.flow.with_solver(EXACT), 6)
    errors = [
        trace(run, "log_prob", steps=steps).about["solver"]["error"]["rms"]
        for steps in (16, 32, 64)
    ]
    for coarse, fine in pairwise(errors):
        assert 8 < coarse / fine < 32


def test_its_steps_are_those_of_the_solver_of_that_name(saved: Callable[..., SavedRun]) -> None:
    flow = saved("ffjord").flow
    assert isinstance(flow, ContinuousFlow)
    x = flow.sample(50, torch.Generator().manual_seed(0))
    rk4 = flow.with_solver(FixedStep(name="rk4", step_size=0.25))
    steps = RungeKutta(flow.cnf.field, dim=2, steps=4)
    drawn = Flow([steps], flow.standardize, flow.base)
    torch.testing.assert_close(drawn.log_prob(x), rk4.log_prob(x), rtol=0, atol=2e-5)
    assert (drawn.log_prob(x) - flow.log_prob(x)).abs().max() > 1e-4  # or this compares nothing


@pytest.mark.parametrize(
    ("model", "function", "steps", "message"),
    [
        ("realnvp", "log_prob", 8, "--steps: model=realnvp solves no ODE; leave it out"),
        pytest.param(
            "planar", "log_prob", None, "model=planar: its log_prob has no graph: ", marks=slow
        ),
    ],
)
def test_what_has_no_graph_is_refused(
    saved: Callable[..., SavedRun], model: str, function: Function, steps: int | None, message: str
) -> None:
    with pytest.raises(UserError) as told:
        trace(saved(model), function, steps=steps)
    assert str(told.value).startswith(message)
    assert len(str(told.value).splitlines()) == 1


# --- in the other runtime: `make test-extras` ---------------------------------------------------


@pytest.mark.parametrize(
    ("model", "function", "steps"),
    [
        *((model, each, None) for model in ("realnvp", "glow", "spline") for each in FUNCTIONS),
        ("ffjord", "log_prob", 4),
        ("ffjord", "sample", 8),
    ],
)  # fmt: skip
def test_an_onnx_runs_in_onnxruntime(
    saved: Callable[..., SavedRun],
    tmp_path: Path,
    model: str,
    function: Function,
    steps: int | None,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = saved(model)
    graph = trace(run, function, steps=steps)
    off = save_onnx(tmp_path / "model.onnx", graph)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (given.name, gives.name) == {"log_prob": ("x", "log_prob"), "sample": ("z", "x")}[
        function
    ]
    assert (given.type, isinstance(given.shape[0], str), given.shape[1]) == (
        "tensor(float)",
        True,
        2,
    )
    told: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map["flowtrain"])
    assert (told["function"], told["config"]["model"]["name"]) == (function, model)

    def run_there(points: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: points.numpy()})[0])

    if steps is None:
        check(run_there, run, graph, off)
        return
    difference = run_there(graph.inputs[0]).double() - exact(run.flow, function, graph.inputs[0])
    error = told["solver"]["error"]["max"]
    size = difference.abs() if function == "log_prob" else difference.norm(dim=1)
    assert size.max() < 1.1 * error + 4 * off


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_table_s_whitening_is_inside_in_float64(
    saved: Callable[..., SavedRun], tmp_path: Path, function: Function
) -> None:
    """An offset of 1e8, a heavy tail that is bent, and two columns that are correlated."""
    run = saved("affine")
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.stack([1e8 + x[:, 0], (x[:, 0] + x[:, 1]).sinh()], 1)
    run.flow.standardize = Whiten.fit(x, bend=True)
    assert run.flow.standardize.bent.tolist() == [False, True]
    graph = trace(run, function)
    assert graph.about["dtype"] == "float64"
    check(graph.program.module(), run, graph, graph.off(graph.program.module()))
    onnxruntime = pytest.importorskip("onnxruntime")
    off = save_onnx(tmp_path / "model.onnx", graph)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    name = session.get_inputs()[0].name
    check(lambda p: torch.from_numpy(session.run(None, {name: p.numpy()})[0]), run, graph, off)
