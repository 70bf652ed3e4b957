"""One class per mistake a user can make; each says how to mend it. Rendered by `cli.main`."""

from typing import ClassVar

from reference.errors import UserError


class RecipeError(UserError):
    """A recipe cannot be read: the message starts with `file:line:column`."""


class StoreError(UserError):
    """The store cannot be read or written: no space, no permission, a file in its place."""


class CheckpointMissingError(UserError):
    """The recipe's checkpoint is not there; the hint says what would fetch or make it."""


class FetchError(UserError):
    """A download failed, or what came is not what it should be."""


class HubError(UserError):
    """What a push to a hub needs is missing or cannot be: a token, a name."""


class PushError(UserError):
    """A push failed: the hub refused, the network broke, or what arrived is not the bundle."""

    exit_code: ClassVar[int] = 1


class ToolError(UserError):
    """A library that this work needs is not installed."""


class ChangedError(UserError):
    """A source or the code changed while a stage read it."""


class OutputError(UserError):
    """A result cannot be written where it was asked for."""


class BundleError(UserError):
    """A bundle is missing, damaged or cannot do what was asked of it."""


class VerificationError(UserError):
    """A check of a bundle, a store or a checkpoint found something wrong."""

    exit_code: ClassVar[int] = 1


class ClusterError(UserError):
    """The scheduler or a worker cannot be used: not there, too small, of another version."""


class RecipesError(UserError):
    """Some of several recipes failed; each was told by itself.

    Args:
        message: which ones.
        exit_code: the gravest of theirs.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # of the class elsewhere


class GateError(UserError):
    """A measurement is past its threshold; nothing was published."""

    exit_code: ClassVar[int] = 1


class StageError(UserError):
    """A stage ended in an error that is ours, not the user's; the message holds its log's tail."""

    exit_code: ClassVar[int] = 3


class EstimateError(UserError):
    """What a build will take cannot be told: its recorded rates are damaged."""


class TooLargeError(UserError):
    """A build needs more memory or disk than this machine has."""
