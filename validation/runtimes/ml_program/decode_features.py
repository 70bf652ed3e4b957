"""The package's description of inputs, outputs and states (`FeatureTypes.proto`, `Model.proto`)."""

from validation.runtimes.ml_program.errors import PackageError, UnsupportedOp
from validation.runtimes.ml_program.features import (
    EnumeratedShapes,
    Feature,
    FixedShape,
    ImageFormat,
    ShapeRanges,
    ShapeRule,
)
from validation.runtimes.ml_program.types import DType
from validation.runtimes.ml_program.wire import BYTES, Field, fields, packed_varints

# ArrayFeatureType.ArrayDataType.
_ARRAY_DTYPES = {
    65552: DType.FP16,
    65568: DType.FP32,
    65600: DType.FP64,
    131080: DType.INT8,
    131104: DType.INT32,
}
_OTHER_KINDS = {1: "int64", 2: "double", 3: "string", 6: "dictionary", 7: "sequence"}


def feature(data: memoryview) -> Feature:
    """A `FeatureDescription`.

    Raises:
        PackageError: it is malformed.
        UnsupportedOp: it is no array, image or state, as with classifiers.
    """
    name, kind = "", memoryview(b"")
    for field in fields(data):
        if field.number == 1:
            name = field.text()
        elif field.number == 3:
            kind = field.message()
    found: Feature | None = None
    optional = False
    for field in fields(kind):
        if field.number == 1000:
            optional = field.flag()
        elif field.number == 4:
            found = _image(name, field.message())
        elif field.number == 5:
            found = _array(name, field.message())
        elif field.number == 8:
            found = _state(name, field.message())
        elif field.number in _OTHER_KINDS:
            raise UnsupportedOp(
                f"feature '{name}' is of kind {_OTHER_KINDS[field.number]}",
                hint="only arrays, images and states are supported; classifiers are not",
            )
    if found is None:
        raise PackageError(f"feature '{name}' has no type")
    return Feature(
        name=found.name,
        dtype=found.dtype,
        shape=found.shape,
        image=found.image,
        optional=optional,
        default=found.default,
    )


def _state(name: str, data: memoryview) -> Feature:
    for field in fields(data):
        if field.number == 1:
            return _array(name, field.message())
    raise PackageError(f"state '{name}' is not an array")


def _array(name: str, data: memoryview) -> Feature:
    shape: list[int] = []
    dtype, default = 0, 0.0
    flexible: ShapeRule | None = None
    for field in fields(data):
        if field.number == 1:
            shape += _integers(field)
        elif field.number == 2:
            dtype = field.unsigned()
        elif field.number == 21:
            shapes = tuple(_shape(item) for item in fields(field.message()))
            flexible = EnumeratedShapes(shapes=_default_first(shapes, tuple(shape)))
        elif field.number == 31:
            bounds = tuple(_bounds(item.message()) for item in fields(field.message()))
            flexible = ShapeRanges(shape=tuple(shape), bounds=bounds)
        elif field.number == 41:
            default = float(field.signed())
        elif field.number in (51, 61):
            default = field.float32() if field.number == 51 else field.float64()
    if dtype not in _ARRAY_DTYPES:
        raise PackageError(f"feature '{name}' has array type {dtype}, which is none of Core ML's")
    rule = flexible or (FixedShape(shape=tuple(shape)) if shape else None)
    return Feature(name=name, dtype=_ARRAY_DTYPES[dtype], shape=rule, default=default)


def _image(name: str, data: memoryview) -> Feature:
    width = height = color = 0
    sizes: tuple[tuple[int, int], ...] = ()
    ranges: dict[int, tuple[int, int | None]] = {}
    for field in fields(data):
        if field.number == 1:
            width = field.signed()
        elif field.number == 2:
            height = field.signed()
        elif field.number == 3:
            color = field.unsigned()
        elif field.number == 21:
            sizes = tuple(_image_size(item.message()) for item in fields(field.message()))
        elif field.number == 31:
            ranges = {item.number: _bounds(item.message()) for item in fields(field.message())}
    image = _color(name, color)
    default = (1, image.channels, height, width)
    rule: ShapeRule = FixedShape(shape=default)
    if sizes:
        shapes = tuple((1, image.channels, rows, columns) for columns, rows in sizes)
        rule = EnumeratedShapes(shapes=_default_first(shapes, default))
    elif ranges:
        anything = (1, None)
        fixed = ((1, 1), (image.channels, image.channels))
        rule = ShapeRanges(
            shape=default, bounds=(*fixed, ranges.get(2, anything), ranges.get(1, anything))
        )
    return Feature(name=name, dtype=DType.FP32, shape=rule, image=image)


def _color(name: str, color: int) -> ImageFormat:
    match color:
        case 10:
            return ImageFormat(color="GRAYSCALE")
        case 20:
            return ImageFormat(color="RGB")
        case 30:
            return ImageFormat(color="BGR")
        case 40:
            return ImageFormat(color="GRAYSCALE_FLOAT16")
    raise PackageError(f"image '{name}' has color space {color}, which is none of Core ML's")


def _image_size(data: memoryview) -> tuple[int, int]:
    sizes = {field.number: field.unsigned() for field in fields(data)}
    return sizes.get(1, 0), sizes.get(2, 0)


def _shape(field: Field) -> tuple[int, ...]:
    return tuple(size for item in fields(field.message()) for size in _integers(item))


def _bounds(data: memoryview) -> tuple[int, int | None]:
    sizes = {field.number: field.signed() for field in fields(data)}
    high = sizes.get(2, 0)
    return sizes.get(1, 0), None if high < 0 else high


def _integers(field: Field) -> list[int]:
    return packed_varints(field.message()) if field.wire == BYTES else [field.signed()]


def _default_first(
    shapes: tuple[tuple[int, ...], ...], default: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    if default not in shapes:
        return shapes
    return (default, *(shape for shape in shapes if shape != default))
