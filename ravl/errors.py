"""Errors a user can act on. Each message says what was expected, what was found and what to do."""


class RavlError(Exception):
    """Base of every error that is shown to a user as one sentence, never as a traceback.

    `exit_code` is what the command line returns: 2 for bad input, 1 for a failure of the run itself.
    """

    exit_code = 2


class ConfigError(RavlError):
    """An option, a run name or a decision that cannot be used."""


class DataError(RavlError):
    """An image set that cannot be read or audited."""


class ModelError(RavlError):
    """A model that cannot be loaded, or cannot do what was asked of it."""


class RunError(RavlError):
    """A run folder that cannot be written or read: disk full, read-only, written by a newer version."""

    exit_code = 1
