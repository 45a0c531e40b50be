"""The one error that says: the input or the configuration must be mended, retrying will not help."""


class InputError(ValueError):
    """Data or configuration that no retry will make right; the message says what, where and the mend."""
