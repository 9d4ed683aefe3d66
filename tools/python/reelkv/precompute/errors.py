"""What a person can do something about."""


class PrecomputeError(Exception):
    """A sentence that says what is wrong and what to do; a program shows it without a traceback."""


class Interrupted(PrecomputeError):
    """A precomputation was stopped before it was complete. What it has stored stays, for the next run to go on from.

    Attributes:
        by_person: whether by an interrupt, and not for want of room.
    """

    def __init__(self, message: str, by_person: bool = False):
        super().__init__(message)
        self.by_person = by_person


def extra(package: str) -> PrecomputeError:
    """What to say when a package that this part needs is not there."""
    return PrecomputeError(f"{package} is not installed; run: pip install 'reelkv[precompute]'")
