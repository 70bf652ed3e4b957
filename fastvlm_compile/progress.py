"""How a stage tells what it is at."""

from typing import Protocol


class Progress(Protocol):
    """Called by a stage now and then: `done` of `total` pieces are finished, `what` is at hand.

    Cheap enough for an inner loop over layers or images, not over tensor elements.
    """

    def __call__(self, done: int, total: int, what: str) -> None: ...


def silent(done: int, total: int, what: str) -> None:
    """A `Progress` that tells nobody, for tests and for library calls outside a build."""
    del done, total, what
