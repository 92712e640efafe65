"""The help of `flowtrain`: its groups, and the options that lie in the folders of config files."""

import sys
import textwrap
from pathlib import Path

from flowtrain.cli.keys import INNER
from flowtrain.config import CONF

HELP = """\
flowtrain trains a normalizing flow and reports its distance to the truth, in
nats.

usage: flowtrain [-m] [group=option | key=value] ...

groups:
  model            the flow: realnvp, spline (discrete), ffjord (continuous)
  data             a density, known exactly, or points of your own (table)
  splits           where the train, val and test points come from
  objective        the loss: likelihood, flow matching, or one after the other
  solver           how training solves a continuous flow's ODE
  evaluation       the grid behind KL and mass
  regularization   penalties on a continuous flow's path
  optimizer        and its learning rate
  scheduler        the learning rate's course over the run
  trainer          steps, batches, device, intervals
  logger           where curves are shown: TensorBoard, W&B, MLflow, a CSV
  experiment       a recipe made of the others: best, for any density
  launcher         where a sweep runs: here, in parallel, on a cluster
  sweep            its jobs: every combination, or what a search asks for
  solver@evaluation.solver
                   how every reported figure solves the ODE, tightly

their options (the files of conf/<group>/; --config-dir DIR adds your own):
{options}

examples:
  flowtrain model=realnvp data=moons                   a run with the defaults
  flowtrain data=circles optimizer.lr=1e-3 seed=1      change single values
  flowtrain trainer.max_seconds=60 trainer.device=cpu  a time budget, a device
  flowtrain -m data=moons,circles seed=0,1,2           a sweep: all combinations
  flowtrain data=table data.path=points.csv            points of your own
  flowtrain experiment=best data=rings                 a recipe
  flowtrain data=custom data.target=my_density:Mine    a density of your own
  flowtrain resume=outputs/2026-01-31/12-00-00-...     continue a run
  flowtrain -m resume_sweep=outputs/multirun/...       continue a sweep
  flowtrain init_from=outputs/2026-01-31/12-00-00-...  start from its weights

flowtrain --cfg job            show the composed config, every key and value
flowtrain --info defaults      show where each group's choice comes from
tensorboard --logdir outputs   look at the curves and figures
flowrun --help                 evaluate, sample, score, compare finished runs
eval "$(flowrun completion bash)"   TAB completion, of zsh and fish too
"""


def help_text() -> str:
    """Return the help, with the options of every group and of a folder given by --config-dir."""
    folders = [CONF, *map(Path, _values_of("--config-dir", "-cd"))]
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            groups.setdefault(file.parent.name, set()).add(file.stem)
    for group in INNER:
        groups.pop(group, None)
    listed = (f"{group}: {', '.join(sorted(groups[group]))}" for group in sorted(groups))
    lines = (textwrap.fill(line, 80, subsequent_indent="  ") for line in listed)
    return HELP.replace("{options}", "\n".join(lines))


def _values_of(*flags: str) -> list[str]:
    values = [b for a, b in zip(sys.argv, sys.argv[1:], strict=False) if a in flags]
    return values + [a.partition("=")[2] for a in sys.argv if a.startswith(f"{flags[0]}=")]
