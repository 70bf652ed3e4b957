"""What can be wrong with a package, with what it asks for, or with what it is given."""

from reference.errors import UserError


class PackageError(UserError):
    """A `.mlpackage` is missing, damaged or contradicts itself."""


class UnsupportedOp(UserError):  # noqa: N818 - reads as the sentence it stands for
    """A program asks for an op, dtype, attribute or opset that this executor does not implement."""


class InputError(UserError):
    """An input or state given to a program is not what the package declares."""


class ExecutionError(UserError):
    """An op could not be run on the values it got, or gave another shape than its declaration."""
