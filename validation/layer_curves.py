"""`layers.json`: how far the layers of a quantized reference are from the reference's own.

One format for what a parity stage writes (one curve) and for what a bundle ships (all of them).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference.errors import UserError
from validation.typed_json import read_json, render_json, write_json

LAYERS_FILE = "layers.json"
SCHEMA = 1

Part = Literal["vision", "decoder"]
PARTS: tuple[Part, ...] = ("vision", "decoder")


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The error behind one layer.

    Attributes:
        part: which half of the model it belongs to.
        name: "stage 1" or "output" of the tower, "layer 0" of the decoder.
        relative_l2: |candidate - reference| / |reference| of all that the layer hands on.
    """

    part: Part
    name: str
    relative_l2: float


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """One quantization on one golden case.

    Attributes:
        variant: the quantization's name.
        executor: what computed both sides.
        case: the golden case whose embeddings the decoder was given.
        image: the golden image that the tower was given; empty if there is none.
        layers: in the order in which they run. Each part begins with the reference's own input, so
            the decoder's errors do not hold the tower's.
    """

    variant: str
    executor: str
    case: str
    image: str
    layers: tuple[LayerError, ...]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """All curves of a build."""

    curves: tuple[LayerCurve, ...]


def write_layers(path: Path, report: LayerReport) -> None:
    """Writes the report; equal reports give equal bytes."""
    write_json(path, report, schema=SCHEMA)


def render_layers(report: LayerReport) -> str:
    """What `write_layers` writes."""
    return render_json(report, schema=SCHEMA)


def read_layers(path: Path) -> LayerReport:
    """Reads what `write_layers` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    return read_json(path, LayerReport, schema=SCHEMA, error=_unusable)


def _unusable(what: str) -> UserError:
    return UserError(what, hint="build again: the curves are made by the stages parity.reference.*")
