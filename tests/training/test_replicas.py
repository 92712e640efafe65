"""Replicas keep files open: room for them is made, or they are refused before anything is built."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowtrain.config.schema import Config
from flowtrain.errors import ConfigError
from flowtrain.runs.folder import RunFolder
from flowtrain.training.replicas import make_room_for_files, open_replicas

Tiny = Callable[..., Config]


@pytest.fixture
def few_files() -> Iterator[None]:
    """Set the soft limit of open files so low that a hundred replicas do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_soft_limit_of_open_files_is_raised_as_far_as_needed(few_files: None) -> None:
    make_room_for_files(20)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
    make_room_for_files(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 364


def test_a_hard_limit_of_open_files_is_told_before_a_replica_is_built(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 200))
    told = (
        "trainer.replicas: 100 need up to 364 open files, the limit is 200: take 45 at most, "
        r"or raise it \(ulimit -n 364\)"
    )
    opening = open_replicas(tiny("trainer.replicas=100"), RunFolder(tmp_path))
    with pytest.raises(ConfigError, match=told), opening:
        pass
    assert not [*tmp_path.glob("replica-*")]
