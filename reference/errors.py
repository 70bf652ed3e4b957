"""Mistakes that a user can mend: each has its own class, names what is wrong and how to mend it."""

from typing import ClassVar


class UserError(Exception):
    """A mistake in what the user gave us, told without a traceback.

    Args:
        message: what is wrong, naming the file or value.
        hint: how to mend it; empty when the message says it all.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(UserError):
    """A checkpoint's `config.json` asks for something that FastVLM is not."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or does not hold the tensors its config promises."""


class ImageError(UserError):
    """An image cannot be read or is not usable."""


class PromptError(UserError):
    """A prompt or tokenizer cannot be used."""
