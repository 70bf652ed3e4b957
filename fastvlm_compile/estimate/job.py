"""One stage with all that its estimate follows from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvlm_compile.estimate.model import ModelFacts
from fastvlm_compile.export.coreml.language.interface import first_alike
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig, chunk_bytes, split
from fastvlm_compile.quantize.presets import Target
from fastvlm_compile.quantize.roles import Role, role_of
from fastvlm_compile.quantize.scheme import Quantized, Shape
from fastvlm_compile.quantize.target_bytes import stored_bytes
from fastvlm_compile.recipe import Recipe
from fastvlm_compile.stage import Stage
from fastvlm_compile.stages.coreml import CoreMLVisionConfig
from fastvlm_compile.stages.coreml_compressed import CompressConfig
from fastvlm_compile.stages.coreml_language import (
    CoreMLDecoderConfig,
    CoreMLEmbeddingConfig,
    CoreMLProjectorConfig,
)
from fastvlm_compile.stages.mixed import ChosenConfig, PolicyConfig
from fastvlm_compile.stages.mlx import MlxConfig
from fastvlm_compile.stages.parity import CoreMLParityConfig, OnnxParityConfig
from fastvlm_compile.stages.quantize import QuantizeConfig
from reference.checkpoint.names import LM_HEAD

if TYPE_CHECKING:
    from fastvlm_compile.quantize.choice import Method

Storage = Quantized | float
"""A scheme, or bits per weight where a search chose the schemes."""

_WITH_PRECISION = (
    CoreMLVisionConfig,
    CoreMLProjectorConfig,
    CoreMLEmbeddingConfig,
    CoreMLDecoderConfig,
    CoreMLParityConfig,
)
_PREFIX = "fastvlm_compile.stages."
_SEARCHED: tuple[Role, ...] = ("embedding", "head", "language")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage of a plan.

    Attributes:
        stage: whose cost is asked for.
        stages: all of the plan, by name.
        recipe: that was planned.
        facts: of its checkpoint.
    """

    stage: Stage
    stages: Mapping[str, Stage]
    recipe: Recipe
    facts: ModelFacts

    @property
    def kind(self) -> str:
        """What rates are recorded under: the function, and what changes how it works.

        `golden:golden`, `coreml_language:decoder.float16`, `coreml_compressed:compress.decoder`.
        """
        config = self.stage.config
        names = [self.stage.function.removeprefix(_PREFIX)]
        if isinstance(config, CompressConfig):
            names.append(config.part)
        elif isinstance(config, _WITH_PRECISION):
            names.append(config.precision)
        if isinstance(config, CoreMLParityConfig) and "reference" in self.stage.inputs:
            names.append("compressed")
        if isinstance(config, QuantizeConfig) and "calibration" in self.stage.inputs:
            names.append("calibrated")
        if isinstance(config, MlxConfig) and "quantized_language" in self.stage.inputs:
            names.append("quantized")
        if isinstance(config, OnnxParityConfig) and "reference" in self.stage.inputs:
            names.append("quantized")  # its weights are packed, those of others stay mapped
        elif isinstance(config, OnnxParityConfig) and config.variant == "fp16":
            names.append("float16")  # the CPU multiplies in float32 alone, and widens
        return ".".join(names)

    def storage(self) -> dict[Role, Storage]:
        """How the quantized tensors that the stage reads, or makes, are stored."""
        found: dict[Role, Storage] = {}
        makers = [self.stages[name] for name in self.stage.inputs.values() if name in self.stages]
        for stage in (self.stage, *makers):
            found |= self._made_by(stage)
        return found

    def methods(self) -> "dict[Role, Method]":
        """What chooses the codes, of a stage that quantizes."""
        if isinstance(self.stage.config, QuantizeConfig):
            return {rule.role: rule.method for rule in self.stage.config.rules}
        if not isinstance(self.stage.config, ChosenConfig):
            return {}
        palette = self._policy(self.stage).target == "coreml"
        return dict.fromkeys(_SEARCHED, "clustering" if palette else "gptq")

    def chosen(self) -> dict[str, Shape]:
        """The tensors that a stage quantizes, a shared head once."""
        roles = self.methods()
        unused = {LM_HEAD} if self.facts.tied else set()
        return {
            name: shape
            for name, shape in self.facts.shapes.items()
            if role_of(name, shape) in roles and name not in unused
        }

    @property
    def num_chunks(self) -> int:
        """Packages that the Core ML decoder is cut into."""
        return len(self._chunks())

    @property
    def chunk_bytes(self) -> int:
        """Float16 weights of the largest package of the Core ML decoder; 0 without one."""
        text = self.facts.config.text
        return max((chunk_bytes(chunk, text) for chunk in self._chunks()), default=0)

    @property
    def converted_bytes(self) -> int:
        """Float16 weights of those packages that are converted, not written from one like them."""
        config, chunks = self._decoder(), self._chunks()
        if config is None:
            return 0
        firsts = {first_alike(chunk, chunks, config) for chunk in chunks}
        return sum(chunk_bytes(chunk, self.facts.config.text) for chunk in firsts)

    def _chunks(self) -> tuple[Chunk, ...]:
        config = self._decoder()
        return () if config is None else split(config)

    def _decoder(self) -> DecoderConfig | None:
        target = self.recipe.targets.coreml
        if target is None or target.language is None:
            return None
        return DecoderConfig(
            text=self.facts.config.text,
            tied=self.facts.tied,
            context_length=self.recipe.context_length,
            prefill_chunk=target.language.prefill_chunk,
            max_chunk_mb=target.language.max_chunk_mb,
            precision="float16",
        )

    def _made_by(self, stage: Stage) -> dict[Role, Storage]:
        if isinstance(stage.config, QuantizeConfig):
            return {each.role: each.rule().scheme for each in stage.config.rules}
        if isinstance(stage.config, ChosenConfig):
            return dict.fromkeys(_SEARCHED, self._policy(stage).mixed_bits)
        return {}

    def _policy(self, stage: Stage) -> PolicyConfig:
        config = self.stages[stage.inputs["policy"]].config
        assert isinstance(config, PolicyConfig), stage.name
        return config


def encoded_bytes(
    target: Target, storage: Mapping[Role, Storage], tensors: Mapping[str, Shape], *, other: int
) -> float:
    """Bytes of tensors in a target's files.

    Args:
        target: whose widths of scales count.
        storage: of the quantized ones.
        tensors: what is stored, by canonical name.
        other: bytes of a number that is not quantized.
    """
    total = 0.0
    for name, shape in tensors.items():
        how = storage.get(role_of(name, shape))
        if how is None:
            total += other * math.prod(shape)
        elif isinstance(how, float | int):
            total += math.prod(shape) * how / 8
        else:
            total += stored_bytes(target, how, shape)
    return total
