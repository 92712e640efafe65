"""The metrics of a trained flow: its NLL and KL at points, and all that is measured of it."""

import math

import torch
from torch import Tensor

from flowtrain.batching import in_batches
from flowtrain.config.solver import Solver
from flowtrain.data.condition_column import Category
from flowtrain.data.splits import Split, Splits
from flowtrain.densities.conditional import Conditional
from flowtrain.densities.density import Density
from flowtrain.evaluation.baselines import (
    class_gaussian_nll,
    gaussian_nll,
    kde_nll,
    linear_gaussian_nll,
)
from flowtrain.evaluation.distances import POINTS, sample_distances
from flowtrain.evaluation.quadrature import averaged, quadrature, quadratures
from flowtrain.evaluation.reverse import components, reverse, standard_error
from flowtrain.evaluation.tags import tagged
from flowtrain.flows.continuous import ContinuousFlow
from flowtrain.flows.flow import Flow
from flowtrain.flows.ode import SolverError
from flowtrain.progress import doing

CHECK_POINTS = 2_000  # tell a solver's gap and an inverse's error as well as a whole split would


def likelihood(flow: Flow, split: Split, *, batch_size: int) -> dict[str, float]:
    """Return the NLL of a split and, where its density is known, KL by the same points, in nats.

    Beside each stands its standard error; the paired mean of log p - log q has a fraction of the
    NLL's. So has `nll_paired`, the entropy plus that mean: the same NLL without the chance in
    which points were sampled, and never below the entropy but by the error of KL. Of no points
    there is nothing to return.

    Args:
        flow: the model.
        split: the points, (n, d).
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> found = likelihood(run.flow, run.splits.test, batch_size=1024)
    >>> {name: round(value, 2) for name, value in found.items()}
    {'nll': 3.69, 'nll_error': 0.06, 'kl': 1.4, 'kl_error': 0.11, 'nll_paired': 3.72}
    """
    if not len(split.x):
        return {}
    log_q = in_batches(flow.log_prob, split.x, batch_size, split.context).cpu().double()
    found = {"nll": -log_q.mean().item(), "nll_error": standard_error(log_q)}
    if split.density is not None:
        gap = split.log_p - log_q
        kl, entropy = gap.mean().item(), split.density.entropy
        found |= {"kl": kl, "kl_error": standard_error(gap), "nll_paired": entropy + kl}
    return found


def training_metrics(
    flow: Flow, splits: Splits, *, training_solver: Solver | None, batch_size: int
) -> dict[str, float]:
    """Return the metrics logged during training: NLL of both splits, KL on the validation points.

    Args:
        flow: the model.
        splits: of train, as many points are evaluated as val has.
        training_solver: of training, where it may read another likelihood than the flow's own.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> list(training_metrics(run.flow, run.splits, training_solver=None, batch_size=1024))[:3]
    ['nll/train', 'nll_paired/train', 'nll/val']
    """
    with doing("training points"):
        train = likelihood(flow, splits.train_sample, batch_size=batch_size)
    metrics = tagged({k: v for k, v in train.items() if k in ("nll", "nll_paired")}, "train")
    with doing("validation points"):
        metrics |= tagged(likelihood(flow, splits.val, batch_size=batch_size), "val")
    some = points_to_check(flow, splits.val)
    gap = solver_gap(flow, some, training_solver, batch_size=batch_size)
    return metrics | tagged(gap, "val")


def points_to_check(flow: Flow, split: Split) -> Split:
    """Return some points of a split; samples of the flow, from seed 0, where it has none.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> points_to_check(run.flow, run.splits.val).x.shape
    torch.Size([64, 2])
    """
    if len(split.x):
        return split.first(CHECK_POINTS)
    return Split(flow.sample(CHECK_POINTS, torch.Generator().manual_seed(0)))


def solver_gap(
    flow: Flow, split: Split, training_solver: Solver | None, *, batch_size: int
) -> dict[str, float]:
    """Return the NLL in nats by the training solver, minus the true one by the flow's own.

    There is none where nothing is solved, where training and evaluation solve alike, or where the
    training solver fails.

    >>> from flowtrain.config.solver import FixedStep
    >>> from flowtrain.runs.load import open_run
    >>> run, coarse = open_run(ffjord_folder), FixedStep(name="euler", step_size=1.0)
    >>> gap = solver_gap(run.flow, run.splits.val, coarse, batch_size=1024)["solver_gap"]
    >>> abs(gap) > 1e-4  # a single step of Euler reads another likelihood
    True
    """
    if training_solver is None or not isinstance(flow, ContinuousFlow):
        return {}
    plain = Split(split.x, context=split.context)
    try:
        trained = flow.with_solver(training_solver)
        with doing("training solver"):
            claimed = likelihood(trained, plain, batch_size=batch_size)["nll"]
    except SolverError:
        return {}
    with doing("evaluation solver"):
        return {"solver_gap": claimed - likelihood(flow, plain, batch_size=batch_size)["nll"]}


def evaluate(
    flow: Flow, splits: Splits, *, training_solver: Solver | None, grid: int, batch_size: int
) -> dict[str, float]:
    """Return every metric of a trained flow, by tag, in nats and in the data's coordinates.

    Where the density of the data is known that is KL by the test points and, in the plane, by
    quadrature; elsewhere the NLL stands beside two baselines'. Of a density known up to a constant
    in more dimensions there are the ELBO and what the weights of the flow's samples tell.

    Args:
        flow: in evaluation mode.
        splits: train, val and test, of the data it learned.
        training_solver: of training, where it may read another likelihood than the flow's own.
        grid: quadrature nodes per axis.
        batch_size: rows at a time.

    Raises:
        SolverError: the flow's own solver cannot go on.
        UserError: the density is not known, and a column is constant over the training rows.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> metrics = evaluate(run.flow, run.splits, training_solver=None, grid=64, batch_size=4096)
    >>> round(metrics["nll/test"], 2), round(metrics["mass/test"], 2)
    (3.69, 1.0)
    """
    density = splits.test.density
    metrics = training_metrics(flow, splits, training_solver=training_solver, batch_size=batch_size)
    with doing("test points"):
        found = likelihood(flow, splits.test, batch_size=batch_size)
    if density is None:
        with doing("baselines and samples"):
            found |= without_density(flow, splits, found["nll"])
    else:
        if "kl" in found:
            found["kl_paired"], found["kl_paired_error"] = found["kl"], found["kl_error"]
        if isinstance(density, Conditional) and density.dim <= 2:
            by_case = quadratures(flow, density, points=grid, batch_size=batch_size)
            found |= averaged(by_case)
            for case, each in by_case:
                metrics |= tagged(each, case.label)
        elif isinstance(density, Density) and density.normalized and density.dim <= 2:
            found |= quadrature(flow, density, points=grid, batch_size=batch_size)
        with doing("samples of the model"):
            found |= reverse(flow, density, batch_size=batch_size)
            if isinstance(density, Density):
                found |= components(flow, density, batch_size=batch_size)
        if math.isfinite(density.entropy):
            metrics["nll/entropy"] = density.entropy
    some = points_to_check(flow, splits.test)
    with doing("inverse"):
        found |= inverse_error(flow, some, batch_size=batch_size)
    found |= solver_gap(flow, some, training_solver, batch_size=batch_size)
    return metrics | tagged(found, "test")


def without_density(flow: Flow, splits: Splits, nll: float) -> dict[str, float]:
    """Return what stands in for KL where no density is known: baselines and sample distances.

    Chance comes from seed 0: the figures are of the flow and the points alone.

    Args:
        flow: the model.
        splits: train and test, of the data it learned.
        nll: of the test points, in nats.

    Raises:
        UserError: a column is constant over the training rows.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> list(without_density(run.flow, run.splits, nll=3.69))[:4]
    ['nll_gaussian', 'nll_kde', 'energy', 'mmd']
    """
    test = splits.test.x
    found = baselines(splits.train, splits.test)
    if splits.test.levels is not None:
        found["bits_per_dimension"] = bits_per_dimension(
            nll, dim=flow.dim, levels=splits.test.levels
        )
    generator = torch.Generator().manual_seed(0)
    number = min(len(test), POINTS)
    # At conditions of their own law, not of these very rows: so is the half that gives the floor.
    samples = flow.sample(number, generator, splits.train.draw_context(number, generator))
    return found | sample_distances(samples, test, generator=generator)


def baselines(train: Split, test: Split) -> dict[str, float]:
    """Return the NLLs in nats that a flow must beat on test points, all by the same conditions.

    Raises:
        UserError: a column is constant over the training rows.

    >>> context = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(50, 1)
    >>> x = context[:, :1] + torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    >>> from flowtrain.data.condition import ContextEncoder
    >>> condition = ContextEncoder((Category("smoker", ("no", "yes")),))
    >>> split = Split(x, context=context, condition=condition)
    >>> [*baselines(Split(x), Split(x))], [*baselines(split, split)]
    (['nll_gaussian', 'nll_kde'], ['nll_gaussian_linear', 'nll_gaussian_by_class'])
    """
    if train.context is None or test.context is None or train.condition is None:
        return {
            "nll_gaussian": gaussian_nll(train.x, test.x),
            "nll_kde": kde_nll(train.x, test.x, seed=0),
        }
    rows = (train.x, test.x, train.context, test.context)
    found = {"nll_gaussian_linear": linear_gaussian_nll(*rows)}
    if all(isinstance(column, Category) for column in train.condition.columns):
        by_class = class_gaussian_nll(*rows)
        if by_class is not None:
            found["nll_gaussian_by_class"] = by_class
    return found


@torch.no_grad()
def inverse_error(flow: Flow, split: Split, *, batch_size: int) -> dict[str, float]:
    """Return the largest and the rms entry of x - forward(inverse(x)), in the data's units.

    Args:
        flow: the model.
        split: the points, x.
        batch_size: rows at a time.

    >>> from flowtrain.runs.load import open_run
    >>> run = open_run(run_folder)
    >>> inverse_error(run.flow, run.splits.test, batch_size=1024)["inverse_error"] < 1e-5
    True
    """

    def off(x: Tensor, context: Tensor | None = None) -> Tensor:
        return x - flow.to_data(flow.inverse(x, context)[0], context)

    error = in_batches(off, split.x, batch_size, split.context)
    largest = error.abs().max().item()
    unit = largest or 1.0  # whose square may be beyond float64
    rms = unit * (error / unit).square().mean().sqrt().item()
    return {"inverse_error": largest, "inverse_error_rms": rms}


def bits_per_dimension(nll_nats: float, *, dim: int, levels: int) -> float:
    """Turn the NLL of dequantised points on [0, 1]^dim, in nats, into bits per dimension.

    A cell of side 1 / levels around a discrete point has probability P = ∫ q over the cell, and
    by Jensen -log P <= E[-log q] + dim log(levels): the bound nll / (dim log 2) + log2(levels)
    on the discrete points' code length (Theis et al. 2016, arXiv:1511.01844).

    >>> bits_per_dimension(0.0, dim=64, levels=256)  # a uniform density tells nothing of a byte
    8.0
    """
    return nll_nats / (dim * math.log(2)) + math.log2(levels)
