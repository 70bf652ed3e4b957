"""Where tensors are quantized one at a time, and read as they are from then on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.hessians import InputMoments
from fastvlm_compile.quantize.ledger import Ledger
from fastvlm_compile.quantize.methods import Need, need_of, quantize_tensor, relative_error
from fastvlm_compile.quantize.scheme import Shape
from fastvlm_compile.quantize.source import DequantizedRows
from fastvlm_compile.quantize.weights_file import QuantizedEntry
from reference.checkpoint.names import EMBED_TOKENS
from reference.config import FastVLMConfig

if TYPE_CHECKING:
    from reference.checkpoint.tensors import Checkpoint


class Bench:
    """A checkpoint on its way to a quantized one.

    Args:
        checkpoint: read one tensor at a time.
        choices: checked, by canonical name.
        observed: tensors whose inputs are seen; none without calibration.
        ledger: of the directory that is filled.
        contexts: digest of what a tensor's codes depend on, by name.
        progress: told of each tensor.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint",
        *,
        choices: Mapping[str, Choice],
        observed: frozenset[str],
        ledger: Ledger,
        contexts: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._checkpoint = checkpoint
        self._choices = choices
        self._observed = observed
        self._ledger = ledger
        self._contexts = contexts
        self._progress = progress
        for name, choice in choices.items():
            ledger.take(name, checkpoint.tensors[name].shape, choice, contexts[name])

    @property
    def config(self) -> FastVLMConfig:
        """The checkpoint's."""
        return self._checkpoint.config

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        return self._checkpoint.tied

    @property
    def names(self) -> tuple[str, ...]:
        """Of the checkpoint's tensors."""
        return tuple(self._checkpoint.tensors)

    def shape(self, name: str) -> Shape:
        """Of a tensor."""
        return self._checkpoint.tensors[name].shape

    def tell(self, what: str) -> None:
        """Tell what is at hand."""
        self._progress(len(self._ledger.entries), len(self._choices), what)

    def need(self, name: str) -> Need:
        """What must be gathered of a tensor's inputs before it is quantized; nothing if it is."""
        if name not in self._observed or name in self._ledger.entries:
            return "nothing"
        return need_of(self._choices[name])

    def pending(self) -> frozenset[str]:
        """The tensors that still wait for their inputs to be seen."""
        return frozenset(name for name in self._observed if self.need(name) != "nothing")

    def quantize(self, name: str, moments: InputMoments | None = None) -> None:
        """Quantize a tensor if that is chosen and not done yet.

        Args:
            name: canonical; a name without a choice is left alone.
            moments: of its inputs; None where they need not be known.
        """
        choice = self._choices.get(name)
        if choice is None or name in self._ledger.entries:
            return
        self.tell(name)
        weight = self._checkpoint.read(name).to(torch.float32).numpy()
        tensor = quantize_tensor(weight, choice, moments)
        entry = QuantizedEntry(
            scheme=choice.scheme,
            shape=tensor.shape,
            method=choice.method,
            relative_error=relative_error(weight, tensor),
            size_bytes=tensor.size_bytes,
        )
        self._ledger.put(name, tensor, entry, context=self._contexts[name])

    def weight(self, name: str) -> Tensor:
        """A tensor as it is now, quantized and dequantized or not; float32."""
        if name in self._ledger.entries:
            return torch.from_numpy(self._ledger.read(name).dequantize())
        return self.original(name)

    def original(self, name: str) -> Tensor:
        """A tensor as the checkpoint has it; float32, counters as they are."""
        tensor = self._checkpoint.read(name)
        return tensor.to(torch.float32) if tensor.is_floating_point() else tensor.clone()

    def embeddings(self, token_ids: Tensor) -> Tensor:
        """Rows of the embedding, float32 [n, H]; as the head it comes last, so not quantized."""
        if EMBED_TOKENS in self._ledger.entries and not self.tied:
            return DequantizedRows(self._ledger.read(EMBED_TOKENS))[token_ids]
        return self._checkpoint.read(EMBED_TOKENS)[token_ids].to(torch.float32)
