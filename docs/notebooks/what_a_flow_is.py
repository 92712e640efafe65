# %% [markdown]
# # What a flow is
#
# This notebook builds the ideas of normalizing flows one by one, with the pieces of this package.
# Every formula is checked by a second computation that knows nothing of the first. All
# log-probabilities are in nats: natural logarithms.

# %%
import math

import matplotlib.pyplot as plt
import torch

from flowtrain.config.solver import Adaptive
from flowtrain.densities import Moons
from flowtrain.flows import Flow, Standardize, Transform
from flowtrain.flows.cnf import Divergence
from flowtrain.flows.continuous import ffjord
from flowtrain.flows.coupling import Coupling, realnvp
from flowtrain.flows.elementwise import Affine
from flowtrain.flows.fields import ConcatSquash
from flowtrain.training.flow_matching import FlowMatching

STEPS = 1_000  # of the optimizer, for each of the two models that are trained below
torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## 1. Change of variables
#
# A flow begins with a density that we know: the standard normal. We call it the **base** and its
# points z. An invertible map carries z to x, the **data**. Where the map stretches space, the density
# gets thinner; where it squeezes, denser. The factor is the determinant of the Jacobian:
#
# `log q(x) = log N(z) + log |det ∂z/∂x|`, with z the point that is carried to x.
#
# A map in this package is a `Transform`: both directions, and for each the logarithm of that
# determinant. Here is one, x = sinh(z), whose derivative is cosh(z):


# %%
class Sinh(Transform):
    """x = sinh z in every coordinate: it pulls the tails out."""

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.sinh(z), torch.cosh(z).log().sum(-1)

    def inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.asinh(x)
        return z, -torch.cosh(z).log().sum(-1)


line = Flow([Sinh()], Standardize(mean=torch.zeros(1), std=torch.ones(1)))

# %% [markdown]
# Samples of the base, carried to x, make a histogram. The formula makes a curve. They agree.

# %%
samples = line.sample(200_000, torch.Generator().manual_seed(0))
grid = torch.linspace(-6, 6, 401)[:, None]
plt.figure(figsize=(6, 3))
plt.hist(
    samples[:, 0].numpy(), bins=120, range=(-6, 6), density=True, label="samples", color="lightgray"
)
plt.plot(
    grid[:, 0].numpy(), line.log_prob(grid).exp().numpy(), label="the formula", color="crimson"
)
plt.legend()
plt.title("x = sinh z")
plt.show()

# %% [markdown]
# A density must integrate to 1. Its integral over the line, by a sum over a fine grid:

# %%
wide = torch.linspace(-60, 60, 20_001, dtype=torch.float64)[:, None]
double = Flow([Sinh()], Standardize(mean=torch.zeros(1), std=torch.ones(1))).double()
mass = torch.trapezoid(double.log_prob(wide).exp(), wide[:, 0]).item()
print(f"mass: {mass:.6f}")
assert abs(mass - 1) < 1e-4

# %% [markdown]
# ## 2. Coupling layers: a determinant for nothing
#
# In d dimensions a determinant costs d³ operations, for every point. A **coupling layer** avoids it.
# The first half of the coordinates stays as it is. The second half is scaled and shifted, by numbers
# that a small network computes from the first half:
#
# `x_a = z_a`, `x_b = z_b · exp(s(z_a)) + t(z_a)`.
#
# It is inverted without inverting the network, and its Jacobian is triangular: the determinant is the
# product of the diagonal, its logarithm the sum of s.

# %%
coupling = Coupling(4, elementwise=Affine(2.0), hidden=16, depth=2, activation="tanh").double()
for weight in coupling.parameters():  # it starts as the identity: give it something to do
    torch.nn.init.normal_(weight, std=0.5)
z = torch.randn(5, 4, dtype=torch.float64)
x, log_det = coupling(z)
print("the first half stays:", torch.equal(x[:, :2], z[:, :2]))
print("there and back:", (coupling.inverse(x)[0] - z).abs().max().item())

# %% [markdown]
# Is the log-determinant right? Autograd computes the full Jacobian of each point, and `slogdet` its
# determinant: a computation that shares nothing with the layer's own.


# %%
def log_det_by_autograd(function, points):
    """Return log |det| of a function's Jacobian at each of the points."""
    jacobian = torch.autograd.functional.jacobian
    jacobians = torch.stack([jacobian(function, point) for point in points])
    return torch.linalg.slogdet(jacobians).logabsdet


by_autograd = log_det_by_autograd(lambda point: coupling(point[None])[0][0], z)
print("by the layer:   ", log_det.detach().tolist())
print("by autograd:    ", by_autograd.tolist())
assert torch.allclose(log_det, by_autograd, atol=1e-10)

# %% [markdown]
# One coupling moves only half of the coordinates. So couplings are stacked, with the coordinates
# permuted between them, and the log-determinants add up. That stack is **RealNVP**.
#
# ## 3. Learning: maximum likelihood
#
# The data are two half moons. Their density is known exactly here, which is rare, and useful: we shall
# see how far the model is from the truth. `Standardize` gives the data zero mean and unit variance for
# the couplings; it is one more map with a determinant.

# %%
moons = Moons(noise=0.1, scale=2.0, shift=[-1.0, -0.2])
data = moons.sample(100_000, torch.Generator().manual_seed(1)).float()
standardize = Standardize(data.mean(0), data.std(0))
model = realnvp(
    standardize,
    log_scale_bound=3.0,
    mixing="alternate",
    couplings=12,
    hidden=48,
    depth=2,
    activation="silu",
    generator=torch.Generator().manual_seed(2),
)

# %% [markdown]
# Training makes the data likely: it minimises the mean of −log q(x), the **negative log-likelihood**
# (NLL). No model can have a lower expected NLL than the **entropy** of the data.

# %%
batches = torch.Generator().manual_seed(3)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
losses = []
for _ in range(STEPS):
    batch = data[torch.randint(len(data), (512,), generator=batches)]
    loss = -model.log_prob(batch).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    losses.append(loss.item())

plt.figure(figsize=(6, 3))
plt.plot(losses, label="NLL of the batch")
plt.axhline(moons.entropy, color="black", linestyle="--", label="entropy of the data")
plt.ylim(moons.entropy - 0.3, moons.entropy + 1.5)
plt.xlabel("step")
plt.ylabel("nats")
plt.legend()
plt.show()

# %% [markdown]
# ## 4. Sampling
#
# To sample, draw z from the base and carry it forward: one pass through the couplings.

# %%
drawn = model.sample(20_000, torch.Generator().manual_seed(4))
with torch.no_grad():
    nodes, _ = moons.quadrature(200)
    density = model.log_prob(nodes.float()).exp().reshape(200, 200)
(left, bottom), (right, top) = (corner.tolist() for corner in moons.window)
extent = (left, right, bottom, top)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharex=True, sharey=True)
for axis, title, points in ((axes[0], "data", data[:20_000]), (axes[2], "samples", drawn)):
    axis.hist2d(*points.T.numpy(), bins=200, range=[(left, right), (bottom, top)], cmap="magma")
    axis.set_title(title)
axes[1].imshow(density.T.numpy(), origin="lower", extent=extent, cmap="magma", aspect="auto")
axes[1].set_title("density of the model")
plt.show()

# %% [markdown]
# ## 5. KL: the distance to the truth
#
# **KL(data | model)** is the mean of log p(x) − log q(x) over the data. It is the NLL minus the
# entropy: what the model loses for each point, because it is not the truth. It is never negative, and
# zero only for the truth.
#
# We compute it twice. By **quadrature**: a sum over a fine grid, without chance. And by **samples**: a
# mean over points, with a standard error.

# %%
with torch.no_grad():
    nodes, weights = moons.quadrature(300)
    log_p, log_q = moons.log_prob(nodes), model.log_prob(nodes.float()).double()
    kl = (weights * log_p.exp() * (log_p - log_q))[log_p.exp() > 0].sum().item()
    mass = (weights * log_q.exp()).sum().item()

    test = moons.sample(50_000, torch.Generator().manual_seed(5))
    gap = moons.log_prob(test) - model.log_prob(test.float()).double()
print(f"KL by quadrature: {kl:.4f} nats, mass of the model on the grid: {mass:.4f}")
print(f"KL by samples:    {gap.mean():.4f} ± {gap.std() / math.sqrt(len(gap)):.4f} nats")
assert kl > 0

# %% [markdown]
# A Gaussian with the same mean and covariance has a KL of 0.9 nats here. `flowtrain` computes the same
# figures at the end of every run.
#
# ## 6. Continuous flows
#
# Now let time run from 0 to 1 and let every point move with a **velocity** f(z, t), which a network
# computes: dz/dt = f(z, t). At t = 0 the points are of the base, at t = 1 of the data. To go back, time
# runs backwards: any smooth f gives an invertible map.
#
# The log-density of a moving point changes by the **divergence** of f, the trace of its Jacobian
# (arXiv 1806.07366): d log q / dt = −tr(∂f/∂z). Couplings had to be built so that their determinant is
# cheap. Here the network is free, and there is a trace to integrate instead.

# %%
continuous = ffjord(
    standardize,
    field=ConcatSquash,
    width=64,
    depth=3,
    activation="silu",
    divergence="exact",
    probes=None,
    noise=None,
    solver=Adaptive(name="dopri5", rtol=1e-5, atol=1e-5),
    generator=torch.Generator(),
)

# %% [markdown]
# We train it by **flow matching** (arXiv 2210.02747): draw a point z of the base, a point x of the data
# and a time t; the velocity at the point between them should be x − z, on average. It is a regression,
# and solves no ODE.

# %%
objective = FlowMatching(coupling="independent", path="linear", times="stratified")
optimizer = torch.optim.Adam(continuous.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * STEPS)
for _ in range(2 * STEPS):
    batch = data[torch.randint(len(data), (512,), generator=batches)]
    loss, _ = objective(continuous, batch, batches)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

paths = continuous.trajectory(
    1_000, torch.linspace(0, 1, 41), torch.Generator().manual_seed(6)
)  # (times, points, 2)
plt.figure(figsize=(6, 4))
plt.scatter(*paths[0].T.numpy(), s=2, color="steelblue", label="t = 0, base")
plt.scatter(*paths[-1].T.numpy(), s=2, color="crimson", label="t = 1, data")
plt.plot(*paths[:, :40].permute(2, 0, 1).numpy(), color="black", linewidth=0.7)
plt.legend(loc="upper right", markerscale=4)
plt.show()

# %% [markdown]
# Is its likelihood right? The whole solve is a map from z to x. Autograd goes through the solver's
# steps and gives the Jacobian of that map. Its log-determinant must be the integral of the trace.

# %%
fine = continuous.double().with_solver(Adaptive(name="dopri5", rtol=1e-9, atol=1e-9))
z = torch.randn(3, 2, dtype=torch.float64)
_, by_trace = fine(z)
by_autograd = log_det_by_autograd(lambda point: fine(point[None])[0][0], z)
print("the integral of the trace:", by_trace.detach().tolist())
print("autograd and slogdet:     ", by_autograd.tolist())
assert torch.allclose(by_trace, by_autograd, atol=1e-5)

# %% [markdown]
# ## 7. The trace by estimate
#
# The exact trace costs d products of the Jacobian with a vector. In many dimensions **FFJORD** (arXiv
# 1810.01367) takes one product: for a random vector v of signs, the mean of v · (J v) is the trace
# (Hutchinson's estimate). It is right on average, and scatters less with more vectors.

# %%
points = torch.randn(1, 2, dtype=torch.float64).expand(20_000, 2)
field, t = fine.cnf.field, torch.tensor(0.7, dtype=torch.float64)


def trace(divergence, generator=None):
    """Return the trace of the field's Jacobian at every point, exactly or by estimate."""
    probes = divergence.draw(points, generator)
    with torch.no_grad():
        _, tangents = field(t, points, probes)
    return (probes * tangents).sum((0, 2))


exact = trace(Divergence())[0].item()
print(f"exact: {exact:.4f}")
for count in (1, 4, 16):
    estimates = trace(Divergence(probes=count), torch.Generator().manual_seed(7))
    error = (estimates.std() / math.sqrt(len(estimates))).item()
    print(
        f"{count:2} vectors: mean {estimates.mean():.4f} ± {error:.4f}, "
        f"scatter of one estimate {estimates.std():.4f}"
    )
    assert abs(estimates.mean().item() - exact) < 5 * error + 1e-9

# %% [markdown]
# The figures that `flowtrain` reports use the exact trace up to 64 dimensions; the estimate serves
# training.
#
# ## 8. The same from the command line
#
# ```
# flowtrain model=realnvp data=moons
# flowtrain model=ffjord data=moons objective=flow_matching
# ```
#
# What is new there: validation and test points, the best weights kept, pictures, and every figure with
# its error. The next notebook sets the two against each other.
