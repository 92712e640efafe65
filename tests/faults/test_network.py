"""A network file system mounted twice, as by two machines: one run at a time, and nothing lost."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

Start = Callable[..., Any]
SameEnd = Callable[[Path, Path, str], None]

LONG = ["trainer.max_steps=1000000", "trainer.evaluate_every=1000000"]
# Gluster's server and client (Debian: glusterfs-server), without its daemon of daemons.
SERVER = """
volume files
  type storage/posix
  option directory {folder}
end-volume
volume brick
  type features/locks
  subvolumes files
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow 127.0.0.1
  subvolumes brick
end-volume
"""
CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
end-volume
"""


class Network:
    """A server of files, and two machines that have mounted what it serves."""

    def __init__(self, home: Path) -> None:
        self.home, self.processes = home, dict[str, subprocess.Popen[bytes]]()
        self.machines = [home / "one", home / "other"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for folder in (home / "served", *self.machines):
            folder.mkdir()
        (home / "server.vol").write_text(SERVER.format(folder=home / "served", port=port))
        (home / "client.vol").write_text(CLIENT.format(port=port))
        self.serve()
        for machine in self.machines:
            self._begin(machine.name, "glusterfs", "client.vol", str(machine))
            wait_until(machine.is_mount)

    def serve(self) -> None:
        """Start the server."""
        self._begin("server", "glusterfsd", "server.vol")
        log = self.home / "server.log"
        wait_until(lambda: log.exists() and "+----" in log.read_text(encoding="utf-8"))

    def go_down(self) -> None:
        """End the server at once, as a machine that lost its power."""
        server = self.processes.pop("server")
        server.kill()
        server.wait()
        (self.home / "server.log").unlink()

    def end(self) -> None:
        for machine in self.machines:
            subprocess.run(["umount", "-l", machine], capture_output=True)
        for process in self.processes.values():
            process.terminate()
            process.wait()

    def _begin(self, name: str, program: str, volume: str, *more: str) -> None:
        files = ["-f", str(self.home / volume), "-l", str(self.home / f"{name}.log")]
        self.processes[name] = subprocess.Popen([program, "-N", *files, *more])


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.1)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    missing = [name for name in ("glusterfs", "glusterfsd") if shutil.which(name) is None]
    if missing or os.getuid():
        pytest.skip(f"root and Gluster's programs are needed, missing: {missing}")
    network = Network(tmp_path)
    yield network
    network.end()


@pytest.fixture(scope="module")
def whole(start: Start, eight_steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on a disk of this machine that nothing disturbed."""
    home = tmp_path_factory.mktemp("whole")
    assert start(eight_steps, home).wait() == (0, "")
    return home / "run"


def taken_up(machine: Path) -> Callable[[], bool]:
    """Return whether a run has written its first lines."""
    metrics = machine / "run" / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.stat().st_size > 1000


def test_a_run_that_is_killed_goes_on_from_another_machine(
    start: Start, eight_steps: list[str], network: Network, whole: Path, cases: int,
    chance: random.Random, assert_same_end: SameEnd, tell: Callable[[str], None],
) -> None:  # fmt: skip
    one, other = network.machines
    began = time.monotonic()
    assert start(eight_steps, one).wait() == (0, "")
    lasts, killed = time.monotonic() - began, 0
    for case in range(cases):
        shutil.rmtree(other / "run")
        process = start(eight_steps, one)
        process.kill_after(chance.uniform(0, lasts))
        killed += process.wait()[0] != 0
        time.sleep(1)  # TensorBoard's files go by seconds
        assert start(eight_steps, other).wait() == (0, ""), case
        assert_same_end(one / "run", whole, str(case))
    tell(f"{cases} runs, {killed} kills")


def test_of_two_machines_the_second_is_refused_until_the_first_dies(
    start: Start, eight_steps: list[str], network: Network
) -> None:
    one, other = network.machines
    first = start([*eight_steps, *LONG], one)
    wait_until(taken_up(other))
    status, said = start(eight_steps, other).wait()
    owner = f"process {first.pid} on {socket.gethostname()}"
    assert (status, said) == (1, f"flowtrain: run: {owner} is at work there\n")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert start(["resume=run", "trainer.max_steps=8"], other).wait()[0] == 0


def test_a_server_that_goes_down_ends_the_run_in_one_line_and_it_goes_on_later(
    start: Start, eight_steps: list[str], network: Network
) -> None:
    one, other = network.machines
    process = start([*eight_steps, "trainer.max_steps=1000000"], one)
    wait_until(taken_up(other))
    network.go_down()
    status, said = process.wait()
    assert (status, said.count("\n")) == (1, 1), said
    assert said.startswith("flowtrain: "), said
    network.serve()
    wait_until(lambda: os.path.exists(other / "run" / "checkpoints" / "last.pt"))
    assert start(["resume=run", "trainer.max_steps=8"], other).wait() == (0, "")
