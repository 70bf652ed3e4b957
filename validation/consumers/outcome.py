"""What became of a bundle in the hands of a consumer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["agreed", "disagreed", "not_run", "not_supported"]

HOW_TO_INSTALL = "make consumers-env"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One consumer, one variant.

    Attributes:
        consumer: its name in the registry: "transformers.js", "mlx-vlm".
        version: of what ran, such as "4.2.1"; empty if nothing did.
        variant: target and variant, "onnx.fp32"; empty for all that the consumer could take.
        status: `agreed` or `disagreed` if it ran (a crash disagrees), `not_run` if it could not
            here, `not_supported` if it cannot anywhere.
        detail: what was compared and how it came out, or the reason.
    """

    consumer: str
    version: str
    variant: str
    status: Status
    detail: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the consumers are installed.

    Attributes:
        root: the folder that `make consumers-env` fills: `venv-genai`, `node`.
    """

    root: Path

    def python(self, name: str) -> Path:
        """The interpreter of a virtual environment; it may not be there."""
        return self.root / name / "bin" / "python"

    @property
    def node_modules(self) -> Path:
        """Where npm put its packages; it may not be there."""
        return self.root / "node" / "node_modules"


def not_run(consumer: str, variants: Iterable[str], reason: str) -> tuple[Outcome, ...]:
    """The same reason for every variant."""
    return tuple(
        Outcome(consumer=consumer, version="", variant=variant, status="not_run", detail=reason)
        for variant in variants
    )


def not_supported(consumer: str, variants: Iterable[str], reason: str) -> tuple[Outcome, ...]:
    """As `not_run`, for what the consumer cannot do by its nature."""
    return tuple(
        Outcome(
            consumer=consumer, version="", variant=variant, status="not_supported", detail=reason
        )
        for variant in variants
    )


def not_installed(consumer: str, variants: Iterable[str], missing: Path) -> tuple[Outcome, ...]:
    """`not_run`, because `missing` is not there; tells how to mend it.

    The folder's own name is told, not where it lies: outcomes go into bundles.
    """
    environment = next(
        (part for part in missing.parts if part == "node" or part.startswith("venv-")), missing.name
    )
    reason = f"its environment {environment} is not installed (`{HOW_TO_INSTALL}`)"
    return not_run(consumer, variants, reason)
