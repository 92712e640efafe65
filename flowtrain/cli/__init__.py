"""The two programs: flowtrain, the one place that knows Hydra, and flowrun, one file a command."""
