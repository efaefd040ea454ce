"""The exceptions of the project: what the user can act on, and an image that cannot be read."""


class LmrError(Exception):
    """The user can act on it. The message is one line: what, where, what was received, what to do.

    A list is further arguments, one a line, so that no value from data can begin a line.
    """

    @property
    def lines(self) -> list[str]:
        """The message and what is listed below it."""
        return [str(line) for line in self.args]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class WordsError(LmrError):
    """Words of a job that contradict each other, or of which one needs another: on the command line a usage error."""


class DamageError(LmrError):
    """A file of lmr's own that is proven to be of no use: changed, cut short, missing, or not of what it lies with.

    Only of such a one may be said that it can be replaced: not of one that the system does not let be read, that is of
    another version, or of somebody else.
    """


class NoMemoryError(LmrError):
    """Too little memory for what was computed at once; less at once may do."""


class UnreachableError(LmrError):
    """A server that is asked does not answer; the same may succeed once it does."""


class UnreadableError(Exception):
    """One image cannot be read; the message is the reason. Work on the other images goes on."""


class RefusedError(UnreadableError):
    """An image that no decoder is asked about: it is over a limit, or plainly something else."""
