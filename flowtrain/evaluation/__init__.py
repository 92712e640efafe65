"""How good one flow is: metrics, checks of their plausibility, distances, baselines, figures."""
