"""The notebooks run from top to bottom, in a short form; `make docs` runs them as written."""

import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
TABLE = ["trainer.max_steps=10", "trainer.evaluate_every=10", "trainer.device=cpu"]
DENSITY = [
    *TABLE, "trainer.figures=false", "splits.train=512", "splits.val=64", "splits.test=64",
    "evaluation.grid=32",
]  # fmt: skip
# The lines that decide how long a notebook takes, and what they say here.
SHORT: dict[str, dict[str, object]] = {
    "what_a_flow_is": {"STEPS": 10},
    "realnvp_and_ffjord": {"BUDGET": DENSITY},
    "a_table": {"ROWS": 200, "BUDGET": TABLE},
}


def test_every_notebook_has_a_short_form() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*")} == {*SHORT}


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    for setting, value in SHORT[name].items():
        text, found = re.subn(rf"^{setting} = .*$", f"{setting} = {value!r}", text, flags=re.M)
        assert found == 1, setting
    script = tmp_path / "notebook.py"
    script.write_text(text, encoding="utf-8")
    runpy.run_path(str(script))
