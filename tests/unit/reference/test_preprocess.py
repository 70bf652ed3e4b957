"""Preprocessing equals the CLIP image processor of `transformers` bit for bit."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reference.errors import ImageError
from reference.preprocess import load_image, preprocess

SIZE = 96
BLACK = (0, 0, 0)
EXIF_ORIENTATION = 0x0112


def photograph(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)())


def noise(width: int, height: int, channels: int, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def clip_processor(size: int, *, mean: float = 0.0, std: float = 1.0) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[mean] * 3,
        image_std=[std] * 3,
    )


def clip_pixels(image: Image.Image, size: int) -> np.ndarray:
    """What `transformers` makes of an image, float32 [3, S, S]."""
    return clip_processor(size)(image, return_tensors="np")["pixel_values"][0]


def squared(image: Image.Image) -> Image.Image:
    """LLaVA's `pad`, written out as array arithmetic."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    side = max(width, height)
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return Image.fromarray(canvas)


def assert_equals_clip(image: Image.Image, size: int = SIZE) -> None:
    rgb = image.convert("RGB")
    for fit, expected in (("crop", rgb), ("pad", squared(rgb))):
        ours = preprocess(image, size=size, fit=fit)
        assert ours.dtype == np.float32
        assert ours.shape == (3, size, size)
        np.testing.assert_array_equal(ours, clip_pixels(expected, size), strict=True)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket", "retina"])
def test_a_photograph_gives_exactly_the_pixels_of_the_clip_image_processor(name: str) -> None:
    assert_equals_clip(photograph(name))


@pytest.mark.parametrize(
    ("width", "height"),
    [(97, 64), (64, 97), (333, 77), (77, 333), (1, 1), (1, 9), (9, 1), (95, 96), (97, 97), (5, 4)],
)
@pytest.mark.parametrize("size", [64, 97])
def test_any_odd_size_gives_exactly_the_pixels_of_the_clip_image_processor(
    width: int, height: int, size: int
) -> None:
    assert_equals_clip(Image.fromarray(noise(width, height, 3)), size)


def test_a_wrong_rescaling_would_be_noticed_by_the_exact_comparison() -> None:
    image = photograph("chelsea")
    ours = preprocess(image, size=SIZE, fit="crop")
    wrong = (np.round(ours * 255).astype(np.uint8) / np.float32(256)).astype(np.float32)
    assert not np.array_equal(wrong, clip_pixels(image, SIZE))
    assert not np.array_equal(preprocess(image, size=SIZE, fit="pad"), clip_pixels(image, SIZE))


def save_rgba(path: Path) -> None:
    Image.fromarray(noise(61, 47, 4)).save(path)


def save_la(path: Path) -> None:
    Image.fromarray(noise(61, 47, 4)).convert("LA").save(path)


def save_grey(path: Path) -> None:
    photograph("camera").resize((301, 203)).save(path)


def save_palette(path: Path) -> None:
    photograph("coffee").resize((123, 77)).quantize(37).save(path)


def save_palette_transparent(path: Path) -> None:
    photograph("coffee").resize((123, 77)).quantize(37).save(path, transparency=3)


def save_one_bit(path: Path) -> None:
    photograph("camera").resize((301, 203)).convert("1").save(path)


def save_sixteen_bit(path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 2**16, (47, 61), dtype=np.uint16)
    Image.fromarray(pixels).save(path)


def save_cmyk(path: Path) -> None:
    photograph("coffee").resize((123, 77)).convert("CMYK").save(path, format="JPEG")


FILES = [
    save_rgba,
    save_la,
    save_grey,
    save_palette,
    save_palette_transparent,
    save_one_bit,
    save_sixteen_bit,
    save_cmyk,
]


@pytest.mark.parametrize("save", FILES, ids=lambda f: f.__name__)
def test_a_file_of_any_mode_is_read_as_transformers_reads_it(save: Any, tmp_path: Path) -> None:
    from transformers.image_utils import load_image as load_with_transformers

    path = tmp_path / "image.png"
    save(path)
    ours, theirs = load_image(path), load_with_transformers(str(path))
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    np.testing.assert_array_equal(
        preprocess(ours, size=SIZE, fit="crop"), clip_pixels(theirs, SIZE), strict=True
    )


@pytest.mark.parametrize("save", FILES, ids=lambda f: f.__name__)
def test_an_image_of_any_mode_is_fitted_as_the_clip_image_processor_fits_it(
    save: Any, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    save(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(
            preprocess(image, size=SIZE, fit="crop"), clip_pixels(image, SIZE), strict=True
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied_as_transformers_applies_it(
    orientation: int, tmp_path: Path
) -> None:
    from transformers.image_utils import load_image as load_with_transformers

    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    photograph("coffee").resize((123, 77)).save(path, exif=exif)
    ours, theirs = load_image(path), load_with_transformers(str(path))
    assert ours.size == ((77, 123) if orientation >= 5 else (123, 77))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    if orientation > 1:
        with Image.open(path) as unrotated:
            stored = np.asarray(unrotated)
        assert stored.shape != np.asarray(ours).shape or not np.array_equal(stored, ours)


def test_pad_keeps_what_crop_loses() -> None:
    image = Image.new("RGB", (300, 100), BLACK)
    image.paste((255, 0, 0), (0, 0, 20, 100))
    assert preprocess(image, size=SIZE, fit="pad")[0].max() > 0.9
    assert preprocess(image, size=SIZE, fit="crop")[0].max() == 0


def test_the_odd_row_of_padding_comes_after_the_image() -> None:
    pixels = preprocess(Image.new("RGB", (8, 5), (255, 255, 255)), size=8, fit="pad")
    filled = np.flatnonzero(pixels[0, :, 0])
    np.testing.assert_array_equal(filled, [1, 2, 3, 4, 5])


def test_a_missing_image_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.png does not exist"):
        load_image(tmp_path / "absent.png")


def test_a_directory_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a directory"):
        load_image(tmp_path)


def test_an_empty_file_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(ImageError, match=r"empty\.png is empty"):
        load_image(path)


def test_a_text_file_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("this is text")
    with pytest.raises(ImageError, match=r"notes\.png is not an image"):
        load_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_image_error_and_never_half_an_image(
    suffix: str, share: float, tmp_path: Path
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise(64, 64, 3)).save(whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        load_image(cut)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_random_damage_gives_an_image_or_an_image_error_and_nothing_else(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(noise(24, 24, 3)).save(path)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    generator = np.random.default_rng(5)
    for _ in range(60):
        damaged = content.copy()
        spots = generator.integers(0, min(len(damaged), 200), 6)
        damaged[spots] = generator.integers(0, 256, 6)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(ImageError):
            assert load_image(path).mode == "RGB"


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.bmp"
    # A BMP header that promises 100000 x 100000 pixels, and nothing behind it.
    header = bytearray(bmp_bytes())
    header[18:26] = (100_000).to_bytes(4, "little") * 2
    path.write_bytes(header)
    with pytest.raises(ImageError, match=r"bomb\.bmp has more than 178956970 pixels"):
        load_image(path)


def bmp_bytes() -> bytes:
    from io import BytesIO

    stream = BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format="BMP")
    return stream.getvalue()


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_thread_thin_image_is_refused_instead_of_filling_the_memory(fit: Any) -> None:
    with pytest.raises(ImageError, match="too long and thin"):
        preprocess(Image.new("RGB", (300_000, 1)), size=1024, fit=fit)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        preprocess(Image.new("RGB", (0, 5)), size=SIZE, fit="pad")


def test_an_unknown_fit_is_an_error_that_lists_the_known_ones() -> None:
    unknown: Any = "stretch"
    with pytest.raises(ValueError, match="known: pad, crop"):
        preprocess(Image.new("RGB", (4, 4)), size=SIZE, fit=unknown)
