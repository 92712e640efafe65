"""The metrics of a run, one row each: what a tag means, its unit, and which way is better.

A tag is a metric's name and the split it is measured on, as in kl/test. Report, comparison and
documentation read this table.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """What is said of a metric wherever it is shown.

    Attributes:
        title: in a table's row.
        unit: "nats" or another; empty where there is none.
        better: which way a model's figure should go; None where neither is better.
        group: of TensorBoard's cards; see `board_tag`.

    >>> Metric("mass of the model")
    Metric(title='mass of the model', unit='', better=None, group='verification')
    """

    title: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    group: str = "verification"


BASELINES = {  # what a flow should beat on points
    "nll_gaussian": "the best Gaussian",
    "nll_gaussian_linear": "the best Gaussian linear in the condition",
    "nll_gaussian_by_class": "a Gaussian for each class",
    "nll_kde": "a kernel density estimate",
}
METRICS = {
    "kl": Metric("KL(data | model)", "nats", better="lower", group="kl"),
    "kl_error": Metric("error of KL", "nats"),
    "kl_sem": Metric("standard error of the mean KL of replicas", "nats"),
    "kl_paired": Metric("KL, paired samples", "nats", better="lower"),
    "kl_paired_error": Metric("standard error of KL, paired samples", "nats"),
    "kl_reverse": Metric("KL(model | data)", "nats", better="lower", group="samples"),
    "kl_reverse_error": Metric("standard error of KL(model | data)", "nats"),
    "ess": Metric("effective sample size of importance weights, a fraction", better="higher"),
    "elbo": Metric("evidence lower bound of the energy's log Z", "nats", better="higher"),
    "elbo_error": Metric("standard error of the ELBO", "nats"),
    "log_z": Metric("log Z by importance weights of the model's samples", "nats"),
    "log_z_error": Metric("standard error of log Z by importance weights", "nats"),
    "log_normalizer_error": Metric("standard error of the log Z that is held true", "nats"),
    "least_component": Metric("the model's part of the mass of the component it covers least"),
    "nll": Metric("negative log-likelihood", "nats", better="lower", group="nll"),
    "nll_error": Metric("standard error of NLL", "nats"),
    "nll_sem": Metric("standard error of the mean NLL of replicas", "nats"),
    "nll_paired": Metric(
        "NLL as entropy + KL, paired samples", "nats", better="lower", group="nll"
    ),
    **{name: Metric(f"NLL of {what}", "nats", group="nll") for name, what in BASELINES.items()},
    "bits_per_dimension": Metric("bits per dimension", "bits", better="lower", group="nll"),
    "mass": Metric("mass of the model"),
    "inverse_error": Metric("inverse error, largest", "data units", better="lower"),
    "inverse_error_rms": Metric("inverse error, rms", "data units", better="lower"),
    "solver_gap": Metric("solver gap", "nats"),
    "energy": Metric("energy distance", "standard deviations", better="lower", group="samples"),
    "energy_floor": Metric(
        "energy distance of the data to itself", "standard deviations", group="samples"
    ),
    "mmd": Metric("squared MMD", better="lower", group="samples"),
    "mmd_floor": Metric("squared MMD of the data to itself", group="samples"),
    "sliced_w2": Metric("sliced W2", "standard deviations", better="lower", group="samples"),
    "sliced_w2_floor": Metric(
        "sliced W2 of the data to itself", "standard deviations", group="samples"
    ),
}

VALIDATED = {  # what tells how good a model is by its validation: the first that it has
    "kl/val": "KL",
    "nll/val": "NLL",
    "kl_reverse/val": "KL(model | data)",
    "elbo/val": "-ELBO",
}
JUDGING = ("kl", "nll", "kl_reverse", "elbo")  # what runs are judged by, in the order of columns


def tagged(figures: dict[str, float], split: str) -> dict[str, float]:
    """Return figures under their tags.

    >>> tagged({"nll": 2.4, "nll_error": 0.01}, "test")
    {'nll/test': 2.4, 'nll_error/test': 0.01}
    """
    return {f"{name}/{split}": value for name, value in figures.items()}


def better(tag: str) -> Literal["lower", "higher"] | None:
    """Return which way a tag's figure should go; None where neither is better.

    >>> better("kl/test"), better("elbo/test"), better("mass/test"), better("lr")
    ('lower', 'higher', None, None)
    """
    metric = METRICS.get(tag.split("/")[0])
    return None if metric is None else metric.better


def is_evaluation(tags: Collection[str]) -> bool:
    """Return whether tags are those of an evaluation; a target without points has no NLL.

    >>> is_evaluation(["nll/val", "kl/val"]), is_evaluation(["ess/val"]), is_evaluation(["loss"])
    (True, True, False)
    """
    return "nll/val" in tags or "ess/val" in tags


def validated(metrics: Mapping[str, float]) -> float:
    """Return what tells how good a model is by its validation, the lower the better, in nats.

    That is KL where it is known, of points or of samples, else NLL; of a target that is known up
    to a constant -ELBO, which is infinite where a sample has no density.

    >>> validated({"nll/val": 2.5, "kl/val": 0.1}), validated({"nll/val": 2.5})
    (0.1, 2.5)
    >>> validated({"kl_reverse/val": 0.2, "elbo/val": 1.5}), validated({"elbo/val": 1.5})
    (0.2, -1.5)
    """
    for tag in VALIDATED:
        if tag in metrics:
            return -metrics[tag] if tag == "elbo/val" else metrics[tag]
    return math.inf


def validated_by(tags: Collection[str]) -> str | None:
    """Return the name of the figure that `validated` takes of a run; None where there is none.

    >>> validated_by(["nll/val", "kl/val"]), validated_by(["elbo/val"]), validated_by([])
    ('KL', '-ELBO', None)
    """
    return next((name for tag, name in VALIDATED.items() if tag in tags), None)


def telling(tags: Collection[str], *, objective: str) -> list[str]:
    """Return the names of the metrics by which a run is judged, those that it has.

    They are KL and NLL, and KL(model | data) where training minimised that. Of a target without
    points whose log Z is not known there is the ELBO alone.

    Args:
        tags: of the run's metrics.
        objective: the name of the one it was trained by.

    >>> telling(["kl/test", "nll/test", "kl_reverse/test"], objective="maximum_likelihood")
    ['kl', 'nll']
    >>> telling(["kl_reverse/val", "elbo/val"], objective="reverse_kl")
    ['kl_reverse']
    >>> telling(["elbo/test", "ess/test"], objective="reverse_kl")
    ['elbo']
    """
    known = {tag.partition("/")[0] for tag in tags if tag.endswith(("/val", "/test"))}
    names = ["kl", "nll", *(["kl_reverse"] if objective == "reverse_kl" else [])]
    return [name for name in names if name in known] or [name for name in ["elbo"] if name in known]


def board_tag(tag: str) -> str:
    """Return the tag under which TensorBoard shows a scalar or a figure.

    Its groups stand in the order of their names, the first two open: kl and nll, then pictures,
    samples (distances to the data), training (what is logged at a step) and verification (errors,
    figures at single conditions, and whether the figures can be trusted).

    >>> board_tag("kl/test"), board_tag("nll_paired/val"), board_tag("mass/test")
    ('kl/test', 'nll/paired/val', 'verification/mass/test')
    >>> board_tag("lr"), board_tag("speed/steps_per_second")
    ('training/lr', 'training/speed/steps_per_second')
    >>> board_tag("figures/density"), board_tag("kl/component=0")
    ('pictures/density', 'verification/kl/component=0')
    """
    if tag.startswith("figures/"):
        return f"pictures/{tag.removeprefix('figures/')}"
    name, _, where = tag.partition("/")
    metric = METRICS.get(name)
    group = "training" if metric is None else metric.group
    if "=" in where:  # at one condition of many: below what is over all
        group = "verification"
    return tag if tag.startswith(f"{group}/") else f"{group}/{tag.removeprefix(f'{group}_')}"
