"""A scheme as JSON: its kind and its fields."""

from dataclasses import asdict

from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized

_KINDS: dict[str, type[Affine] | type[Palette]] = {"affine": Affine, "palette": Palette}


def scheme_to_json(scheme: Quantized) -> dict[str, object]:
    """`{"kind": ..., ...}`."""
    kind = next(name for name, each in _KINDS.items() if isinstance(scheme, each))
    return {"kind": kind, **asdict(scheme)}


def scheme_from_json(raw: object) -> Quantized:
    """The reverse.

    Raises:
        KeyError, TypeError, SchemeError: it is not the JSON of a scheme.
    """
    if not isinstance(raw, dict):
        raise TypeError("a scheme is no table")
    fields = {name: value for name, value in raw.items() if name != "kind"}
    return _KINDS[raw["kind"]](**fields)
