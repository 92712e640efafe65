"""A comparison of real runs as files."""

import csv
from collections.abc import Callable
from pathlib import Path

import PIL.Image

from flowtrain.comparison.compare import compare
from flowtrain.comparison.summary import find_runs
from flowtrain.comparison.write import write_comparison
from flowtrain.config.schema import Config
from flowtrain.training.trainer import train


def test_a_sweep_of_real_runs_gets_table_and_picture(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    for couplings in (2, 3):
        for seed in (0, 1):
            config = tiny(f"model.couplings={couplings}", f"seed={seed}", "trainer.max_steps=10")
            train(config, tmp_path / f"{couplings}-{seed}")
    written = write_comparison(compare(find_runs([tmp_path])), tmp_path)
    assert [path.name for path in written] == ["compare.csv", "compare.md", "compare.png"]
    rows = [*csv.DictReader(written[0].read_text().splitlines())]
    assert sorted((row["model.couplings"], row["runs"]) for row in rows) == [("2", "2"), ("3", "2")]
    assert written[1].read_text().count("**") == 4  # KL and NLL have their best
    with PIL.Image.open(written[2]) as image:
        assert image.format == "PNG"
    assert (
        write_comparison(compare(find_runs([tmp_path])), tmp_path) == written
    )  # they are no runs, and may be replaced
