"""Training a flow into a run folder: the loop, its state, schedule, objectives and report."""
