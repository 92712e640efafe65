"""`resume_sweep=FOLDER`: typed again is what was typed, and no code that a stranger wrote runs."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from flowtrain.errors import UserError
from flowtrain.sweeps.again import typed_again
from flowtrain.sweeps.plan import write_record


@pytest.mark.parametrize("name", ["it's a, b=c", r"a\b", "a${b}"])
def test_what_is_typed_beside_the_folder_wins(tmp_path: Path, name: str) -> None:
    sweep = tmp_path / name
    typed = ["model=spline", "launcher=joblib", "trainer.max_steps=5", "seed=0,1"]
    write_record(sweep, typed, {})
    again = typed_again(["-m", f"resume_sweep={sweep}", "launcher=basic", "trainer.max_steps=9"])
    assert again[:-1] == [
        "-m", "model=spline", "seed=0,1", "launcher=basic", "trainer.max_steps=9",
    ]  # fmt: skip
    (read,) = OverridesParser.create().parse_overrides(again[-1:])
    assert read.key_or_group == "hydra.sweep.dir"
    assert OmegaConf.create({"read": read.value()}).read == str(sweep)


def test_other_commands_are_left_as_they_are() -> None:
    assert typed_again(["-m", "seed=0,1"]) == ["-m", "seed=0,1"]


@pytest.mark.parametrize(
    "argument",
    [
        "hydra.launcher.setup=[reboot]", "hydra/launcher=submitit_slurm", "+hydra.callbacks.x=y",
        "hydra.sweeper._target_=os.system", "--config-dir=/tmp/strange", "-cd", "++hydra.job.x=1",
        "hydra.sweep.dir=/elsewhere",
    ],
)  # fmt: skip
def test_hydra_s_own_settings_are_not_taken_from_a_folder(tmp_path: Path, argument: str) -> None:
    write_record(tmp_path, [argument, "seed=0,1", "hydra.sweeper.n_trials=5"], {})
    assert typed_again([f"resume_sweep={tmp_path}"]) == [
        "-m", "seed=0,1", "hydra.sweeper.n_trials=5", f"hydra.sweep.dir='{tmp_path}'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "argument",
    [
        "data.target=os:system", "+model.field=strange:Field", "data={name:custom,target:os:exec}",
        "objective.target='strange:Loss'", r"data.target=os\:system",
        "data.target=os:${data.arguments.n}",
    ],
)  # fmt: skip
def test_code_is_not_run_unasked(tmp_path: Path, argument: str) -> None:
    write_record(tmp_path, [argument, "seed=0,1"], {})
    with pytest.raises(UserError, match="trust that code, add trust_code=true"):
        typed_again([f"resume_sweep={tmp_path}"])
    again = typed_again([f"resume_sweep={tmp_path}", "trust_code=true"])
    assert again == ["-m", argument, "seed=0,1", f"hydra.sweep.dir='{tmp_path}'"]


@pytest.mark.parametrize(
    "argument", ["data.path=points.csv", "data.path=/a.csv,b.csv", "+init_from='outputs/a b'"]
)
def test_a_path_is_not_taken_for_one_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "else").mkdir()
    sweep = tmp_path / "sweep"
    write_record(sweep, ["data=table", argument, "seed=0,1"], {})
    assert argument in typed_again([f"resume_sweep={sweep}"])
    monkeypatch.chdir(tmp_path / "else")
    with pytest.raises(UserError, match=f"^{sweep}: this sweep names .* from {tmp_path}: go there"):
        typed_again([f"resume_sweep={sweep}"])
    anew = f"{argument.partition('=')[0]}=../points.csv"
    assert anew in typed_again([f"resume_sweep={sweep}", anew])
    write_record(sweep, ["data.path=/points.csv,~/more.csv", "seed=0,1"], {})
    monkeypatch.chdir(tmp_path)
    assert "seed=0,1" in typed_again([f"resume_sweep={sweep}"])


def test_the_link_latest_is_followed_before_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "outputs" / "sweep", ["seed=0,1"], {})
    (tmp_path / "latest").symlink_to("outputs/sweep")
    assert typed_again(["resume_sweep=latest"])[-1] == "hydra.sweep.dir='outputs/sweep'"
