"""What a program asks for and does not get, gathered so that all of it is told at once."""

from pathlib import Path

from validation.runtimes.ml_program.errors import UnsupportedOp


class Problems:
    """Reasons why a function cannot be executed."""

    def __init__(self, package: Path, function: str) -> None:
        self._package = package
        self._function = function
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, kind: str, name: str, reason: str) -> None:
        """Note that the `kind` that defines `name` cannot be executed."""
        self._found.setdefault((kind, reason), []).append(name)

    def raise_any(self) -> None:
        """Tell all reasons, the same ones together.

        Raises:
            UnsupportedOp: there is any.
        """
        if not self._found:
            return
        lines = []
        for (kind, reason), names in self._found.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"  {kind} ({names[0] or 'no result'}{more}): {reason}")
        raise UnsupportedOp(
            f"{self._package}: function '{self._function}' cannot be executed:\n"
            + "\n".join(lines),
            hint="only Core ML itself can run this package; ops are listed in ops/table.py",
        )
