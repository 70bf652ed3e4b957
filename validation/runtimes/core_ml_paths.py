"""Where the Core ML form of a model lies: the tower, the projector, the embedding, the decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reference.errors import UserError

VISION = "fastvithd.mlpackage"
PROJECTOR = "projector.mlpackage"
EMBEDDING = "embedding.safetensors"
LANGUAGE = "language.json"


class PackagesMissingError(UserError):
    """A part of the Core ML form is not where it should be."""


@dataclass(frozen=True, kw_only=True)
class CoreMLPaths:
    """The four parts; `language` is the folder of `language.json` and the decoder's packages."""

    vision: Path
    projector: Path
    embedding: Path
    language: Path

    def check(self) -> None:
        """Refuse at once what can only fail later.

        Raises:
            PackagesMissingError: a part is missing.
        """
        for path in (self.vision, self.projector, self.embedding, self.language / LANGUAGE):
            if not path.exists():
                raise PackagesMissingError(
                    f"{path}: there is no such part of the model",
                    hint="give the folder of a bundle that was built with the whole coreml target",
                )


def packages_in_folder(folder: Path) -> CoreMLPaths:
    """All parts side by side, as in a bundle's `coreml/`."""
    return CoreMLPaths(
        vision=folder / VISION,
        projector=folder / PROJECTOR,
        embedding=folder / EMBEDDING,
        language=folder,
    )


def packages_in_stages(inputs: Mapping[str, Path]) -> CoreMLPaths:
    """The parts in four directories: `vision`, `projector`, `embedding` and `decoder`."""
    return CoreMLPaths(
        vision=inputs["vision"] / VISION,
        projector=inputs["projector"] / PROJECTOR,
        embedding=inputs["embedding"] / EMBEDDING,
        language=inputs["decoder"],
    )
