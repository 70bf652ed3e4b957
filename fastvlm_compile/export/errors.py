"""What can go wrong in an export, and whose mistake it is."""

from reference.errors import UserError


class ExportError(Exception):
    """What was exported is not what it should be; nothing of it may be used. Ours to mend."""


class UnsupportedExportError(UserError):
    """The recipe asks for a form that cannot be exported."""


class ExportStoppedError(UserError):
    """A process of an export was ended from outside, most often for want of memory."""
