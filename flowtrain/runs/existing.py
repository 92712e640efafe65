"""Find a run's checkpoint or replica; if it is missing, say what the folder holds instead."""

from pathlib import Path

from flowtrain.errors import CheckpointError
from flowtrain.runs.folder import RunFolder
from flowtrain.runs.result import read_result


def existing_checkpoint(folder: Path, name: str) -> Path:
    """Return the path of the checkpoint `best` or `last` of a run, which is there.

    Raises:
        CheckpointError: it is not; says what is there instead, or why the run never began.

    >>> existing_checkpoint(run_folder, "best").relative_to(run_folder).as_posix()
    'checkpoints/best.pt'
    """
    run = RunFolder(folder)
    file = run.checkpoint(name)
    if file.is_file():
        return file
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder")
    if not folder.is_dir():
        around = [each for each in folder.parents[:2] if RunFolder(each).begun]
        hint = f"; the run is {around[0]}" if around else ""
        raise CheckpointError(f"{folder}: a file, not a run folder{hint}")
    missing = f"there is no checkpoint {file}"
    if there := sorted(each.stem for each in file.parent.glob("*.pt")):
        raise CheckpointError(f"{missing}; the run has {' and '.join(there)}")
    if several := run.replicas:
        one = several[0].path
        raise CheckpointError(f"{missing}: {folder} holds replicas; name one of them: {one}")
    if reason := read_result(run).get("error"):
        raise CheckpointError(f"{folder}: this run failed at its start: {reason}")
    if run.result.is_file():
        raise CheckpointError(f"{missing}: the run has saved none yet")
    if run.started:
        raise CheckpointError(f"{missing}: the run never began; start it again")
    levels = (folder.glob(f"{above}/checkpoints/{file.name}") for above in ("*", "*/*"))
    below = sorted(each.parents[1] for level in levels for each in level)
    hint = f"; one below it is: {below[0]}" if below else ""
    raise CheckpointError(f"{missing}: {folder} is no run folder{hint}")


def existing_replica(folder: Path, number: int) -> Path:
    """Return the folder of a replica that is there.

    Raises:
        CheckpointError: it is not; says which are.

    >>> try:
    ...     existing_replica(run_folder, 3)
    ... except CheckpointError as error:
    ...     str(error).removeprefix(str(run_folder))
    ': there is no replica 3: it is the run of a single seed'
    """
    there = RunFolder(folder).replicas
    if not 0 <= number < len(there):
        has = f"it has 0 to {len(there) - 1}" if there else "it is the run of a single seed"
        raise CheckpointError(f"{folder}: there is no replica {number}: {has}")
    return there[number].path
