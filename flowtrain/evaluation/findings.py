"""What an evaluation found, in words: the rows of the table that a report is."""

from collections.abc import Iterator

from flowtrain.evaluation.checks import MOST
from flowtrain.evaluation.tags import METRICS

ROWS = {  # of baselines: their names, and what is said of them
    "nll_gaussian": ("best Gaussian", ""),
    "nll_kde": ("kernel density", ", its bandwidth by cross-validation"),
    "nll_gaussian_linear": ("linear Gaussian", ", its mean linear in the condition"),
    "nll_gaussian_by_class": ("Gaussian by class", ""),
}
CASES = 8  # conditions whose figures are listed, those of the largest KL


def measured(m: dict[str, float]) -> dict[str, str]:
    """Return what an evaluation found, in words by its name, in the order of reading.

    Args:
        m: the metrics of an evaluation by the run's own splits, by tag.

    >>> from flowtrain.comparison.summary import summarise
    >>> measured(summarise(run_folder).metrics)["KL(data | model)"]
    '0.99306 by quadrature, error 6e-01'
    """
    rows = _of_density(m) | _of_samples(m) | _of_points(m)
    rows["inverse error"] = (
        f"{m['inverse_error/test']:.1e} max, {m['inverse_error_rms/test']:.1e} rms"
    )
    if "solver_gap/test" in m:
        rows[METRICS["solver_gap"].title] = (
            f"{m['solver_gap/test']:+.1e}: NLL by training - evaluation solver"
        )
    return rows


def _of_density(m: dict[str, float]) -> dict[str, str]:
    """Return what is known by quadrature or by points of a known density."""
    rows = {}
    by_case = {name: at_cases(m, name) for name in ("kl", "mass")}
    mean = "mean over conditions, " if by_case["kl"] else ""
    if "kl/test" in m and "mass/test" in m:
        rows[METRICS["kl"].title] = (
            f"{m['kl/test']:.5f} {mean}by quadrature, error {m['kl_error/test']:.0e}"
        )
    for case, kl in by_case["kl"].items():
        rows[f"  {case}"] = f"{kl:.5f}, mass in its window {by_case['mass'][case]:.6f}"
    if "kl_paired/test" in m:
        paired = f"{m['kl_paired/test']:.5f} ± {m['kl_paired_error/test']:.5f}"
        rows[METRICS["kl_paired"].title] = paired
    return rows


def _of_samples(m: dict[str, float]) -> dict[str, str]:
    """Return what the model's own samples tell of a density, or of one known up to a constant."""
    if "ess/test" not in m:  # no density is known, or the run is of an earlier version
        return {}
    rows, ess = {}, f"ESS {m['ess/test']:.3f}"
    if "kl_reverse/test" in m:
        number = ".5f" if abs(m["kl_reverse/test"]) < 1e4 else ".1e"
        backwards = f"{m['kl_reverse/test']:{number}} ± {m['kl_reverse_error/test']:{number}}"
        rows[METRICS["kl_reverse"].title] = f"{backwards}, {ess}"
    elif "elbo/test" in m:
        rows["ELBO"] = f"{m['elbo/test']:.4f} ± {m['elbo_error/test']:.4f}, {ess}"
    else:
        rows[METRICS["kl_reverse"].title] = f"infinite: the data are never there, {ess}"
    if "elbo/test" in m and "kl_reverse/test" in m:
        log_z = f"{m['elbo/test'] + m['kl_reverse/test']:.4f}"
        error = m.get("log_normalizer_error/test")
        known = f"{log_z} exactly" if error is None else f"{log_z} ± {error:.4f}"
        rows["ELBO, log Z"] = f"{m['elbo/test']:.4f}, {known}"
    if "log_z/test" in m:  # runs of earlier versions have none
        rows["log Z by weights"] = f"{m['log_z/test']:.4f} ± {m['log_z_error/test']:.4f}"
    return rows


def _of_points(m: dict[str, float]) -> dict[str, str]:
    """Return the NLL of the points, and what it stands beside; a target has no points."""
    rows = {}
    nll = "nll_paired" if "nll_paired/test" in m else "nll"
    if "nll/test" in m:
        three = ", ".join(f"{m[f'{nll}/{split}']:.4f}" for split in ("train", "val", "test"))
        of_test = f"{m['nll/test']:.4f} ± {m['nll_error/test']:.4f}"
        if "nll/entropy" in m:
            rows["NLL = entropy + KL"] = f"{three} (train, val, test)"
            rows["NLL of test sample"] = of_test
        else:
            rows["NLL train, val, test"] = three
            rows["NLL test, error"] = of_test
    if "nll/entropy" in m:
        what = "entropy given c" if at_cases(m, "kl") else "entropy of the data"
        rows[what] = f"{m['nll/entropy']:.4f}, the lowest expected NLL"
        if "mass/test" in m:
            within = 1 < round(m["mass/test"], 6) <= MOST
            bound = "above 1 by the error of the grid" if within else "at most 1"
            rows[METRICS["mass"].title] = f"{m['mass/test']:.6f} in the window, {bound}"
    for name, (row, more) in ROWS.items():
        if f"{name}/test" in m:
            rows[f"  {row}"] = f"{m[f'{name}/test']:.4f}{more}"
    if "bits_per_dimension/test" in m:
        rows[METRICS["bits_per_dimension"].title] = f"{m['bits_per_dimension/test']:.4f}"
    for name in ("energy", "mmd", "sliced_w2"):
        if f"{name}/test" in m:
            apart, floor = m[f"{name}/test"], m[f"{name}_floor/test"]
            rows[METRICS[name].title] = f"{apart:.4f}; of the data to itself {floor:.4f}"
    return rows


def at_cases(m: dict[str, float], name: str) -> dict[str, float]:
    """Return a metric at the conditions of a conditional flow, by their labels; the worst 8.

    >>> at_cases({"kl/test": 0.02, "kl/component=0": 0.01, "kl/component=1": 0.03}, "kl")
    {'component=0': 0.01, 'component=1': 0.03}
    """
    tags = (tag.partition("/") for tag in m)
    labels = [label for metric, _, label in tags if metric == "kl" and "=" in label]
    worst = sorted(labels, key=lambda label: -m[f"kl/{label}"])[:CASES]
    return {label: m[f"{name}/{label}"] for label in labels if label in worst}


def in_columns(rows: dict[str, str]) -> Iterator[str]:
    """Yield a line for each name and what there is to say of it.

    >>> list(in_columns({"steps": "6"}))
    ['  steps                 6']
    """
    for name, value in rows.items():
        yield f"  {name:<22}{value}"
