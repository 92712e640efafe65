"""Words as a user types them, and as Hydra is to read them."""

from pathlib import Path

import pytest

from flowtrain.cli.typed import understood


def test_a_link_latest_is_followed_before_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "a=1,b").mkdir(parents=True)
    (tmp_path / "latest").symlink_to("outputs/a=1,b")
    assert understood(["resume=latest"]) == ["resume='outputs/a=1,b'"]
    assert understood(["-m", "init_from=latest"]) == ["-m", "init_from='outputs/a=1,b'"]
    for key in ("objective.teacher", "hydra.sweep.dir"):
        assert understood(["-m", f"{key}=latest"]) == ["-m", f"{key}='outputs/a=1,b'"]
    assert understood(["init_from=outputs/a=1,b"]) == ["init_from='outputs/a=1,b'"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["data=moons", "seed=1"], ["data=moons", "seed=1"]),
        (["data.arguments.side=2"], ["++data.arguments.side=2"]),
        (["objective.arguments.a.b=1,2"], ["++objective.arguments.a.b=1,2"]),
        (["data.arguments={side:2}"], ["++data.arguments={side:2}"]),
        (["++data.arguments.side=2"], ["++data.arguments.side=2"]),
        (["resume=a,b=c"], ["resume='a,b=c'"]),
        (["data.path=b.csv", "resume=a"], ["++data.path=b.csv", "resume='a'"]),
        (["resume='a'", "data.path='b.csv'"], ["resume='a'", "++data.path='b.csv'"]),
        (["resume='a,b'"], ["resume='a,b'"]),
        (["init_from=a b"], ["init_from='a b'"]),
        (["-m", "init_from=a,b"], ["-m", "init_from=a,b"]),
        (["data.path=größe.csv"], ["data.path='größe.csv'"]),
        (["data.path=points (1).csv"], ["data.path='points (1).csv'"]),
        (["data.path=a'b[1]&#.csv"], [r"data.path='a\'b[1]&#.csv'"]),
        (["data.path=a=b.csv"], ["data.path='a=b.csv'"]),
        (["hydra.run.dir=größe/run"], ["hydra.run.dir='größe/run'"]),
        (["hydra.run.dir=~/run"], [f"hydra.run.dir='{Path.home() / 'run'}'"]),
        (["resume=~/run"], [f"resume='{Path.home() / 'run'}'"]),
        (["-m", "hydra.sweep.dir=~/all"], ["-m", f"hydra.sweep.dir='{Path.home() / 'all'}'"]),
        (["-m", "data.path=~/a.csv,~/b.csv"], ["-m", "data.path=~/a.csv,~/b.csv"]),
        (["model=spline.yaml"], ["model=spline"]),
        (["-m", "data=moons.yaml,rings.yaml"], ["-m", "data=moons,rings"]),
        (["data.path=points.yaml"], ["data.path=points.yaml"]),
        (["hydra.run.dir=a,b"], ["hydra.run.dir=a,b"]),
        (["hydra.run.dir=runs/${model.name} (1)"], ["hydra.run.dir=runs/${model.name} (1)"]),
        (["data.path='größe.csv'"], ["data.path='größe.csv'"]),
        (["data.path=[a,b]"], ["data.path=[a,b]"]),
        (["-m", "data.path=größe.csv"], ["-m", "data.path=größe.csv"]),
    ],
)
def test_what_hydra_would_take_amiss_is_rewritten(typed: list[str], read: list[str]) -> None:
    assert understood(typed) == read
