"""The words in which a run reports: a headline at each evaluation, a table at its end."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flowtrain.config.schema import Config
from flowtrain.evaluation.checks import LARGE_GAP
from flowtrain.evaluation.findings import in_columns, measured
from flowtrain.evaluation.spread import Spread
from flowtrain.evaluation.tags import METRICS
from flowtrain.training.state import Progress


def headline(metrics: dict[str, float]) -> str:
    """Say in a few words how good a model is.

    Args:
        metrics: by tag, of the validation or the test points.

    >>> headline({"nll/val": 2.5, "nll_error/val": 0.01})
    'NLL 2.5000 ± 0.0100 nats'
    >>> headline({"nll/test": 2.5, "kl/test": 0.1})
    'NLL 2.5000  KL 0.1000 nats'
    >>> headline({"elbo/val": 1.5, "elbo_error/val": 0.01, "ess/val": 0.9})
    'ELBO 1.5000 ± 0.0100 nats, ESS 0.900'
    """
    split = "test" if metrics.keys() & {"nll/test", "elbo/test"} else "val"
    if f"nll/{split}" not in metrics:
        return _headline_of_target(metrics, split)
    exact = f"nll_paired/{split}"
    nll = f"NLL {metrics[exact if exact in metrics else f'nll/{split}']:.4f}"
    if "kl/test" in metrics:
        return f"{nll}  KL {metrics['kl/test']:.4f} nats"
    if "kl/val" in metrics:
        kl = f"KL {metrics['kl/val']:.4f} ± {metrics['kl_error/val']:.4f}"
        if "kl_reverse/val" in metrics:
            kl += f"  KL(model | data) {metrics['kl_reverse/val']:.4f}"
        return f"{nll}  {kl} nats"
    return f"{nll} ± {metrics[f'nll_error/{split}']:.4f} nats"


def _headline_of_target(metrics: dict[str, float], split: str) -> str:
    """Say how good a model is of a target without points."""
    if "elbo/" + split not in metrics:
        return "ELBO -inf: a sample falls where the target has no density"
    told = f"ELBO {metrics[f'elbo/{split}']:.4f} ± {metrics[f'elbo_error/{split}']:.4f}"
    if f"kl_reverse/{split}" in metrics:
        told += f"  KL(model | data) {metrics[f'kl_reverse/{split}']:.4f}"
    return f"{told} nats, ESS {metrics[f'ess/{split}']:.3f}"


def headline_of_several(found: Mapping[str, Spread]) -> str:
    """Say in a few words how good several models are by the validation points.

    Args:
        found: their metrics, by tag.

    >>> headline_of_several({"nll/val": Spread((2.4, 2.6)), "kl/val": Spread((0.1, 0.3))})
    'NLL 2.5000  KL 0.2000 ± 0.1000 nats, mean of 2'
    """
    nll = found["nll_paired/val" if "nll_paired/val" in found else "nll/val"]
    kl = found["kl/val"]
    return f"NLL {nll.mean:.4f}  KL {kl.mean:.4f} ± {kl.error:.4f} nats, mean of {len(kl.each)}"


def report_of_several(
    config: Config,
    folder: Path,
    progress: Progress,
    found: Mapping[str, Spread],
    together: Mapping[str, float],
    *,
    steps: Sequence[int],
    parameters: int,
) -> Iterator[str]:
    """Yield the lines that end a training of replicas: what each reaches, and their mixture.

    Args:
        config: of the whole.
        folder: of the whole.
        progress: of the whole.
        found: the metrics of the replicas, by tag.
        together: the metrics of the mixture, by tag.
        steps: of each replica: patience may end one before another.
        parameters: number of trained weights of each.

    >>> from flowtrain.runs.load import open_run
    >>> kl = {"kl/test": Spread((0.1, 0.3)), "nll/test": Spread((2.4, 2.6))}
    >>> lines = report_of_several(open_run(run_folder).config, run_folder, Progress(), kl,
    ...     {"kl/test": 0.08, "nll/test": 2.38}, steps=[6, 6], parameters=68)
    >>> for line in [*lines][:4]:
    ...     print(line)
    2 x realnvp on pinwheel, seeds 0 to 1, in nats
      KL(data | model)      0.20000 ± 0.10000, mean of 2, from 0.10000 to 0.30000
      NLL of test sample    2.5000 ± 0.1000, likewise
      KL of their mixture   0.08000, its NLL 2.3800
    """
    kl, nll = found["kl/test"], found["nll/test"]
    number, taken = len(kl.each), f"{max(steps):,}"
    if min(steps) < max(steps):
        taken = f"{min(steps):,} to {taken}"
    yield (
        f"{number} x {config.model.name} on {config.data.title}, "
        f"seeds {config.seed} to {config.seed + number - 1}, in nats"
    )
    yield from in_columns(
        {
            METRICS["kl"].title: f"{kl.mean:.5f} ± {kl.error:.5f}, mean of {number}, "
            f"from {min(kl.each):.5f} to {max(kl.each):.5f}",
            "NLL of test sample": f"{nll.mean:.4f} ± {nll.error:.4f}, likewise",
            "KL of their mixture": f"{together['kl/test']:.5f}, its NLL {together['nll/test']:.4f}",
            "parameters": f"{parameters:,} each",
            "steps": f"{taken} of each in {progress.seconds:.0f} s for all",
            "of the seconds": f"{progress.evaluation_seconds:.0f} for evaluations",
            "run folder": str(folder),
            "one of them": str(folder / "replica-0"),
        }
        | ({"skipped steps": f"{progress.skipped:,}"} if progress.skipped else {})
    )
    yield from (f"  {line}" for line in config.logger.view(folder))


def in_short(metrics: dict[str, float]) -> str:
    """Say in two words how good a model is by its validation.

    >>> in_short({"nll/val": 2.5}), in_short({"nll/val": 2.5, "kl/val": 0.1})
    ('NLL 2.5000', 'KL 0.1000')
    >>> in_short({"elbo/val": 1.5})
    'ELBO 1.5000'
    """
    tag = next((tag for tag in ("kl/val", "nll/val") if tag in metrics), "elbo/val")
    return f"{tag.partition('/')[0].upper()} {metrics.get(tag, -math.inf):.4f}"


def figure_title(config: Config, step: int, metrics: dict[str, float]) -> str:
    """Return the line above a run's figures: its model and data, the step, how good it is.

    Args:
        config: of the run.
        step: of the weights.
        metrics: of these weights, by tag; none if they are not known.

    >>> from flowtrain.runs.load import open_run
    >>> figure_title(open_run(run_folder).config, 6, {"nll/val": 2.5, "nll_error/val": 0.01})
    'realnvp on pinwheel, step 6: NLL 2.5000 ± 0.0100 nats'
    """
    title = f"{config.model.name} on {config.data.title}, step {step:,}"
    return f"{title}: {headline(metrics)}" if metrics else title


def final_report(
    config: Config,
    folder: Path,
    progress: Progress,
    *,
    parameters: int,
    last: dict[str, float],
    closing: float,
) -> Iterator[str]:
    """Yield the lines that end a run: its figures, its folder and what to type next.

    Args:
        config: of the run.
        folder: of the run.
        progress: with the metrics of the best weights.
        parameters: number of trained weights.
        last: the metrics of the last validation.
        closing: seconds from the end of training to this report.

    >>> from flowtrain.comparison.summary import summarise
    >>> from flowtrain.runs.load import open_run
    >>> from flowtrain.training.state import Progress
    >>> progress = Progress(step=6, metrics=summarise(run_folder).metrics)
    >>> config = open_run(run_folder).config
    >>> report = final_report(config, run_folder, progress, parameters=68, last={}, closing=1.0)
    >>> list(report)[:1]
    ['realnvp on pinwheel, seed 0, in nats']
    """
    m = progress.metrics
    yield f"{config.model.name} on {config.data.title}, seed {config.seed}, in nats"
    rows = measured(m)
    rows |= {
        "parameters": f"{parameters:,}",
        "steps": f"{progress.step:,} in {progress.seconds:.0f} s, best at {progress.best_step:,}",
        "of the seconds": f"{progress.evaluation_seconds:.0f} for evaluations, "
        f"{progress.drawing_seconds:.0f} for pictures",
        "to judge and draw": f"{closing:.0f} s more",
        "run folder": str(folder),
    }
    if last and abs(gap := last.get("solver_gap/val", 0.0)) > LARGE_GAP:
        rows[f"NLL at step {progress.step:,}"] = (
            f"{last['nll/val'] + gap:.4f} by the training solver, in truth {last['nll/val']:.4f}"
        )
    patience = config.trainer.patience
    if patience is not None and progress.stale >= patience:
        rows["stopped early"] = (
            f"the last {progress.stale} evaluations were no better (trainer.patience)"
        )
    if progress.skipped:
        rows["skipped steps"] = f"{progress.skipped:,}"
    yield from in_columns(rows)
    yield from (f"  {line}" for line in config.logger.view(folder))
