"""What a study found: the best settings to paste, what they hang on, and a picture."""

import math
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flowtrain.evaluation.tags import VALIDATED, validated_by
from flowtrain.files import writing
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result
from flowtrain.sweeps.study import trial_folder

SHOWN = 5  # settings in the picture, the most important first


def write_report(study: Any, sweep: Path, fixed: Mapping[str, str]) -> Iterator[str]:
    """Write study.md and study.png into a sweep's folder; yield the lines that tell the best.

    Args:
        study: of Optuna, with its trials told.
        sweep: the folder.
        fixed: settings that every trial had, as text by key.

    Raises:
        UserError: a file cannot be written.
    """
    trials = study.get_trials(deepcopy=False)
    completed = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not completed:
        return
    best, importance = study.best_trial, _importance(study)
    settings = {**fixed, **best.params}
    command = shlex.join(["flowtrain", *(f"{key}={value}" for key, value in settings.items())])
    counts = Counter(trial.state.name.lower() for trial in trials)
    found = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    lines = [
        f"best of {len(trials)} trials ({found}): trial {best.number}, {best.value:.5f} nats",
        f"  {command}",
    ]
    rows = [
        f"| {key} | {best.params[key]} | {_share(share)} |" for key, share in importance.items()
    ]
    table = ["| setting | best | importance |", "| --- | --- | --: |", *rows]
    with writing(sweep / "study.md") as file:
        file.write("\n".join([lines[0], "", f"    {command}", "", *table, ""]).encode())
    with writing(sweep / "study.png") as file:
        import PIL.Image

        from flowtrain.evaluation.images import pixels
        from flowtrain.sweeps.study_figure import study_figure

        told = told_by(sweep, [trial.number for trial in completed])
        image = pixels(study_figure(trials, list(importance)[:SHOWN], told=told))
        PIL.Image.fromarray(image).save(file, format="PNG")
    yield from lines
    yield f"{sweep / 'study.md'}  {sweep / 'study.png'}"


def told_by(sweep: Path, numbers: Iterable[int]) -> str:
    """Return the name of the figure that trials were told by; of several where their data differ.

    >>> told_by(tmp_path, [0])  # its folder is gone
    'figure'
    """
    results = (read_result(RunFolder(sweep / trial_folder(number))) for number in numbers)
    names = {validated_by(result.get("metrics", {})) for result in results} - {None}
    return " or ".join(name for name in VALIDATED.values() if name in names) or "figure"


def _share(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.2f}"


def _importance(study: Any) -> dict[str, float]:
    """Return each setting's share in the spread of the figures, the largest first.

    Where there are too few trials to say, the shares are NaN.
    """
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The number of trials is too small")
        try:
            return dict(get_param_importances(study))
        except (ValueError, RuntimeError, UserWarning):
            return dict.fromkeys(study.best_params, math.nan)
