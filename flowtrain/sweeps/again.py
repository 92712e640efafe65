"""`resume_sweep=FOLDER`: what was typed for a sweep, typed again for its own folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from flowtrain.config.own_code import IMPORT_STRING
from flowtrain.config.schema import Config
from flowtrain.config.section import Mark, marked
from flowtrain.errors import UserError
from flowtrain.runs.latest import followed
from flowtrain.sweeps.plan import read_record
from flowtrain.text import for_hydra

KEY = "resume_sweep"
CODE = re.compile(IMPORT_STRING.strip("^$"))
# Of Hydra's own settings a folder may say no more than how its sweeper asks for jobs: the rest
# could name code, and commands for a batch system.
SWEEPER = re.compile(r"hydra\.sweeper\.[a-z]\w*(\.[\w.]+)?=")
# What is found from the working directory; and so is code.
FROM_HERE = (*marked(Config, Mark.PATH), "init_from")


def typed_again(arguments: Sequence[str]) -> list[str]:
    """Replace resume_sweep=FOLDER by the arguments that the sweep in that folder was given.

    What is typed beside it wins: where the jobs run, and how long. A launcher's own settings
    (hydra.launcher.partition=...) are not taken from a folder.

    Args:
        arguments: of the command line.

    Raises:
        UserError: the folder holds no sweep, or names code that is not trusted, or files by paths
            from another working directory.

    >>> from flowtrain.sweeps.plan import write_record
    >>> write_record(tmp_path, ["model=spline", "seed=0,1"], {})
    >>> typed_again(["resume_sweep=" + str(tmp_path)])[:3]
    ['-m', 'model=spline', 'seed=0,1']
    >>> typed_again(["seed=1"])
    ['seed=1']
    """
    named = [each for each in arguments if each.startswith(f"{KEY}=")]
    if not named:
        return list(arguments)
    folder = Path(followed(named[-1].partition("=")[2].strip("'\""))).expanduser()
    trusted = "trust_code=true" in arguments
    left = {*named, "trust_code=true", "-m", "--multirun"}
    more = [each for each in arguments if each not in left]
    typed = {_key(each) for each in more}
    recorded = []
    record, here = read_record(folder), str(Path.cwd())
    for each in record["arguments"]:
        key, _, value = each.partition("=")
        if _key(each).startswith(("hydra", "--", "-")) and not SWEEPER.match(each):
            continue
        code = CODE.search(value.replace("\\", "")) or "${" in value  # as Hydra will read it
        if code and not trusted:
            raise UserError(
                f"{folder}: this sweep may use code of its user's own, {key}={value}: if you "
                "trust that code, add trust_code=true"
            )
        if _key(each) in typed:
            continue
        from_there = code or (_key(each) in FROM_HERE and not _absolute(value))
        if from_there and record.get("directory", here) != here:
            raise UserError(
                f"{folder}: this sweep names {key}={value} from {record['directory']}: go there, "
                f"or say {key} anew"
            )
        recorded.append(each)
    return ["-m", *recorded, *more, f"hydra.sweep.dir={for_hydra(str(folder))}"]


def _absolute(paths: str) -> bool:
    return all(each.lstrip("'\"").startswith(("/", "~")) for each in paths.split(","))


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~").replace("/", ".")
