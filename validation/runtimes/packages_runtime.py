"""A runtime over the Core ML form of a model, whatever executes the packages."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from reference.decoding import Session
from reference.kept import NOTHING_KEPT, Kept
from validation.runtimes.base import Floats, Ids
from validation.runtimes.chunked_decoder import ChunkedDecoder, ChunkProgram
from validation.runtimes.chunked_session import ChunkedSession
from validation.runtimes.core_ml_paths import CoreMLPaths
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES
from validation.runtimes.embedding_table import EmbeddingTable
from validation.runtimes.foreseen import ForeseenLogits, ForeseenSession
from validation.runtimes.language_layout import read_layout
from validation.runtimes.sized_program import PlainProgram

IMAGE_EMBEDS = "image_embeds"

S = TypeVar("S")


class Opener(Protocol[S]):
    """What executes packages."""

    def plain(self, package: Path) -> PlainProgram:
        """Opens a package without state: all sizes that it has functions for."""
        ...

    def chunk(self, package: Path) -> ChunkProgram[S]:
        """Opens a package with `prefill` and `decode`."""
        ...


class PackagesRuntime(Generic[S]):
    """Vision tower, projector, embedding and decoder; each is opened when it is first needed.

    Args:
        paths: the parts.
        opener: what executes them.

    Raises:
        PackagesMissingError: a part is missing.
        LanguageLayoutError: `language.json` is damaged.
    """

    def __init__(self, paths: CoreMLPaths, opener: Opener[S]) -> None:
        paths.check()
        self._paths = paths
        self._opener = opener
        self.layout = read_layout(paths.language)
        self._foreseen = ForeseenLogits()

    @cached_property
    def vision(self) -> PlainProgram:
        """`images` [1, 3, S, S] -> `image_features` [1, T, C], S any size of the package."""
        return self._opener.plain(self._paths.vision)

    @cached_property
    def projector(self) -> PlainProgram:
        """`image_features` [1, T, C] -> `image_embeds` [1, T, H]."""
        return self._opener.plain(self._paths.projector)

    @cached_property
    def table(self) -> EmbeddingTable:
        """Rows by token."""
        return EmbeddingTable(self._paths.embedding)

    @cached_property
    def decoder(self) -> ChunkedDecoder[S]:
        """The packages that `language.json` names."""
        folder = self._paths.language
        programs = [self._opener.chunk(folder / chunk.package) for chunk in self.layout.chunks]
        return ChunkedDecoder(self.layout, programs)

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[1, 3, S, S] in 0..1 -> [1, T, C], before the projector."""
        return _floats(self.vision({IMAGES: pixel_values})[IMAGE_FEATURES])

    def project(self, features: Floats) -> Floats:
        """[1, T, C] -> [1, T, H]."""
        return _floats(self.projector({IMAGE_FEATURES: features})[IMAGE_EMBEDS])

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included; one image at a time."""
        return np.concatenate(
            [self.project(self.vision_features(image[None])) for image in pixel_values]
        )

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return self.table.look_up(input_ids)

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, 1, V], after the last position."""
        return np.stack([self.logits_after([rows]) for rows in inputs_embeds])

    def logits_after(self, pieces: Sequence[Floats]) -> Floats:
        """Rows taken in piece by piece, [L, H] each -> [pieces, V], after each piece's last row."""
        foreseen = self._foreseen.after(pieces)
        return self.decoder.append_all([pieces])[0] if foreseen is None else foreseen

    def foresee(self, sequences: Sequence[Sequence[Floats]], *, kept: Kept = NOTHING_KEPT) -> None:
        """Run sequences package by package; `logits_after` and `session` then know of them.

        Args:
            sequences: each as `logits_after` takes it. One of a prompt and single rows is what a
                session takes that is asked for the tokens of these rows.
            kept: what came out of each package.

        Raises:
            ContextFullError: a sequence does not fit the context; then nothing is run.
        """
        all_logits = self.decoder.append_all(sequences, kept=kept)
        for pieces, logits in zip(sequences, all_logits, strict=True):
            self._foreseen.add(pieces, logits)

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        foreseen = self._foreseen.beginning(inputs_embeds[0])
        if foreseen is None:
            return self._session(inputs_embeds)
        return ForeseenSession(foreseen, self.table.look_up, lambda: self._session(inputs_embeds))

    def _session(self, inputs_embeds: Floats) -> ChunkedSession[S]:
        return ChunkedSession(self.decoder, self.table.look_up, inputs_embeds[0])


def _floats(array: np.ndarray) -> Floats:
    return array.astype(np.float32, copy=False)
