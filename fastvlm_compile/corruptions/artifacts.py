"""What the quantized artifacts of one target must be able to do to be damaged and judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fastvlm_compile.corruptions.fault import Fault
from fastvlm_compile.corruptions.stored import Draft
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.quantize.tensor import Floats
from reference.errors import UserError
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.tensor_parity import Tolerance

Target = Literal["onnx", "coreml", "mlx"]

TOLERANCE = Tolerance(rtol=1e-2, atol=1e-3)
"""Only for the smallest passing tolerances, which nobody asks for here."""


class CorruptionInputError(UserError):
    """There is nothing that could be damaged."""


class NotTheSameError(ExportError):
    """What a file holds is not what was quantized."""


@dataclass(frozen=True, kw_only=True)
class References:
    """What a runtime's outputs are compared with.

    Attributes:
        goldens: what the float32 reference returned.
        dequantized: what it returned with the same quantized weights.
    """

    goldens: Goldens
    dequantized: Goldens


class Artifacts(Protocol):
    """The files of one variant of one target, in a folder."""

    @property
    def target(self) -> Target:
        """Of the build."""
        ...

    @property
    def folder(self) -> Path:
        """Intact."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Those that hold quantized tensors, by their names in the folder."""
        ...

    def draft(self, file: str) -> Draft:
        """An intact file, to be damaged and written elsewhere."""
        ...

    def faults(self, file: str) -> Iterable[Fault]:
        """Faults of this target's files beside those of arrays."""
        ...

    def check(self, folder: Path, file: str) -> None:
        """The first judge: decode a file of `folder` and compare it bit for bit.

        Raises:
            ExportError: it is not what was quantized.
            UserError: it cannot be read.
        """
        ...

    def decoded(self, folder: Path, file: str) -> Mapping[str, Floats]:
        """What the quantized tensors of a file decode to, by label."""
        ...

    def components(self, file: str, label: str) -> tuple[str, ...]:
        """What a tensor of a file has a part in, as the build's parity stage calls it."""
        ...

    def measure(
        self, folder: Path, components: Sequence[str], references: References
    ) -> Iterable[Measurement]:
        """Run components and compare them with both references.

        Raises:
            UserError: the runtime refuses the files.
        """
        ...
