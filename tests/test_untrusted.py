"""Nothing that is read blocks, leads elsewhere, unfolds or surprises."""

import json
import os
import time
from pathlib import Path

import pytest

from flowtrain.errors import UserError
from flowtrain.untrusted import is_plain, open_regular, read_json, read_records, read_yaml


@pytest.fixture(autouse=True)
def quickly() -> object:
    """Fail a test that takes seconds: what is refused is refused at once."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 5


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match="no regular file"):
            open_regular(path)


def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "secret.json"
    run.mkdir()
    outside.write_text("{}")
    (run / "result.json").symlink_to(outside)
    (run / "inner.json").write_text("[]")
    (run / "alias.json").symlink_to("inner.json")
    with pytest.raises(UserError, match="refused: it leads out of"):
        read_json(run / "result.json", inside=run)
    with pytest.raises(UserError, match="refused: it leads out of"):
        read_json(run / ".." / "secret.json", inside=run)
    assert read_json(run / "alias.json", inside=run) == []
    (tmp_path / "named").symlink_to(run)  # the folder itself may be a link: it was named
    assert read_json(tmp_path / "named" / "inner.json", inside=tmp_path / "named") == []


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="a: "):
        open_regular(tmp_path / "a", inside=tmp_path)


def test_a_file_beyond_its_size_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    with pytest.raises(UserError, match=r"1,099,511,627,776 bytes are more than the 16,777,216"):
        read_json(path, inside=tmp_path)
    with pytest.raises(UserError, match="are more than"):
        read_records(path, inside=tmp_path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, MERGES, "x: !!python/object/apply:os.system [id]", "[" * 100_000, "a: [", "\x00",
        "? [a]\n: 1", "x: !!timestamp 9999-99-99", "{[1]: 2}",
    ],
    ids=["aliases", "merges", "code", "deep", "cut", "NUL", "a list as a key", "date", "key"],
)  # fmt: skip
def test_yaml_that_is_not_plain_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="no plain YAML"):
        read_yaml(tmp_path / "config.yaml", inside=tmp_path)


def test_whole_records_are_read_and_damaged_lines_counted(tmp_path: Path) -> None:
    good = [{"step": 0, "seconds": 0.0, "nll/val": 2.5}, {"step": 5, "seconds": 1.5, "loss": None}]
    lines = [
        json.dumps(good[0]), "null", "{", '{"seconds": 1}', '{"step": "5"}', '{"step": 1.5}',
        '{"step": 1, "loss": "low"}', "\x00\x00", '{"step": 1, "seconds": null}',
        json.dumps(good[1]),
    ]  # fmt: skip
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n\xff\xfe\n{"step": 6, "lo')
    assert read_records(path, inside=tmp_path) == (good, 9)


def test_what_is_small_as_stored_and_huge_to_walk_is_not_plain() -> None:
    bomb: list[object] = [0] * 9
    for _ in range(40):
        bomb = [bomb] * 9
    assert not is_plain(bomb)
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert not is_plain(deep)
    assert not is_plain({object(): 1})
