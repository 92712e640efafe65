"""Rows about runs: within the terminal's width, and never cut."""

import pytest

from flowtrain.cli.standings import laid_out

RUN = {"model": "realnvp", "state": "interrupted", "step": "12,400"}
FIGURES = {"KL": "0.0123", "NLL": "2.4062", "rev. KL": "-", "ELBO": "1.4050"}
FOLDER = "outputs/multirun/2026-01-31/12-00-00-000000/model=realnvp,seed=0"


def told(width: int | None) -> list[str]:
    row = {**RUN, **FIGURES, "age": "21 min", "folder": FOLDER}
    return list(
        laid_out([[*row], [*row.values()]], width, texts=["model", "state", "folder"], whole=3)
    )


@pytest.mark.parametrize(
    ("width", "columns", "below"),
    [
        (None, 9, ""),
        (150, 9, ""),
        (80, 8, f"  {FOLDER}"),
        (64, 7, f"  age 21 min  {FOLDER}"),
        (50, 5, f"  ELBO 1.4050  age 21 min  {FOLDER}"),  # what it has not is not told there
        (10, 3, f"  KL 0.0123  NLL 2.4062  ELBO 1.4050  age 21 min  {FOLDER}"),
    ],
)
def test_what_has_no_room_stands_below(width: int | None, columns: int, below: str) -> None:
    names, row, *others = told(width)
    assert names.split()[:3] == [*RUN]
    assert "".join(others) == below
    for title, cell in [*FIGURES.items(), ("age", "21 min"), ("folder", FOLDER)][: columns - 3]:
        assert title in names
        assert cell in row
    if width is not None and columns > 3:
        assert max(len(names), len(row)) <= width


def test_numbers_are_flush_right_and_nothing_reaches_the_terminal_raw() -> None:
    rows = [["name", "step"], ["\x1b[2Ja\nb", "7"], ["c", "1,000"]]
    assert list(laid_out(rows, None, texts=["name"], whole=2)) == [
        "name         step", r"\x1b[2Ja b      7", "c           1,000",
    ]  # fmt: skip


def test_wide_letters_take_two_columns() -> None:
    rows = [["model", "KL"], ["数据集", "0.1"], ["spline", "0.25"]]
    assert list(laid_out(rows, None, texts=["model"], whole=2)) == [
        "model     KL", "数据集   0.1", "spline  0.25",
    ]  # fmt: skip
