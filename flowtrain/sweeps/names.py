"""The names of a sweep's jobs: what tells each from the others, as one safe folder."""

import hashlib
import re
from collections.abc import Sequence

LONGEST_NAME = 200  # bytes; file systems take 255
UNSAFE = re.compile(r"[^\w.=,+@:\[\]-]+")  # in the name of a folder, or in a shell


def job_name(overrides: Sequence[str], same: Sequence[str], number: int) -> str:
    r"""Name the folder of a sweep's job by what tells it from the others.

    A name is one folder, whatever the values hold: of a path its last part is told, what is not
    safe in a name is replaced, and a checksum keeps names apart that this makes alike. It does not
    hang on the other jobs, so that a sweep that grows finds its jobs again.

    Args:
        overrides: of the job, as Hydra hands them on.
        same: keys whose values all jobs share.
        number: of the job, its name where nothing differs.

    >>> job_name(["model=spline", "data=moons", "seed=0"], ["data"], 3)
    'model=spline,seed=0'
    >>> job_name(["data.path=../../../p.csv", "seed=0"], [], 0)
    'data.path=p.csv,seed=0-d79aeb36'
    """
    parts = [line.lstrip("+~").partition("=") for line in overrides]
    told = [(key, value.replace("\\", "")) for key, _, value in parts if key not in same]
    whole = ",".join(f"{key}={value}" for key, value in told)
    name = UNSAFE.sub("_", ",".join(f"{key}={_last_part(value)}" for key, value in told))
    if name != whole or len(name.encode()) > LONGEST_NAME:
        checksum = hashlib.sha256(",".join(overrides).encode()).hexdigest()[:8]
        kept = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
        return f"{kept}-{checksum}"
    return name or str(number)


def _last_part(value: str) -> str:
    plain = re.sub(r"['\"]", "", value)
    return plain.rstrip("/").rpartition("/")[2]
