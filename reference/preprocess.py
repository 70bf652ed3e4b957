"""Image file -> pixel values, as FastVLM was trained to see them.

Two fits exist in the wild and a bundle must say which one it expects:

- `pad`: Apple's `predict.py` (LLaVA's `image_aspect_ratio: pad`): the image is centred on a black
  square, nothing is lost, then resized.
- `crop`: Apple's app, `transformers` and transformers.js: the shortest edge is resized, the middle
  square is kept, the sides are lost.

Both then resize bicubically with Pillow and scale to 0..1 (mean 0, std 1). The arithmetic is bit
for bit that of `transformers`' Pillow CLIP image processor (`CLIPImageProcessorPil`).
"""

import struct
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from reference.errors import ImageError

Fit = Literal["pad", "crop"]

# Pillow's own limit between a large photograph and a decompression bomb (2 x MAX_IMAGE_PIXELS).
MAX_FILE_PIXELS = 178_956_970
# What one image may take while it is fitted: 2**28 pixels are 1 GiB in Pillow's memory layout.
MAX_WORKING_PIXELS = 2**28

# What Pillow's decoders raise on damaged files (found by fuzzing); they have no common base class.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    LookupError,
    RuntimeError,
    TypeError,
    ArithmeticError,
)


def load_image(path: Path) -> Image.Image:
    """Reads an image file: first frame, EXIF orientation applied, converted to RGB.

    The same as `transformers.image_utils.load_image`; like it and like Apple's `predict.py`, the
    conversion drops an alpha channel without blending it.

    Raises:
        ImageError: the file is missing, empty, not an image, damaged, or a decompression bomb.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ImageError(f"image {path} {what}", hint="give the path of an image file")
    if path.stat().st_size == 0:
        raise ImageError(f"image {path} is empty (0 bytes)", hint="give a readable image file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large photographs and odd metadata; what it can read is fine here.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                _check_file_size(path, opened.size)
                return ImageOps.exif_transpose(opened).convert("RGB")
    except Image.DecompressionBombError as error:
        raise _bomb(path) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not an image that Pillow can read",
            hint="convert it to PNG or JPEG first",
        ) from error
    except _DAMAGED as error:
        raise ImageError(
            f"image {path} cannot be read: {error}",
            hint="the file is truncated or damaged; open and save it again in an image editor",
        ) from error


def preprocess(image: Image.Image, *, size: int, fit: Fit) -> npt.NDArray[np.float32]:
    """Fits one image into a square and scales it to 0..1.

    Args:
        image: any Pillow image. One with transparency is blended onto white, as the CLIP image
            processor does (`load_image` never returns one).
        size: side S of the square that the vision tower takes, in pixels.
        fit: `pad` keeps the whole image, `crop` keeps its middle.

    Returns:
        float32 [3, S, S], RGB, values in 0..1.

    Raises:
        ImageError: the image has no pixels, or is so long and thin that fitting it would need more
            than `MAX_WORKING_PIXELS`.
        ValueError: `fit` is unknown or `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"image size must be positive, not {size}")
    if fit not in ("pad", "crop"):
        raise ValueError(f"unknown fit {fit!r}; known: pad, crop")
    if min(image.size) < 1:
        raise ImageError(
            f"the image has no pixels (width x height = {image.width} x {image.height})"
        )
    rgb = _to_rgb(image)
    square = _pad_to_square(rgb) if fit == "pad" else rgb
    cropped = _center_crop(_resize_shortest_edge(square, size), size)
    # float64 product rounded once to float32, as the CLIP image processor's rescale does.
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    pixels = np.moveaxis(np.asarray(cropped), -1, 0)
    return np.ascontiguousarray(scaled[pixels])


def _to_rgb(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _pad_to_square(image: Image.Image) -> Image.Image:
    """LLaVA's `expand2square` with a black background: centred, the odd pixel goes after."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    _check_working_size(image.size, side, side)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def _resize_shortest_edge(image: Image.Image, size: int) -> Image.Image:
    """Scales so that the shortest edge is `size`; the longest is rounded down."""
    width, height = image.size
    longest = int(size * max(width, height) / min(width, height))
    _check_working_size(image.size, size, longest)
    resized = (size, longest) if width <= height else (longest, size)
    return image.resize(resized, Image.Resampling.BICUBIC)


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _check_file_size(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"image {path} has no pixels (width x height = {width} x {height})")
    if width * height > MAX_FILE_PIXELS:
        raise _bomb(path)


def _check_working_size(size: tuple[int, int], width: int, height: int) -> None:
    if width * height > MAX_WORKING_PIXELS:
        raise ImageError(
            f"the image is too long and thin (width x height = {size[0]} x {size[1]}): fitting it "
            f"would need a canvas of {width * height} pixels, the limit is {MAX_WORKING_PIXELS}",
            hint="crop or shrink it first",
        )


def _bomb(path: Path) -> ImageError:
    return ImageError(
        f"image {path} has more than {MAX_FILE_PIXELS} pixels (a decompression bomb, or far more "
        "than the model can see)",
        hint="shrink it first",
    )
