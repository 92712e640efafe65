"""What TensorBoard shows beside scalars: the charts of CUSTOM SCALARS, the rows of HPARAMS."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, dotted, marked
from flowtrain.errors import UserError
from flowtrain.evaluation.tags import board_tag
from flowtrain.runs.folder import RunFolder
from flowtrain.untrusted import read_yaml

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

# Curves that belong together. The entropy is the floor that no expected NLL can pass, log Z what no
# ELBO can; what the sampled points scatter by is left out where the density is known.
CHARTS = {
    "NLL (nats)": ["nll/batch", "nll_paired/train", "nll_paired/val", "nll/entropy"],
    "NLL of rows (nats)": ["nll/batch", "nll/train", "nll/val"],
    "KL (nats)": ["kl/val"],
    "KL(model | data) (nats)": ["kl_reverse/batch", "kl_reverse/val"],
    "ELBO (nats)": ["elbo/batch", "elbo/val", "log_z/val"],
    "ESS": ["ess/val"],
}
INCIDENTAL = frozenset(marked(Config, Mark.INCIDENTAL))


def charts(written: Collection[str]) -> dict[str, list[str]]:
    """Return by title the tags of the charts that show a run's figures of validation.

    A chart has the same tags for every run, those that it lacks too: TensorBoard shows charts that
    differ in a tag beside each other.

    Args:
        written: the tags of the run so far.

    >>> list(charts(["nll/batch", "nll/val", "nll_error/val"]))
    ['NLL of rows (nats)']
    >>> list(charts(["nll/batch", "nll/val", "nll_paired/val", "kl/val"]))
    ['NLL (nats)', 'KL (nats)']
    """
    known = "nll_paired/val" in written
    return {
        title: tags
        for title, tags in CHARTS.items()
        if any(tag in written for tag in tags if tag.endswith("/val"))
        and not (known and title == "NLL of rows (nats)")
    }


def layout_of(shown: dict[str, list[str]]) -> "Summary":
    """Return charts as CUSTOM SCALARS reads them; of several in one run the last one stands.

    They are margin charts without a margin: TensorBoard smooths all others by default, and the few
    points of an evaluation would lag far behind the batches.

    Args:
        shown: tags, by the chart's title.

    >>> [value.tag for value in layout_of({"KL (nats)": ["kl/val"]}).value]
    ['custom_scalars__config__']
    """
    from tensorboard.plugins.custom_scalar import layout_pb2
    from torch.utils.tensorboard.summary import custom_scalars

    layout = layout_pb2.Layout()
    category = layout.category.add(title="likelihood")
    for title, tags in shown.items():
        series = category.chart.add(title=title).margin.series
        for tag in map(board_tag, tags):
            series.add(value=tag, lower=tag, upper=tag)
    summary = custom_scalars({})
    summary.value[0].tensor.string_val[0] = layout.SerializeToString()
    return summary


def trial(
    config: dict[str, Any], metrics: dict[str, float], folder: RunFolder
) -> tuple["Summary", "Summary"]:
    """Return the beginning and the end of a trial, a row of HPARAMS.

    Without an experiment's summary the tab shows the columns of all runs, and every scalar as a
    metric. The tab cuts a trial's name after some 14 letters: it begins with what differs most.

    Args:
        config: the run's, nested.
        metrics: of its end.
        folder: of the run.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config.model_dump()
    >>> [summary.value[0].tag for summary in trial(config, {"kl/test": 0.1}, RunFolder(run_folder))]
    ['_hparams_/session_start_info', '_hparams_/session_end_info']
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    _, start, end = hparams(telling_settings(config, folder), metrics)
    content = HParamsPluginData.FromString(start.value[0].metadata.plugin_data.content)
    name, *parents = reversed(folder.path.resolve().parts[1:])
    content.session_start_info.group_name = " in ".join([short_name(name), *parents])
    start.value[0].metadata.plugin_data.content = content.SerializeToString()
    return start, end


def short_name(name: str) -> str:
    """Return the name of a run's folder as it tells runs apart by its first letters.

    Of a sweep's job these are its values, the last first: it is the one that changes most often.

    >>> short_name("model=realnvp,data=moons,seed=3"), short_name("12-00-00-ffjord-moons")
    ('3 moons realnvp', '12-00-00-ffjord-moons')
    """
    values = _of_job(name).values()
    return " ".join(reversed(values)) if values else name


def telling_settings(config: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Return the settings that tell runs apart: a few of every run, and what was typed for this.

    What does not change what is learned, as the interval of a log, is left out; of a sweep's job
    what all jobs share: the tab has room for five columns beside KL.

    Args:
        config: the run's, nested.
        folder: of the run; a run from Python has no record of what was typed.

    >>> from flowtrain.runs.load import open_run
    >>> config = open_run(run_folder).config.model_dump()
    >>> telling_settings(config, RunFolder(run_folder))
    {'model': 'realnvp', 'data': 'pinwheel', 'lr': 0.005, 'seed': '0'}
    """
    flat = dotted(config)
    telling = {"model": flat["model.name"], "data": flat["data.name"], "lr": flat["optimizer.lr"]}
    if "data.path" in flat:
        telling["data"] = Path(flat["data.path"]).stem
    telling["seed"] = str(flat["seed"])  # the tab shows 123456 as 1.2346e+5
    typed = [override.lstrip("+").partition("=") for override in _typed(folder)]
    keys, differing = {key for key, _, _ in typed}, {*_of_job(folder.path.name)}
    shown = differing if differing and differing <= keys else keys  # or a name of a user's own
    for key, _, text in typed:
        if key not in shown:
            continue
        key = key.rpartition("@")[2]  # a group goes where it is placed
        if key not in {*telling, "optimizer.lr", "data.path"} | INCIDENTAL:
            # The tab orders columns by name, and shows the first five.
            telling[f"typed.{key}"] = flat.get(key, flat.get(f"{key}.name", text))
    return {
        key: value if isinstance(value, str | int | float) else str(value)
        for key, value in telling.items()
        if value is not None
    }


def _of_job(name: str) -> dict[str, str]:
    """Return the settings in the name of a sweep's job; none of another folder."""
    pairs = [part.partition("=") for part in re.split(r",(?=[^,]+=)", name)]
    return {key: value for key, _, value in pairs} if all(pair[2] for pair in pairs) else {}


def _typed(folder: RunFolder) -> list[str]:
    try:
        typed = read_yaml(folder.overrides, inside=folder.path)
    except (FileNotFoundError, UserError):
        return []
    return [each for each in typed if isinstance(each, str)] if isinstance(typed, list) else []
