"""The config's schema, one file a group of conf/, free of torch: help and refusals stay fast."""

from pathlib import Path

_HERE = Path(__file__).resolve()
# In a wheel the files lie inside the package, in a checkout beside it.
CONF = next(
    c for up in (1, 2) if (c := _HERE.parents[up] / "conf" / "config.yaml").is_file()
).parent
