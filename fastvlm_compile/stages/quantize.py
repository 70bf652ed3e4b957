"""Stages `calibration` and `quantize.*`: inputs that guide quantization, and its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.choice import Method
from fastvlm_compile.quantize.presets import Rule
from fastvlm_compile.quantize.roles import Role
from fastvlm_compile.quantize.scheme import Affine, Palette
from reference.kept import NOTHING_KEPT, Kept


@dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """A `presets.Rule` in plain values: one of `affine` and `palette` is given."""

    role: Role
    method: Method
    affine: Affine | None = None
    palette: Palette | None = None

    def __post_init__(self) -> None:
        assert (self.affine is None) != (self.palette is None), "one scheme a rule"

    def rule(self) -> Rule:
        """The rule."""
        scheme = self.palette if self.affine is None else self.affine
        assert scheme is not None
        return Rule(role=self.role, scheme=scheme, method=self.method)


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What is done to the tensors of each role; a role without a rule is left alone."""

    rules: tuple[RuleConfig, ...]


def config_of(rules: tuple[Rule, ...]) -> QuantizeConfig:
    """The config of rules."""
    return QuantizeConfig(
        rules=tuple(
            RuleConfig(
                role=rule.role,
                method=rule.method,
                affine=rule.scheme if isinstance(rule.scheme, Affine) else None,
                palette=rule.scheme if isinstance(rule.scheme, Palette) else None,
            )
            for rule in rules
        )
    )


def calibration(
    config: CalibrationPlan, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write calibration inputs (see `fastvlm_compile.quantize.calibration`).

    Args:
        config: what to keep.
        inputs: `checkpoint`, the stage whose `processor/` holds the tokenizer.
        out: an empty directory.
        progress: told of every case.
    """
    from fastvlm_compile.quantize.calibration import write_calibration
    from reference.prompt import load_tokenizer

    write_calibration(config, load_tokenizer(inputs["checkpoint"] / "processor"), out, progress)


def quantize(
    config: QuantizeConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Write quantized weights (see `fastvlm_compile.quantize.weights_file`).

    Args:
        config: what is done to which tensors.
        inputs: `weights`, a checkpoint in any layout, and `calibration`, which may be left out if
            no rule uses inputs (`fastvlm_compile.quantize.choice.uses_inputs`).
        out: an empty directory.
        progress: told of every tensor, and of images and layers in between.
        kept: the tensors that were quantized before a kill.
    """
    from fastvlm_compile.quantize.calibration import open_calibration
    from fastvlm_compile.quantize.presets import resolve
    from fastvlm_compile.quantize.run import quantize_checkpoint
    from reference.checkpoint.tensors import open_checkpoint

    checkpoint = open_checkpoint(inputs["weights"])
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    choices = resolve(tuple(rule.rule() for rule in config.rules), shapes)
    folder = inputs.get("calibration")
    opened = None if folder is None else open_calibration(folder)
    quantize_checkpoint(checkpoint, choices, opened, out, progress, kept=kept)
