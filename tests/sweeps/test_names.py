"""A job's folder: named by what differs, one folder whatever the values hold."""

from pathlib import Path

import pytest

from flowtrain.sweeps.names import LONGEST_NAME, job_name


@pytest.mark.parametrize(
    ("overrides", "same", "name"),
    [
        (["model=realnvp", "data=moons", "seed=0"], ["data"], "model=realnvp,seed=0"),
        (["++data.arguments.side=2", "seed=1"], [], "data.arguments.side=2,seed=1"),
        ([r"data.target=my_density\:Triangle"], [], "data.target=my_density:Triangle"),
        (["solver=rk4", "solver@x=euler"], ["solver"], "solver@x=euler"),
        (["model.hidden=[64,64]"], [], "model.hidden=[64,64]"),
        (["seed=0"], ["seed"], "7"),
    ],
)
def test_a_job_is_named_by_what_tells_it_from_the_others(
    overrides: list[str], same: list[str], name: str
) -> None:
    assert job_name(overrides, same, 7) == name


HOSTILE = [
    "../../../p.csv", "/etc/p.csv", "p.csv", "a/p.csv", "a/p.csv/", "..", "/", "a b", "a_b",
    "a\nb", "a\x1b[31m", "$(reboot)", "`x`", "~", "a*", "ä" * 300, "ä" * 301, "a'b", 'a"b',
]  # fmt: skip


def test_any_value_makes_one_folder_of_its_own(tmp_path: Path) -> None:
    names = [job_name([f"data.path={value}"], [], 0) for value in HOSTILE]
    assert len({*names}) == len(HOSTILE)
    for name in names:
        assert len(name.encode()) <= LONGEST_NAME
        assert not {*name} & {*"/\\\0\n\x1b$`~*'\" "}
        assert (tmp_path / name).resolve().parent == tmp_path
        (tmp_path / name).mkdir()
    assert job_name(["data.path=../../../p.csv"], [], 0).startswith("data.path=p.csv-")
