"""Base distributions: the laws that a flow carries to the data."""

import math
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

LOG_TWO_PI = math.log(2.0 * math.pi)
SHIFTS = 32  # of the degrees of freedom by 2, after which the next term is below 1e-13


class Base(nn.Module, ABC):
    """A law on R^d in whitened coordinates. Its parameters are learned with the flow's.

    They start at zero, where the law is the standard normal or near it, so that weight decay draws
    it there.

    Args:
        dim: d.

    >>> class Uniform(Base):  # on [0, 1]^d
    ...     def log_prob(self, z):
    ...         inside = ((z >= 0) & (z <= 1)).all(-1)
    ...         return torch.where(inside, 0.0, -math.inf)
    ...     def sample(self, n, generator, *, dtype, device):
    ...         return torch.rand(n, self.dim, generator=generator, dtype=dtype, device=device)
    ...     def cdf(self, z):
    ...         return z.clamp(0, 1)
    >>> Uniform(2).log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
    tensor([0., -inf])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density in nats, (n, d) -> (n,), in the dtype of z."""

    @abstractmethod
    def sample(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Draw n points, (n, d), differentiable in the parameters.

        Args:
            n: how many.
            generator: of all chance; None is torch's default one.
            dtype: of the points.
            device: of the generator, and of the points.
        """

    def sample_evenly(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Draw n points, each by the law, that together cover it more evenly than chance does.

        A mean over them is as unbiased as over those of `sample`, and less noisy. A law for which
        there is no such way draws them independently.
        """
        return self.sample(n, generator, dtype=dtype, device=device)

    @abstractmethod
    def cdf(self, z: Tensor) -> Tensor:
        """Return P(Z_i <= z_i | z_1 .. z_{i-1}) of every coordinate, (n, d) -> (n, d).

        At points of the base these are independent and uniform on [0, 1] (Rosenblatt 1952). No
        gradient passes.
        """

    def described(self) -> dict[str, Any]:
        """Return the parameters by their usual names, as JSON takes them."""
        return {}


class Normal(Base):
    """The standard normal law.

    >>> Normal(2).log_prob(torch.zeros(1, 2))  # -log 2π
    tensor([-1.8379])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square().sum(-1) + self.dim * LOG_TWO_PI)

    def sample(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, dtype=dtype, device=device)

    def sample_evenly(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        # A shift around the cube makes each point uniform (Cranley and Patterson 1976).
        shift = torch.rand(self.dim, generator=generator, dtype=torch.float64, device=device)
        u = (sobol(n, self.dim).to(device) + shift) % 1
        z: Tensor = torch.special.ndtri(u.clamp_min(2.0**-54))
        return z.to(dtype)

    @torch.no_grad()
    def cdf(self, z: Tensor) -> Tensor:
        u: Tensor = torch.special.ndtr(z)
        return u


@cache
def sobol(n: int, dim: int) -> Tensor:
    """Return n points of a Sobol sequence in the unit cube, (n, dim) in float64, scrambled once.

    >>> sobol(4, 1).mul(4).floor().flatten().sort().values  # one in each quarter
    tensor([0., 1., 2., 3.], dtype=torch.float64)
    """
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0)
    points: Tensor = engine.draw(n, dtype=torch.float64)
    return points


class StudentT(Base):
    """The multivariate Student-t law, for heavy tails: it learns how heavy they are.

    No flow whose slopes are bounded makes a heavy tail of a normal one (arXiv 1907.04481, theorem
    3), and those of couplings and autoregressive layers are: the base must have it.

    Args:
        dim: d.

    >>> base = StudentT(2)
    >>> base.df.item(), base.scale.tolist()  # nothing learned yet
    (10.0, [1.0, 1.0])
    >>> base.sample(5, None, dtype=torch.float32, device=torch.device("cpu")).shape
    torch.Size([5, 2])
    """

    START = 10.0  # degrees of freedom: near the normal law, and a tail that has a gradient

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.log_df = nn.Parameter(torch.zeros(1))  # in units of START
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @property
    def df(self) -> Tensor:
        """Degrees of freedom, (1,): the density falls as |z|^-(df + d)."""
        return self.START * self.log_df.exp()

    @property
    def scale(self) -> Tensor:
        """Of the coordinates, (d,)."""
        return self.log_scale.exp()

    def log_prob(self, z: Tensor) -> Tensor:
        df, scale = self.df.to(z), self.scale.to(z)
        before = torch.arange(self.dim).to(z)  # coordinates before each: see `cdf`
        height = log_peak(df + before) + torch.log1p(before / df) / 2 - scale.log()
        squared = (z / scale).square().sum(-1)
        return height.sum() - (df + self.dim) / 2 * torch.log1p(squared / df)

    def sample(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        normal = torch.randn(n, self.dim, generator=generator, dtype=dtype, device=device)
        half = self.df.to(normal) / 2
        # What torch.distributions.Gamma draws from: it has a gradient by df, and takes a generator.
        gamma = torch._standard_gamma(half.expand(n, 1), generator=generator)
        return self.scale.to(normal) * normal * (half / gamma).sqrt()

    @torch.no_grad()
    def cdf(self, z: Tensor) -> Tensor:
        """Return P(Z_i <= z_i | z_1 .. z_{i-1}), (n, d) -> (n, d).

        That of a Student-t of df + i - 1 degrees of freedom and another scale.
        """
        from scipy.special import stdtr

        away = (z / self.scale.to(z)).detach().double().cpu()
        squares = away.square()
        df = self.df.detach().double().cpu()
        freedom = df + torch.arange(self.dim)
        spread = ((df + squares.cumsum(-1) - squares) / freedom).sqrt()
        return torch.from_numpy(stdtr(freedom.numpy(), (away / spread).numpy())).to(z)

    def described(self) -> dict[str, Any]:
        return {"df": self.df.item(), "scale": self.scale.tolist()}


def log_peak(df: Tensor) -> Tensor:
    """Return the log-density of the Student-t law on R at its centre, of any shape.

    The difference of two log Γ in it would lose all digits of float32 where df is large, and
    runtimes of exports have no log Γ. h(v) = log Γ((v + 1) / 2) - log Γ(v / 2) is
    h(v + 2) - log(1 + 1 / v), and h(v) - ½ log(v / 2) = -1 / 4 v + 1 / 24 v³ - 1 / 20 v⁵ + ...

    >>> log_peak(torch.tensor([1.0, 1e9]))  # of Cauchy's law -log π, of the normal law -½ log 2π
    tensor([-1.1447, -0.9189])
    """
    many = df + 2 * SHIFTS
    shifts = 2 * torch.arange(SHIFTS, dtype=df.dtype, device=df.device)
    down = torch.log1p(1 / (df[..., None] + shifts)).sum(-1)
    series = (-1 / 4 + (1 / 24 - 1 / 20 / many.square()) / many.square()) / many
    return series + torch.log1p(2 * SHIFTS / df) / 2 - down - LOG_TWO_PI / 2


class Mixture(Base):
    """A mixture of k Gaussians of diagonal covariance, for separate modes.

    A flow is one continuous map: from one mode it draws threads to all the others, and here it
    need not. Components start around the origin, so that together they are nearly a standard
    normal law, at places drawn by the generator.

    Args:
        dim: d.
        components: k.
        generator: of the places at the start.

    >>> base = Mixture(2, components=3, generator=torch.Generator().manual_seed(0))
    >>> base.weights.detach(), base.means.shape
    (tensor([0.3333, 0.3333, 0.3333]), torch.Size([3, 2]))
    """

    start: Tensor

    def __init__(self, dim: int, *, components: int, generator: torch.Generator) -> None:
        super().__init__(dim)
        # Of each coordinate's variance: any two means are 1.2 apart on average, whatever d is.
        between = 0.75 / dim
        places = between**0.5 * torch.randn(components, dim, generator=generator)
        self.register_buffer("start", places)
        self.narrowest = math.log(1 - between) / 2
        self.logits = nn.Parameter(torch.zeros(components))
        self.shift = nn.Parameter(torch.zeros(components, dim))
        self.log_scale = nn.Parameter(torch.zeros(components, dim))

    @property
    def weights(self) -> Tensor:
        """Of the components, (k,), positive with sum 1."""
        return self.logits.softmax(0)

    @property
    def means(self) -> Tensor:
        """Of the components, (k, d)."""
        return self.start + self.shift

    @property
    def scales(self) -> Tensor:
        """Standard deviations of the components, (k, d)."""
        return (self.narrowest + self.log_scale).exp()

    def log_prob(self, z: Tensor) -> Tensor:
        means, scales = self.means.to(z), self.scales.to(z)
        squares = ((z[:, None] - means) / scales).square().sum(-1)
        heights = self.logits.log_softmax(0).to(z) - scales.log().sum(-1)
        log_p: Tensor = torch.logsumexp(heights - squares / 2, -1)
        return log_p - self.dim * LOG_TWO_PI / 2

    def sample(
        self, n: int, generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        kind: dict[str, Any] = {"dtype": dtype, "device": device}
        which = torch.rand(n, generator=generator, **kind)
        noise = torch.randn(n, self.dim, generator=generator, **kind)
        with torch.no_grad():
            edges = self.weights.to(noise).cumsum(0)[:-1]
            component = torch.searchsorted(edges, which, right=True)
            z = self.means.to(noise)[component] + self.scales.to(noise)[component] * noise
        return self._attached(z) if torch.is_grad_enabled() else z

    @torch.no_grad()
    def cdf(self, z: Tensor) -> Tensor:
        below, log_share = [], self.logits.log_softmax(0).to(z)
        for i, column in enumerate(z.unbind(-1)):
            away, log_p = self._coordinate(i, column)
            below.append((log_share.softmax(-1) * torch.special.ndtr(away)).sum(-1))
            log_share = log_share + log_p
        return torch.stack(below, -1)

    def _attached(self, z: Tensor) -> Tensor:
        """Return samples with the gradient by the parameters that leaves their cdf what it is.

        dz_i = -du_i / p(z_i | z_1 .. z_{i-1}), one coordinate after the other (implicit
        reparameterization, arXiv 1805.08498, eq. 6).
        """
        columns, log_share = [], self.logits.log_softmax(0).to(z)
        for i, column in enumerate(z.unbind(-1)):
            away, log_p = self._coordinate(i, column)
            share = log_share.softmax(-1)
            below = (share * torch.special.ndtr(away)).sum(-1)
            p = (share * log_p.exp()).sum(-1).detach()
            columns.append(column - (below - below.detach()) / p)
            log_share = log_share + self._coordinate(i, columns[-1])[1]
        return torch.stack(columns, -1)

    def _coordinate(self, i: int, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far coordinate i is from each component, and its log-density there, (n, k)."""
        mean, scale = self.means[:, i].to(column), self.scales[:, i].to(column)
        away = (column[:, None] - mean) / scale
        return away, -0.5 * (away.square() + LOG_TWO_PI) - scale.log()

    def described(self) -> dict[str, Any]:
        return {
            "weights": self.weights.tolist(),
            "means": self.means.tolist(),
            "scales": self.scales.tolist(),
        }
