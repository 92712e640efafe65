"""Many runs side by side: their summaries, a table, a figure of their curves."""
