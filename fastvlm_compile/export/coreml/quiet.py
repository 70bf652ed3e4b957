"""Keeps coremltools' chatter off the terminal, and shows it when something fails."""

import contextlib
import io
import logging
import warnings
from types import TracebackType
from typing import Self

_SHOWN_CHARACTERS = 4000
"""Of the end of what was hidden, when it is shown."""


class quiet_coremltools:  # noqa: N801 - reads as the verb of a `with` statement
    """Hide progress bars, "not been tested with" and "Failed to load _MLModelProxy" lines.

    The last are harmless: off a Mac there is nothing to load. What was hidden is added to an
    exception that leaves the block. Import coremltools inside it: it talks while it is imported.
    """

    def __enter__(self) -> Self:
        self._heard = io.StringIO()
        self._logger = logging.getLogger("coremltools")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(warnings.catch_warnings())
        self._stack.enter_context(contextlib.redirect_stderr(self._heard))
        self._stack.enter_context(contextlib.redirect_stdout(self._heard))
        warnings.simplefilter("ignore")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._logger.setLevel(self._level)
        if failure is not None and self._heard.getvalue():
            tail = self._heard.getvalue()[-_SHOWN_CHARACTERS:]
            failure.add_note(f"coremltools said:\n{tail}")
