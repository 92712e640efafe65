"""`flowrun animate`: a continuous flow's way from base to data, as a GIF or MP4."""

import argparse
import tempfile
from pathlib import Path

from flowtrain.cli import options as shared
from flowtrain.errors import UserError
from flowtrain.progress import doing

SUMMARY = "write a continuous flow's way from base to data"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shared.add_run_options(command)
    shared.add_given_option(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help=".gif or .mp4 (default: figures/flow.gif in the run's folder)",
    )  # fmt: skip
    command.add_argument(
        "--frames", type=shared.at_least(2), default=31, help="from base to data (default: 31)"
    )
    command.add_argument(
        "--points", type=shared.at_least(1), default=2000, help="on their way (default: 2000)"
    )
    command.add_argument(
        "--lines", type=shared.at_least(120, at_most=4320), default=1080,
        help="of a screen of 16 to 9 that the picture fits, 120 to 4320 (default: 1080)",
    )  # fmt: skip
    shared.add_seed_option(command)


def run(options: argparse.Namespace) -> None:
    """Write an animation of a continuous flow's way from base to data."""
    from flowtrain.cli.console import say, working

    with working():
        path, told = _write(options)
    say(f"wrote {path}: {options.frames} frames, {options.points:,} points of seed {options.seed}")
    say(f"they are of {told}")


def _write(options: argparse.Namespace) -> tuple[Path, str]:
    """Write the animation; return its path, and what it shows."""
    from flowtrain.cli.console import counted

    with doing("loading torch"):
        from flowtrain.evaluation.images import save_gif, save_mp4
        from flowtrain.evaluation.motion import animation
        from flowtrain.files import check_output, writing
        from flowtrain.flows.continuous import ContinuousFlow
        from flowtrain.runs.folder import RunFolder

    saved, batch_size = shared.open_chosen(options, continuous="has no time to animate")
    path = options.output or RunFolder(saved.folder).figure("flow.gif")
    savers = {".gif": save_gif, ".mp4": save_mp4}
    check_output(path, savers)
    assert isinstance(saved.flow, ContinuousFlow)
    if saved.flow.dim != 2:
        raise UserError(f"{saved.folder}: only a flow in the plane is animated")
    z = saved.flow.sample_base(options.points, shared.seeded(options))
    frames = animation(
        saved.flow, saved.density, z,
        frames=options.frames, batch_size=batch_size, lines=options.lines,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:  # the savers go by the suffix
        draft = Path(scratch) / path.name
        with doing("drawing"):
            savers[path.suffix.lower()](counted(frames, options.frames, "frame"), draft)
        with writing(path) as file:
            file.write(draft.read_bytes())
    return path, shared.about(saved, options)
