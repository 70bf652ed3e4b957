"""A runtime whose pieces must fit together before they are put together."""

from reference.decoding import Session
from reference.errors import UserError
from validation.model_shape import ModelShape
from validation.runtimes.base import Floats, Ids, Runtime


class ContractError(UserError):
    """A runtime returned another shape than the model's."""


class CheckedRuntime:
    """Passes everything on to `runtime`, and checks the shapes that come back.

    Raises:
        ContractError: from `encode_image`, `embed` and `logits`, for a wrong shape.
    """

    def __init__(self, runtime: Runtime, shape: ModelShape) -> None:
        self._runtime = runtime
        self._shape = shape

    @property
    def executor(self) -> str:
        """As the inner runtime."""
        return self._runtime.executor

    @property
    def executed_by_core_ml(self) -> bool:
        """As the inner runtime."""
        return self._runtime.executed_by_core_ml

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included."""
        features = self._runtime.encode_image(pixel_values)
        expected = (len(pixel_values), self._shape.num_image_tokens, self._shape.hidden_size)
        return _checked("image features", features, (expected,))

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        embeds = self._runtime.embed(input_ids)
        return _checked("embeddings", embeds, ((*input_ids.shape, self._shape.hidden_size),))

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V] or [B, 1, V]."""
        batch_size, length = inputs_embeds.shape[:2]
        shapes = tuple((batch_size, rows, self._shape.vocab_size) for rows in (length, 1))
        return _checked("logits", self._runtime.logits(inputs_embeds), shapes)

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        return self._runtime.session(inputs_embeds)


def _checked(what: str, array: Floats, allowed: tuple[tuple[int, ...], ...]) -> Floats:
    if array.shape not in allowed:
        expected = " or ".join(str(list(shape)) for shape in allowed)
        raise ContractError(f"{what}: expected shape {expected}, found {list(array.shape)}")
    return array
