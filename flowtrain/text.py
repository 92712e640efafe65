"""Text from elsewhere made harmless where it goes: a terminal, Markdown, a figure, Hydra.

Names of folders, columns and settings may come from a stranger, and hold what a terminal obeys,
what a browser runs, what matplotlib takes for a formula or Hydra for an interpolation.
"""

import html
import re
from collections.abc import Sequence


def visible(text: str) -> str:
    r"""Write what a terminal would obey, and what cannot be seen, as an escape; lines stay lines.

    >>> print(visible("moons\x1b[2J ± 0.1"))
    moons\x1b[2J ± 0.1
    """
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def one_line(text: str) -> str:
    r"""Make text visible, in one line.

    >>> one_line("two\nlines")
    'two lines'
    """
    return visible(" ".join(text.split("\n")))


def amount(number: int, thing: str) -> str:
    """Write how many of a thing there are.

    >>> amount(1, "job"), amount(2000, "job")
    ('1 job', '2,000 jobs')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


def for_markdown(text: str) -> str:
    r"""Write text as a cell of a table or an item of a list shows it: no HTML, no markup.

    >>> print(for_markdown("<img src=x> a|b"))
    &lt;img src=x&gt; a\|b
    """
    plain = html.escape(one_line(text), quote=False).replace("\\", "\\\\")
    for mark in "|`*[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def for_figure(text: str) -> str:
    r"""Write text so that matplotlib sets it as it is: no formula, no label that it hides.

    >>> print(for_figure("$x_1$"), for_figure("_mine"))
    \$x_1\$  _mine
    """
    plain = one_line(text).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain  # a legend leaves out _names


def for_hydra(text: str) -> str:
    r"""Quote text as the value of an override: Hydra reads it as it is, whatever it holds.

    >>> print(for_hydra("it's ${here}"))
    'it\'s \${here}'
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)\Z", r"\1\1", escaped)
    return "'" + re.sub(r"(\\*)\$\{", r"\1\1\\${", escaped) + "'"


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, quoted, in a line; "none" where there are none.

    >>> listed(["height", "width"])
    "'height', 'width'"
    """
    shown = [repr(name) for name in names[:10]]
    return ", ".join(shown + ["..."] * (len(names) > 10)) or "none"
