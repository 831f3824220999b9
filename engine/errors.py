"""The one error that is the caller's to mend."""


class InputError(ValueError):
    """A mistake in what the caller gave: one line that says what is wrong and how to mend it."""
