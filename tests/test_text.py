"""Text of a stranger's: nothing that a terminal obeys, a browser runs or matplotlib sets."""

import itertools
import warnings

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from flowtrain.evaluation.images import pixels
from flowtrain.text import for_figure, for_hydra, for_markdown, one_line, visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202eevil\u2028\x9b31m\udc80"


def test_no_control_character_is_left() -> None:
    for clean in (visible, one_line, for_markdown, for_figure):
        assert clean(HOSTILE).isprintable()
    assert visible("two\nlines ± ü 漢") == "two\nlines ± ü 漢"
    assert one_line("two\nlines") == "two lines"


def test_markdown_shows_html_and_markup_as_they_are_written() -> None:
    assert for_markdown("<script>x</script> a|b\n# c [l](javascript:x) `d` *e*") == (
        r"&lt;script&gt;x&lt;/script&gt; a\|b # c \[l\](javascript:x) \`d\` \*e\*"
    )


@pytest.mark.parametrize("name", [r"$\frac{", "$x$", "_hidden", "漢字 🎲", "a\nb$", "$" * 7])
def test_a_figure_takes_every_name(name: str) -> None:
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.plot([0, 1], label=for_figure(name))
    axes.set_title(for_figure(name))
    assert len(axes.get_legend_handles_labels()[1]) == 1
    axes.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(figure).shape == (100, 200, 3)


def test_hydra_reads_every_text_as_it_is() -> None:
    parts = ("a", " ", "'", '"', "\\", "${", "}", "$", "=", ",", "\n", "ü")
    texts = ["".join(chosen) for n in (1, 2, 3) for chosen in itertools.product(parts, repeat=n)]
    texts += ["a\\\\'", "a\\\\\\${b}", "\\\\", "it's ${here}\\", "$${oc.env:HOME}", "\\'${a}'\\\\"]
    for override, text in zip(
        OverridesParser.create().parse_overrides([f"key={for_hydra(text)}" for text in texts]),
        texts,
        strict=True,
    ):
        assert OmegaConf.create({"key": override.value()}).key == text
