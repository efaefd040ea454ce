"""The two exceptions of the project: what the user can act on, and a picture that cannot be read."""


class LmrError(Exception):
    """The user can act on it. The message is one line: what, where, what was received, what to do."""


class UnreadableError(Exception):
    """One picture cannot be read; the message is the reason. Work on the other pictures goes on."""


class RefusedError(UnreadableError):
    """A picture that no decoder is asked about: it is over a limit, or plainly something else."""
