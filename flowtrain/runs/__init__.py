"""A run on disk: its folder, checkpoints and result.json, and how older ones are read."""
