"""A run's flow as a graph for other runtimes: log_prob or sample, whitening inside, any n.

That of p(x | c) has a second input, the context.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowtrain.errors import UserError
from flowtrain.files import writing
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.flows.traceable import RungeKutta, make_traceable
from flowtrain.runs.load import SavedRun
from flowtrain.runs.weights import about, refuse_if_missing

Function = Literal["log_prob", "sample"]
# The name of what each takes and gives; of p(x | c) each takes a context as well.
NAMES = {"log_prob": ("x", "log_prob"), "sample": ("z", "x")}
ONNX = ("onnxscript", "onnxruntime")  # what writes it, and what runs it
CHECKED = 1000  # points that an export is measured by
STEPS = 16  # of a continuous flow, four evaluations each


@dataclass(frozen=True)
class Graph:
    """A traced function of a flow, and what it is checked by.

    Attributes:
        program: as torch.export has it.
        about: what the file says of itself.
        inputs: points, (n, d), and contexts, (n, c), where it takes some.
        truth: what the flow itself gives for them in float64, by the same steps.

    >>> graph = Graph(None, {}, inputs=(torch.ones(5, 2),), truth=torch.ones(5).double())
    >>> graph.off(lambda points: points[:, 0] + 0.5)
    0.5
    """

    program: Any
    about: dict[str, Any]
    inputs: tuple[Tensor, ...]
    truth: Tensor

    def off(self, run: Callable[..., Tensor]) -> float:
        """Return how far a runtime's outputs are from the truth, at most, at batches of n and 1."""
        whole, single = run(*self.inputs), run(*(each[:1] for each in self.inputs))
        return max(
            (whole.double() - self.truth).abs().max().item(),
            (single.double() - self.truth[:1]).abs().max().item(),
        )


class _Function(nn.Module):
    """One method of a flow as a module."""

    def __init__(self, flow: Flow, function: Function) -> None:
        super().__init__()
        self.flow, self.function = flow, function

    def forward(self, points: Tensor, context: Tensor | None = None) -> Tensor:
        if self.function == "log_prob":
            return self.flow.log_prob(points, context)
        return self.flow.to_data(points, context)


def trace(saved: SavedRun, function: Function, *, steps: int | None = None) -> Graph:
    """Trace a function of a run's flow.

    Args:
        saved: the run, on the CPU.
        function: "log_prob" of data points x, or "sample" from base points z, which are draws
            of the caller's.
        steps: of a continuous flow; None is `STEPS`. A discrete flow has none.

    Raises:
        UserError: the flow cannot be traced, or steps have no effect.

    >>> from flowtrain.runs.load import open_run
    >>> graph = trace(open_run(run_folder), "sample")
    >>> graph.off(graph.program.module()) < 1e-5
    True
    >>> graph.about["inputs"], graph.about["outputs"]
    ({'z': ['n', 2]}, {'x': ['n', 2]})
    """
    model = saved.config.model.name
    flow = copy.deepcopy(saved.flow).requires_grad_(False)
    takes, gives = NAMES[function]
    told: dict[str, Any] = {
        **about(saved),
        "function": function,
        "base": {"name": saved.config.model.base, **flow.base.described()},
        "dtype": str(flow.points_dtype).removeprefix("torch."),
        "inputs": {takes: ["n", flow.dim]},
        "outputs": {gives: ["n"] if function == "log_prob" else ["n", flow.dim]},
    }
    generator = torch.Generator().manual_seed(0)
    z = flow.sample_base(CHECKED, generator).to(flow.points_dtype)
    given: tuple[Tensor, ...] = ()
    if saved.condition is not None and flow.context_dim:
        given = (saved.condition.draw(CHECKED, generator).to(flow.points_dtype),)
        told["inputs"]["context"] = ["n", flow.context_dim]
    inputs = (flow.to_data(z, *given) if function == "log_prob" else z, *given)
    if isinstance(flow, ContinuousFlow):
        if function == "log_prob" and flow.cnf.divergence.probes is not None:
            raise UserError(
                f"model={model}: in {flow.dim} dimensions its log_prob is estimated by random "
                "probes, which no graph draws; export sample"
            )
        steps = STEPS if steps is None else steps
        transform = RungeKutta(
            flow.cnf.field, dim=flow.dim, steps=steps, context_dim=flow.context_dim
        )
        solved = Flow([transform], flow.standardize, flow.base)
        error = _solver_error(flow, solved, function, inputs)
        told["solver"] = {"name": "rk4", "steps": steps, "error": error}
        flow = solved
    elif steps is not None:
        raise UserError(f"--steps: model={model} solves no ODE; leave it out")
    truth = _Function(copy.deepcopy(flow).double(), function)(*(each.double() for each in inputs))
    make_traceable(flow)
    n = torch.export.Dim("n")
    try:
        with _quiet():
            program = torch.export.export(
                _Function(flow, function),
                tuple(each[:3] for each in inputs),
                dynamic_shapes=tuple({0: n} for _ in inputs),
                strict=True,
            )
    except Exception as error:  # whatever of the user's own field, or of the flow, has no graph
        why = str(error).partition("\n")[0]
        raise UserError(f"model={model}: its {function} has no graph: {why}") from error
    return Graph(program, told, inputs, truth)


def save_pt2(path: Path, graph: Graph) -> float:
    """Write a graph for torch.export.load; return how far it is from the flow in float64.

    Raises:
        UserError: the file cannot be written.

    >>> layer, n, x = torch.nn.Linear(2, 1), torch.export.Dim("n"), torch.ones(5, 2)
    >>> program = torch.export.export(layer, (x,), dynamic_shapes=({0: n},))
    >>> save_pt2(tmp_path / "model.pt2", Graph(program, {}, (x,), layer(x).double())) < 1e-6
    True
    """
    content = io.BytesIO()
    with _quiet():
        extra = {"flowtrain.json": json.dumps(graph.about)}
        torch.export.save(graph.program, content, extra_files=extra)
        content.seek(0)
        off = graph.off(torch.export.load(content).module())
    with writing(path) as file:
        file.write(content.getvalue())
    return off


def save_onnx(path: Path, graph: Graph) -> float:
    """Write a graph as ONNX; return how far it is, in onnxruntime, from the flow in float64.

    Raises:
        UserError: a package is missing, or the file cannot be written.

    >>> from flowtrain.runs.load import open_run
    >>> save_onnx(tmp_path / "model.onnx", trace(open_run(run_folder), "log_prob")) < 1e-4
    True
    """
    refuse_if_missing(*ONNX)
    import onnxruntime

    names, (gives,) = list(graph.about["inputs"]), graph.about["outputs"]
    with _quiet():
        program = torch.onnx.export(
            graph.program, input_names=names, output_names=[gives], dynamo=True, verbose=False
        )
    assert program is not None
    program.model.metadata_props["flowtrain"] = json.dumps(graph.about)
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        arrays = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run([gives], arrays)[0])

    off = graph.off(run)
    with writing(path) as file:
        file.write(content)
    return off


def _solver_error(
    flow: ContinuousFlow, solved: Flow, function: Function, inputs: tuple[Tensor, ...]
) -> dict[str, float]:
    """Return how far equal steps are from the evaluation solver, both in float64."""
    exact, fixed = copy.deepcopy(flow).double(), copy.deepcopy(solved).double()
    points = [each.double() for each in inputs]
    if function == "log_prob":
        off = fixed.log_prob(*points) - exact.log_prob(*points)
        mean = {"mean": off.mean().item()}
    else:
        off, mean = (fixed.to_data(*points) - exact.to_data(*points)).norm(dim=1), {}
    return {**mean, "rms": off.square().mean().sqrt().item(), "max": off.abs().max().item()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporters from telling what concerns their developers."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
