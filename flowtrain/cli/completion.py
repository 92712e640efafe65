"""`flowrun completion`: TAB completion of both programs, for bash, fish and zsh.

The shells' own parts are a few lines that ask `flowrun __complete`. No library does this: words
such as model=realnvp are no grammar of argparse, and what `shtab` or `argcomplete` give for flowrun
alone is less than what both programs share here.
"""

import argparse
import sys
from collections.abc import Sequence

from flowtrain.errors import UserError

SUMMARY = "print what switches TAB completion on, for flowtrain and flowrun"
ASKED = "__complete"  # by a shell

BASH = """\
# In ~/.bashrc: eval "$(flowrun completion bash)"
_flowtrain_completion() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(flowrun __complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o nospace -F _flowtrain_completion flowtrain flowrun
"""
FISH = """\
# In ~/.config/fish/config.fish: flowrun completion fish | source
function __flowtrain_completion
    flowrun __complete fish '' (commandline -cp) 2>/dev/null
end
complete -c flowtrain -c flowrun -f -a '(__flowtrain_completion)'
"""
ZSH = """\
# In ~/.zshrc: eval "$(flowrun completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_flowtrain_completion() {
    local -a candidates
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    candidates=("${(@f)$(flowrun __complete zsh '' "$line" 2>/dev/null)}")
    compadd -Q -U -S '' -- ${candidates:#}
}
compdef _flowtrain_completion flowtrain flowrun
"""
SCRIPTS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument(
        "shell", choices=tuple(SCRIPTS), help="its first line says where to put it"
    )


def run(options: argparse.Namespace) -> None:
    """Print a shell's part."""
    sys.stdout.write(SCRIPTS[options.shell])


def answer(arguments: Sequence[str]) -> None:
    """Print what a shell may put in the place of the word at the cursor, a line each.

    Args:
        arguments: the shell, the letters at which it breaks words, and the line up to the cursor.

    Raises:
        UserError: something else asked.
    """
    from flowtrain.cli.candidates import DONE, candidates, escaped, split

    if len(arguments) != 3:
        raise UserError(f"{ASKED} is for shells: see flowrun completion --help")
    shell, breaks, line = arguments
    words, raw = split(line)
    if len(words) < 2:
        return
    for candidate in candidates(words):
        if shell == "fish":  # it quotes by itself, and adds no space after a slash, = or a dot
            print(candidate.removesuffix(DONE))
            continue
        text = escaped(candidate, raw)
        # bash puts an answer in the place of what follows the last letter at which it breaks words.
        kept = max((raw.rfind(letter) for letter in breaks if letter in "=:@"), default=-1)
        print(text[kept + 1 :] if raw[:1] not in ("'", '"') else text)
