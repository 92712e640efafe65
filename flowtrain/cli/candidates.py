"""What may come next on a command line of flowtrain or flowrun, read in a moment."""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from flowtrain.cli.keys import INNER, known_keys, options_of, several_runs, switches
from flowtrain.config import CONF
from flowtrain.runs.folder import RunFolder

FLAGS = {
    "--help": (), "--version": (), "--multirun": (), "-m": (), "--resolve": (),
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--config-dir": None,  # a folder
}  # fmt: skip
# Keys whose value is the folder of a run.
RUNS = ("resume", "init_from", "resume_sweep", "objective.teacher")
FILES = ("data.path", "hydra.run.dir", "hydra.sweep.dir")
RECIPES = ("experiment", "launcher", "sweep")  # groups without keys of their own
HIDDEN = (*INNER, "defaults")  # not for a user to choose
DONE = " "  # ends a candidate after which nothing can be added to the word


def candidates(words: Sequence[str]) -> list[str]:
    """Return what the last of the words of a command line may become.

    A candidate that is whole ends with a space; one that goes on, as a folder or `key=`, does not.

    Args:
        words: the program's name and what follows it, up to the cursor.

    >>> candidates(["flowtrain", "model=re"])
    ['model=realnvp ']
    >>> candidates(["flowrun", "evaluate", "--check"])
    ['--checkpoint ']
    """
    program, *before, word = words
    found = (
        of_flowrun(before, word) if Path(program).name == "flowrun" else of_flowtrain(before, word)
    )
    return sorted({each for each in found if each.startswith(word)})


def of_flowtrain(before: Sequence[str], word: str) -> Iterator[str]:
    """Yield groups, options, keys of the config and folders of runs."""
    values = FLAGS.get(before[-1], ()) if before else ()
    if values is None:
        yield from paths(word, folders=True)
        return
    if values or word.startswith("-"):
        yield from (f"{each}{DONE}" for each in values or FLAGS)
        return
    own = [Path(b) for a, b in pairwise(before) if a == "--config-dir"]
    key, given, value = word.partition("=")
    if not given:
        yield from _keys(before, word, own)
        return
    if key in (*RUNS, *FILES):
        found: Iterable[str] = paths(value, folders=key not in FILES)
        yield from (f"{key}={each}" for each in found)
        return
    taken, comma, _ = value.rpartition(",")
    if comma and not several_runs(before):
        return
    group = key.partition("@")[0]
    for option in [*options_of(group, [CONF, *own]), *switches(key)]:
        if option not in taken.split(","):
            yield f"{key}={taken}{comma}{option}" + ("" if comma else DONE)


def _keys(before: Sequence[str], word: str, own: Sequence[Path]) -> Iterator[str]:
    """Yield keys, those within a group only once its name is there."""
    groups = {path.name for root in (CONF, *own) for path in root.iterdir() if path.is_dir()}
    yield from (f"{group}=" for group in {*groups, "solver@evaluation.solver"} - {*HIDDEN})
    for key in known_keys(before):
        group, dot, _ = key.partition(".")
        if group in (*RECIPES, *HIDDEN):
            continue
        yield f"{group}." if dot and not word.startswith(f"{group}.") else f"{key}="
    several = several_runs(before)
    if word.startswith("h"):
        yield "hydra.sweep.dir=" if several else "hydra.run.dir="
    if several:
        yield "resume_sweep="


def of_flowrun(before: Sequence[str], word: str) -> Iterator[str]:
    """Yield commands, their options and values, folders of runs and files."""
    from flowtrain.cli.flowrun import build_parser

    parser = build_parser()
    if before:
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        if before[0] not in commands.choices:
            return
        parser = commands.choices[before[0]]
    takes = {name: a for a in parser._actions for name in a.option_strings if a.nargs != 0}
    if word.startswith("-"):
        for each in parser._actions:
            yield from (f"{name}{DONE}" for name in each.option_strings)
        return
    action: argparse.Action | None = takes.get(before[-1]) if before else None
    if action is None:
        done = [w for i, w in enumerate(before[1:], 1) if not w.startswith("-") and
                before[i - 1] not in takes]  # fmt: skip
        places = [a for a in parser._actions if not a.option_strings]
        action = places[min(len(done), len(places) - 1)] if places else None
    if action is None:
        return
    if action.choices is not None:
        yield from (f"{each}{DONE}" for each in action.choices)
    elif action.metavar in ("RUN", "RUN_OR_SWEEP", "SWEEP", "FOLDER"):
        yield from paths(word, folders=True)
    elif action.metavar == "FILE":
        yield from paths(word, folders=False)


def paths(text: str, *, folders: bool) -> Iterator[str]:
    """Yield what is in a folder; a run is whole, any other folder ends with a slash.

    Args:
        text: the beginning of a path, as typed.
        folders: whether files are left out.
    """
    parent, slash, name = text.rpartition("/")
    folder = Path(parent + slash or ".").expanduser()
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if not path.name.startswith(name) or (path.name.startswith(".") and not name):
            continue
        if not path.is_dir():
            if not folders:
                yield f"{parent}{slash}{path.name}{DONE}"
        elif folders and RunFolder(path).result.exists():
            yield f"{parent}{slash}{path.name}{DONE}"
        else:
            yield f"{parent}{slash}{path.name}/"


def split(line: str) -> tuple[list[str], str]:
    """Split a line as a shell does; return its words, and the last one as it was typed.

    >>> split(r"flowrun evaluate a\\ b 'c d")
    (['flowrun', 'evaluate', 'a b', 'c d'], "'c d")
    """
    words, word, raw, quote = [], "", "", ""
    letters = iter(line)
    for letter in letters:
        raw += letter
        if quote:
            if letter == quote:
                quote = ""
            else:
                word += letter
        elif letter in "'\"":
            quote = letter
        elif letter == "\\":
            escaped = next(letters, "")
            raw, word = raw + escaped, word + escaped
        elif letter.isspace():
            if raw.strip():
                words.append(word)
            word, raw = "", ""
        else:
            word += letter
    return [*words, word], raw


def escaped(text: str, raw: str) -> str:
    """Write a candidate as it continues a word that was typed so: quoted, or with backslashes.

    >>> escaped("a b ", ""), escaped("a b ", "'a")
    ('a\\\\ b ', "'a b' ")
    """
    whole, end = (text[:-1], DONE) if text.endswith(DONE) else (text, "")
    if raw[:1] in ("'", '"'):
        return f"{raw[0]}{whole}{raw[0] if end else ''}{end}"
    return re.sub(r"([^\w./=,:@+~%^-])", r"\\\1", whole) + end
