"""What a package says of its inputs, outputs and states (`FeatureTypes.proto`)."""

from dataclasses import dataclass
from typing import Literal

from validation.runtimes.ml_program.types import DType


@dataclass(frozen=True, kw_only=True)
class FixedShape:
    """Exactly one shape."""

    shape: tuple[int, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        return shape == self.shape

    def __str__(self) -> str:
        return _dims(self.shape)


@dataclass(frozen=True, kw_only=True)
class EnumeratedShapes:
    """One of a few shapes; the first is the default."""

    shapes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The default shape."""
        return self.shapes[0]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        return shape in self.shapes

    def __str__(self) -> str:
        return " | ".join(_dims(shape) for shape in self.shapes)


@dataclass(frozen=True, kw_only=True)
class ShapeRanges:
    """A range per dimension; an upper bound of None is open."""

    shape: tuple[int, ...]
    bounds: tuple[tuple[int, int | None], ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        return len(shape) == len(self.bounds) and all(
            low <= size and (high is None or size <= high)
            for size, (low, high) in zip(shape, self.bounds, strict=True)
        )

    def __str__(self) -> str:
        dims = [
            str(low) if low == high else f"{low}..{'' if high is None else high}"
            for low, high in self.bounds
        ]
        return f"[{', '.join(dims)}]"


ShapeRule = FixedShape | EnumeratedShapes | ShapeRanges


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """An image input or output: pixels 0..255, planes in this order in the program."""

    color: Literal["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"]

    @property
    def channels(self) -> int:
        """Number of planes."""
        return 3 if self.color in ("RGB", "BGR") else 1


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input, output or state as the package's description declares it.

    Attributes:
        dtype: element type on the outside; FP32 for images (the program's own type decides).
        shape: which shapes are allowed; None where the description leaves it open (outputs).
        image: set for images, whose shape is [1, channels, height, width].
        optional: whether an input may be left out; `default` then fills it.
    """

    name: str
    dtype: DType
    shape: ShapeRule | None
    image: ImageFormat | None = None
    optional: bool = False
    default: float = 0.0


def describe(feature: Feature) -> str:
    """One feature in words: name, type, shapes."""
    kind = f"image {feature.image.color}" if feature.image else feature.dtype.value
    shape = "" if feature.shape is None else f" {feature.shape}"
    return f"{feature.name}: {kind}{shape}{' (optional)' if feature.optional else ''}"


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
