"""What the terminal says of training between two evaluations: the smoothed loss, the speed."""

from flowtrain.training.report import in_short
from flowtrain.training.state import Progress

STEPS = 50  # that the averages look back on


class Pace:
    """Running averages over about the last `STEPS` steps.

    >>> pace = Pace()
    >>> pace.count(2.0, seconds=0.1)
    >>> pace.count(3.0, seconds=0.1)
    >>> pace.details(Progress(step=2), steps=20)
    ('step 2/20', 'loss 2.505', '10.0 steps/s')
    """

    def __init__(self) -> None:
        self.evaluations: float | None = None  # of the field in a step, as far as that is known
        self._of: object = None
        self._weight = 0.0
        self._loss = 0.0
        self._seconds = 0.0

    def count(self, loss: float, seconds: float, *, of: object = None) -> None:
        """Take a step into the averages, which begin anew where the loss is of something else."""
        if of is not self._of:
            self._of, self._weight = of, 0.0
        keep = 1 - 1 / STEPS
        self._weight = keep * self._weight + 1 - keep
        share = (1 - keep) / self._weight
        self._loss += share * (loss - self._loss)
        self._seconds += share * (seconds - self._seconds)

    def details(self, progress: Progress, steps: int | None) -> tuple[str, ...]:
        """Return short texts on where a run stands, the most important first.

        Args:
            progress: of the run.
            steps: at which it ends; None where time alone ends it.
        """
        rate = 1 / max(self._seconds, 1e-9)
        speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}" if rate < 1 else f"{rate:.1f}"
        details = [f"step {progress.step:,}" + ("" if steps is None else f"/{steps:,}")]
        if progress.metrics:
            details.append(in_short(progress.metrics))
        details += [f"loss {self._loss:.4g}", f"{speed} steps/s"]
        if self.evaluations is not None:
            details.append(f"nfe {self.evaluations:.0f}")
        return tuple(details)
