# %% [markdown]
# # RealNVP against FFJORD
#
# Two ways to carry a normal density to the data. **RealNVP** takes a number of fixed steps, each
# simple enough that its determinant costs nothing. **FFJORD** lets points move along a velocity, any
# smooth network, and solves an ODE. This notebook trains both on the same points for the same time.

# %%
import json
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import flowtrain

BUDGET = ["trainer.max_seconds=40", "trainer.figures=false"]  # for each of the two
MODELS = {"realnvp": 200, "ffjord": 40}  # steps between evaluations, a few seconds of each
RUNS = Path(tempfile.mkdtemp())  # the run folders; in a project of your own, outputs/
torch.set_num_threads(1)

# %% [markdown]
# ## Training
#
# In a terminal this is `flowtrain -m model=realnvp,ffjord data=pinwheel trainer.max_seconds=40`. From
# Python, `flowtrain.train` takes the same words. Each run ends with a report: its lines are explained
# in [How to read KL](../../kl/).

# %%
runs = {}
for model, every in MODELS.items():
    command = [f"model={model}", "data=pinwheel", f"trainer.evaluate_every={every}", *BUDGET]
    runs[model] = flowtrain.train(command, folder=RUNS / model)

# %% [markdown]
# ## Who is closer, and after how long?
#
# A run folder has every figure of the run, a line for each time it was logged. KL of the validation
# points over the seconds:

# %%
curves = {}
for model in MODELS:
    lines = (runs[model].folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    curves[model] = [(r["seconds"], r["kl/val"]) for r in records if "kl/val" in r]

plt.figure(figsize=(6, 3.5))
for model, points in curves.items():
    plt.plot(*zip(*points, strict=True), marker="o", markersize=4, label=model)
plt.yscale("log")
plt.xlabel("seconds of training")
plt.ylabel("KL (nats)")
plt.legend()
plt.show()

# %% [markdown]
# ## What each of them costs

# %%
flows = {model: runs[model].flow for model in MODELS}
rows = []
for model in MODELS:
    metrics = runs[model].metrics
    result = json.loads((runs[model].folder / "result.json").read_text())
    began = time.perf_counter()
    flows[model].sample(10_000, torch.Generator().manual_seed(0))
    rows.append(
        (
            model,
            f"{metrics['kl/test']:.4f}",
            f"{result['parameters']:,}",
            f"{result['step']:,}",
            f"{metrics['inverse_error/test']:.0e}",
            f"{time.perf_counter() - began:.2f}",
        )
    )
head = ("model", "KL", "weights", "steps", "inverse error", "sampling (s)")
for row in (head, *rows):
    print("".join(f"{cell:>14}" for cell in row))

# %% [markdown]
# - **Weights.** FFJORD reuses one network at every time; RealNVP has one in each coupling.
# - **Steps.** A step of FFJORD solves an ODE: some tens of evaluations of its network. So it takes
#   fewer steps in the same time.
# - **Inverse error.** RealNVP inverts exactly, up to rounding. FFJORD inverts up to the tolerance of its
#   solver.
# - **Sampling**, of 10,000 points. One pass for RealNVP, one solve for FFJORD.
#
# ## The densities

# %%
pinwheel = flowtrain.densities.Pinwheel(
    arms=5, radial_std=0.3, tangential_std=0.1, rate=0.25, scale=2.0
)
nodes, _ = pinwheel.quadrature(160)
(left, bottom), (right, top) = (corner.tolist() for corner in pinwheel.window)
panels = {"exact": pinwheel.log_prob(nodes)}
with torch.no_grad():
    for model, flow in flows.items():
        panels[model] = flow.log_prob(nodes.float())
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True)
brightest = panels["exact"].max().exp().item()
for axis, (title, log_density) in zip(axes, panels.items(), strict=True):
    axis.imshow(
        log_density.exp().reshape(160, 160).T.numpy(),
        origin="lower",
        extent=(left, right, bottom, top),
        cmap="magma",
        vmax=brightest,
    )
    axis.set_title(title)
plt.show()

# %% [markdown]
# ## How they get there
#
# The same 400 points of the base on their way to the data: RealNVP after some of its couplings, FFJORD
# at some times. RealNVP folds space in steps that mean nothing by themselves; FFJORD moves every point
# along a smooth path.

# %%
z = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    state, states = z, [z]
    for transform in flows["realnvp"].transforms:
        state, _ = transform(state)
        states.append(state)
    standardize = flows["realnvp"].standardize
    stages = torch.linspace(0, len(states) - 1, 5).long().tolist()
    folded = [standardize(states[stage])[0] for stage in stages]
    moved = flows["ffjord"].trajectory(z, torch.linspace(0, 1, 5))

figure, axes = plt.subplots(2, 5, figsize=(11, 4.6), sharex=True, sharey=True)
for row, (model, way) in enumerate((("realnvp", folded), ("ffjord", moved))):
    for axis, points in zip(axes[row], way, strict=True):
        axis.scatter(*points.T.numpy(), s=2, color="crimson" if row else "steelblue")
        axis.set_xlim(left, right)
        axis.set_ylim(bottom, top)
    axes[row, 0].set_ylabel(model)
plt.show()

# %% [markdown]
# ## Which one?
#
# For likelihood and samples in little time: couplings, and best of them `model=spline`. For smooth
# paths, few weights, or a velocity to work with: a continuous flow, and in little time with
# `objective=flow_matching_then_likelihood`. [Results](../../results/) has the figures of all models on
# eight densities.
