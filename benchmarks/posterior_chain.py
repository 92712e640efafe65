"""The posterior that flows on `data=logistic_regression` are held to, by a long run of NUTS.

    pip install numpyro scikit-learn
    python benchmarks/posterior_chain.py

writes benchmarks/posterior_chain.json: mean and standard deviation of each weight, the means' Monte
Carlo errors, and what says that the chains have mixed. The model is written a second time, in
numpyro's words: it shares nothing with flowtrain's but the table.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_breast_cancer

CHAINS, WARMUP, DRAWS = 4, 1_000, 5_000
SUMMARY = Path(__file__).with_suffix(".json")


def model(x: np.ndarray, y: np.ndarray) -> None:
    """y ~ Bernoulli(logistic(x w)), every weight standard normal beforehand."""
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def main() -> None:
    """Run the chains and write their summary."""
    numpyro.enable_x64()
    x, y = load_breast_cancer(return_X_y=True)
    x = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(len(x))])
    chains = MCMC(
        NUTS(model, dense_mass=True), num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS,
        chain_method="sequential", progress_bar=sys.stderr.isatty(),
    )  # fmt: skip
    chains.run(jax.random.PRNGKey(0), x, y)
    draws = np.asarray(chains.get_samples(group_by_chain=True)["weights"])
    effective = effective_sample_size(draws)
    deviation = draws.std((0, 1))
    summary = {
        "command": "python benchmarks/posterior_chain.py",
        "sampler": f"numpyro {numpyro.__version__}, NUTS with a dense mass matrix",
        "chains": CHAINS, "warmup": WARMUP, "draws": DRAWS, "seed": 0,
        "largest_r_hat": float(gelman_rubin(draws).max()),
        "least_effective_draws": float(effective.min()),
        "divergences": int(chains.get_extra_fields()["diverging"].sum()),
        "mean": draws.mean((0, 1)).tolist(),
        "mean_error": (deviation / np.sqrt(effective)).tolist(),
        "std": deviation.tolist(),
    }  # fmt: skip
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
