"""Where the time of this project's training steps goes, by torch's profiler."""

import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.learners import Make

STEPS = 10
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv", "aten::mv"}
COPIES = {
    "aten::copy_", "aten::cat", "aten::index_select", "aten::index", "aten::index_add_",
    "aten::gather", "aten::scatter_add_", "aten::fill_", "aten::zero_", "aten::clone",
}  # fmt: skip
# Of no time of their own but what Python and the dispatcher take.
VIEWS = {
    "aten::view", "aten::reshape", "aten::t", "aten::transpose", "aten::as_strided", "aten::slice",
    "aten::select", "aten::expand", "aten::unbind", "aten::split", "aten::split_with_sizes",
    "aten::narrow", "aten::unsqueeze", "aten::squeeze", "aten::detach", "aten::permute",
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty",
    "aten::resolve_conj",
}  # fmt: skip


def dispatch() -> float:
    """Return the microseconds of adding two numbers: there is hardly more to it than dispatch."""
    x, turns = torch.zeros(1), 20_000
    began = time.process_time()
    for _ in range(turns):
        x + x
    return 1e6 * (time.process_time() - began) / turns


def shares(makers: dict[str, Make]) -> dict[str, dict[str, float]]:
    """Return of each step its operations, and the parts of its time in products, in other
    arithmetic, in copies, and between operations: Python, dispatch, autograd, the profiler's own.

    Args:
        makers: of this project's learners, by name.
    """
    found = {}
    for name, make in makers.items():
        learner = make()
        for _ in range(10):
            learner.step(0.5)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            began = time.process_time()
            for _ in range(STEPS):
                learner.step(0.5)
            total = 1e6 * (time.process_time() - began)
        events = profiled.key_averages()
        spent = {"products": 0.0, "arithmetic": 0.0, "copies": 0.0}
        for event in events:
            if event.key.startswith("aten::") and event.key not in VIEWS:
                kind = "products" if event.key in PRODUCTS else "arithmetic"
                spent["copies" if event.key in COPIES else kind] += event.self_cpu_time_total
        operations = sum(e.count for e in events if e.key.startswith("aten::")) / STEPS
        found[name] = {
            "operations": operations,
            **{kind: taken / total for kind, taken in spent.items()},
            "between": 1 - sum(spent.values()) / total,
        }
        print(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in found[name].items()), flush=True)
    return found
