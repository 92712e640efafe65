"""What CI installs: every package by its hash, in the versions that the constraints name."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^(\S+)==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pins() -> dict[str, str]:
    text = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")
    found: dict[str, str] = {
        canonicalize_name(name): version for name, version, _ in PIN.findall(text)
    }
    assert len(found) == text.count("==")  # none without a hash
    return found


def test_everything_that_is_asked_for_is_pinned_in_a_version_that_fits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, [*project["dependencies"], *extras["dev"], *extras["docs"]])
    pinned = pins()
    unfit = [
        str(each)
        for each in asked
        if not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"))
    ]
    assert unfit == [], "`make lock` writes .ci/requirements.txt"


def test_the_pins_are_those_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = [line.partition("==") for line in lines if not line.startswith("#")]
    pinned = pins()
    differing = {
        name: pinned[canonicalize_name(name)]
        for name, _, version in named
        if pinned.get(canonicalize_name(name), version).partition("+")[0] != version
    }
    assert differing == {}, "`make lock` writes .ci/requirements.txt"
