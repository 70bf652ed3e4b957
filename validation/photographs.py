"""Real photographs for the goldens, bundled in scikit-image: nothing is downloaded.

Only images that scikit-image's documentation calls public domain or CC0. Shapes and modes differ on
purpose: landscape, square, portrait, grey-scale.
"""

from dataclasses import dataclass

from PIL import Image

from reference.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A named photograph.

    Attributes:
        name: stable id, part of golden case ids.
        image: RGB or grey-scale.
        licence: as scikit-image documents it.
    """

    name: str
    image: Image.Image
    licence: str


@dataclass(frozen=True, kw_only=True)
class _Origin:
    function: str
    licence: str
    box: tuple[int, int, int, int] | None = None  # left, top, right, bottom


_ORIGINS = {
    "chelsea": _Origin(function="chelsea", licence="CC0, Stefan van der Walt"),
    "coffee": _Origin(function="coffee", licence="CC0, Rachel Michetti"),
    # A tall strip: what `crop` loses of it and `pad` adds to it is most of the picture.
    "rocket_tall": _Origin(
        function="rocket", licence="public domain, SpaceX", box=(230, 0, 391, 427)
    ),
    "astronaut": _Origin(function="astronaut", licence="public domain, NASA"),
    "camera": _Origin(function="camera", licence="CC0, Lav Varshney"),
    "rocket": _Origin(function="rocket", licence="public domain, SpaceX"),
    "clock": _Origin(function="clock", licence="public domain, Stefan van der Walt"),
    "hubble_wide": _Origin(
        function="hubble_deep_field", licence="public domain, NASA", box=(0, 200, 1000, 533)
    ),
    "retina": _Origin(function="retina", licence="CC0, Mikael Häggström"),
}

NUM_PHOTOGRAPHS = len(_ORIGINS)


def photographs(count: int) -> tuple[Photograph, ...]:
    """The first `count` photographs, always the same ones in the same order.

    Raises:
        UserError: more are asked for than there are, or scikit-image is not installed.
    """
    if not 0 <= count <= NUM_PHOTOGRAPHS:
        raise UserError(
            f"{count} photographs are asked for, there are {NUM_PHOTOGRAPHS}",
            hint=f"set goldens.photographs to 0..{NUM_PHOTOGRAPHS}",
        )
    return tuple(_photograph(name) for name in list(_ORIGINS)[:count])


def _photograph(name: str) -> Photograph:
    try:
        from skimage import data
    except ImportError:
        raise UserError(
            "the golden photographs come with scikit-image, which is not installed",
            hint="install scikit-image, or set goldens.photographs to 0",
        ) from None
    origin = _ORIGINS[name]
    image = Image.fromarray(getattr(data, origin.function)())
    if origin.box is not None:
        image = image.crop(origin.box)
    return Photograph(name=name, image=image, licence=origin.licence)
