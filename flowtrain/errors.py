"""The errors a user may meet. Each says in one message what was wrong and what to try."""


class UserError(Exception):
    """A mistake that a user can mend: shown as its message alone, without a traceback."""


class ConfigError(UserError):
    """A config with an unknown key, a wrong type, or a value out of range."""


class CheckpointError(UserError):
    """A file or folder that holds no usable checkpoint."""


class TrainingError(UserError):
    """A training that cannot go on; the last good checkpoint is kept."""
