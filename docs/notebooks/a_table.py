# %% [markdown]
# # A table of one's own
#
# From a file with rows of numbers to a density: train, judge, score, sample. There is no exact density
# here, so no KL. What stands in its place?

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import torch

import flowtrain

ROWS = 4_000
BUDGET = ["trainer.max_seconds=30", "trainer.device=cpu"]
HERE = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The file
#
# We make one: three columns, on a curve with noise. Any CSV file with numbers will do, with or without a
# line of names.

# %%
chance = np.random.default_rng(0)
angle = chance.uniform(0, 1.5 * np.pi, ROWS)
height = angle + 0.1 * chance.standard_normal(ROWS)
width = np.cos(angle) * (1 + 0.3 * angle) + 0.1 * chance.standard_normal(ROWS)
weight = np.exp(np.sin(angle) + 0.1 * chance.standard_normal(ROWS))
table = np.stack([height, width, weight], axis=1)
np.savetxt(
    HERE / "points.csv", table, delimiter=",", header="height,width,weight", comments="", fmt="%.6f"
)
print(*(HERE / "points.csv").read_text().splitlines()[:4], sep="\n")

# %% [markdown]
# ## Training
#
# In a terminal: `flowtrain data=table data.path=points.csv model=spline hydra.run.dir=mine`.
#
# The rows are split at random: 80 % to learn from, 10 % (val) to choose the best weights, 10 % (test) to
# be looked at once, at the end.

# %%
mine = flowtrain.train(
    ["data=table", f"data.path={HERE / 'points.csv'}", "model=spline", *BUDGET],
    folder=HERE / "mine",
)

# %% [markdown]
# Points that are in memory already, in an array or a data frame, need no file:
# `flowtrain.fit(table, model="spline", seconds=30)`.
#
# ## Is it good?
#
# The **held-out NLL**, the mean of −log q over the test rows, is lower for a better model. By itself the
# number says little: it depends on the units of the columns. So two baselines stand beside it, on the
# same rows: the best Gaussian, and a kernel density estimate. Differences below the error mean nothing. In
# so few columns a kernel density estimate is hard to beat; with more of them it falls behind.

# %%
for name, tag in (
    ("the flow", "nll/test"),
    ("best Gaussian", "nll_gaussian/test"),
    ("kernel density", "nll_kde/test"),
):
    print(f"{name:<16}{mine.metrics[tag]:8.3f}")
print(f"{'error':<16}{mine.metrics['nll_error/test']:8.3f}")

# %% [markdown]
# Its pictures show every pair of columns: data and samples should look alike.

# %%
picture = mine.folder / "figures" / "marginals-final.png"
plt.figure(figsize=(9, 9))
plt.imshow(matplotlib.image.imread(picture))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Scores
#
# `flowrun score` writes log q of every row. Rows that the model finds unlikely are candidates for errors
# in the data. We plant ten: each takes its columns from three different rows, so that every column alone
# looks normal.

# %%
planted = np.stack([chance.choice(column, 10) for column in table.T], axis=1)
mixed = np.concatenate([table, planted])
labels = np.concatenate([np.zeros(ROWS), np.ones(10)])
np.savetxt(
    HERE / "mixed.csv", np.column_stack([mixed, labels]), delimiter=",",
    header="height,width,weight,planted", comments="", fmt="%.6f",
)  # fmt: skip
command = [sys.executable, "-m", "flowtrain.cli.flowrun", "score", "mine", "mixed.csv"]
options = ["--columns", "height,width,weight", "--label", "planted", "-o", "scores.csv"]
plain = {**os.environ, "FORCE_COLOR": ""}  # which a notebook sets: a bar for a terminal
done = subprocess.run(
    [*command, *options], cwd=HERE, env=plain, check=True, capture_output=True, text=True
)
print(done.stderr)

# %% [markdown]
# AUROC is the chance that a planted row has a lower log q than another one: 0.5 is guessing, 1 is
# perfect.
#
# ## Samples
#
# New rows, as many as you like:

# %%
print(mine.flow.sample(5, torch.Generator().manual_seed(0)))

# %% [markdown]
# In a terminal: `flowrun sample mine -n 5 -o -`, or `-o samples.csv`. And log q of rows, from Python:

# %%
flow = flowtrain.load(mine.folder)  # as in a later session
print(flow.log_prob(torch.from_numpy(table[:3])).tolist())
