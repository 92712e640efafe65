"""`trainer.capture`: a loss and its gradient as one CUDA graph, launched as a whole.

A step of a small flow is hundreds of kernels, each over sooner than Python launches the next. A
graph holds all of them, recorded before the first step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowtrain.errors import ConfigError

WARM_UP = 3  # calls before the recording: libraries choose their kernels in the first ones


class CudaGraph:
    """What takes a batch to its loss and gradient, recorded at its first call, replayed since then.

    What it returns is recorded, too: tensors in it hold the numbers of the latest call. It draws
    what the function itself would draw. A recording that gives another loss or gradient than the
    function is refused.

    Args:
        function: of tensors that keep their shapes, on a CUDA GPU; it waits for nothing that is
            computed there, and returns the loss, or a tuple that begins with it.
        gradient: to which the function adds.
        generator: what the function draws from, if it draws; on the GPU.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        gradient: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        self.function, self.gradient, self.generator = function, gradient, generator
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.result: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the function's result.

        Raises:
            ConfigError: at the first call, the function cannot be recorded.
        """
        if self.graph is None:
            self.prepare(*inputs)
        assert self.graph is not None
        for own, each in zip(self.inputs, inputs, strict=True):
            own.copy_(each)
        self.graph.replay()
        return self.result

    def record(self, *inputs: Tensor) -> torch.cuda.CUDAGraph:
        """Return the graph of a call, and keep its inputs and its result; the function runs.

        Raises:
            ConfigError: as a call.
        """
        self.inputs = [each.clone() for each in inputs]
        device = inputs[0].device
        graph, beside = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
        try:
            beside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP):
                    self.function(*self.inputs)
            torch.cuda.current_stream(device).wait_stream(beside)
            if self.generator is not None:
                graph.register_generator_state(self.generator)
            with torch.cuda.device(device), torch.cuda.graph(graph, stream=beside):
                self.result = self.function(*self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise _refusal(str(error).strip().splitlines()[0]) from error
        return graph

    def prepare(self, *inputs: Tensor) -> None:
        """Record a call, and hold the recording to the function; nothing is drawn or added for it.

        Raises:
            ConfigError: as a call.
        """
        gradient = self.gradient.clone()
        drawn = None if self.generator is None else self.generator.get_state()
        graph = self.record(*inputs)

        def rewind() -> None:
            if self.generator is not None and drawn is not None:
                self.generator.set_state(drawn)

        def outcome(of: Callable[[], Any]) -> tuple[Tensor, Tensor]:
            self.gradient.zero_()
            rewind()
            result = of()
            loss: Tensor = result[0] if isinstance(result, tuple) else result
            return loss.clone(), self.gradient.clone()

        def replayed() -> Any:
            graph.replay()
            return self.result

        for own, recorded in zip(
            outcome(lambda: self.function(*self.inputs)), outcome(replayed), strict=True
        ):
            if not torch.allclose(own, recorded, rtol=1e-3, atol=1e-4, equal_nan=True):
                raise _refusal("its recording gives another loss or gradient")
        self.gradient.copy_(gradient)
        rewind()
        self.graph = graph


def _refusal(why: str) -> ConfigError:
    return ConfigError(
        f"trainer.capture: a step of this run cannot be recorded ({why}); leave it false"
    )


def refuse_without_cuda(device: torch.device) -> None:
    """Refuse to record steps on what records none.

    Raises:
        ConfigError: the device is no CUDA GPU.

    >>> refuse_without_cuda(torch.device("cpu"))
    Traceback (most recent call last):
        ...
    flowtrain.errors.ConfigError: trainer.capture: cpu has no CUDA graphs; leave it false
    """
    if device.type != "cuda":
        raise ConfigError(f"trainer.capture: {device} has no CUDA graphs; leave it false")
