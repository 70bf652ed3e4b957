"""What is told of a mixed policy is what the search wrote."""

import json
import math
from pathlib import Path

import pytest

from fastvlm_compile.plan_quantize import policy_of
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.mixed import MixedPolicy
from fastvlm_compile.quantize.policy_file import POLICY, write_policy
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.sensitivity import Candidate, Sensitivity
from fastvlm_compile.report.policies import Stored, policy_summaries, read_summary
from fastvlm_compile.verdict import Artifact
from reference.errors import UserError
from validation.quantized_variants import QuantizedVariant

SMALL = Affine(bits=4, block_size=128, symmetric=True)
LARGE = Affine(bits=8, block_size=64, symmetric=True)
MIXED = QuantizedVariant(target="mlx", variant="mixed", quantization="mixed-mlx")


def _write(folder: Path) -> None:
    losses = {"a": (0.5, 0.01), "b": (0.02, 0.001), "c": (0.03, 0.002)}
    chosen = {"a": LARGE, "b": SMALL, "c": SMALL}
    write_policy(
        folder,
        MixedPolicy(
            choices={n: Choice(scheme=s, method="search") for n, s in chosen.items()},
            sensitivities={
                name: Sensitivity(
                    shape=(8, 128),
                    candidates=tuple(
                        Candidate(scheme=scheme, kl_mean=loss)
                        for scheme, loss in zip((SMALL, LARGE), pair, strict=True)
                    ),
                )
                for name, pair in losses.items()
            },
            bits_per_weight=5.5,
            predicted_kl=0.06,
            measured_kl=0.07,
        ),
    )


def test_choices_are_counted_and_their_losses_summed(tmp_path: Path) -> None:
    _write(tmp_path)
    summary = read_summary(tmp_path, MIXED)
    assert (summary.target, summary.quantization) == ("mlx", "mixed-mlx")
    assert (summary.bits_per_weight, summary.predicted_kl, summary.measured_kl) == (5.5, 0.06, 0.07)
    assert summary.stored == (
        Stored(
            scheme="int4 block 128 symmetric",
            num_tensors=2,
            predicted_kl=pytest.approx(0.05),
            uniform_kl=pytest.approx(0.55),
        ),
        Stored(
            scheme="int8 block 64 symmetric",
            num_tensors=1,
            predicted_kl=pytest.approx(0.01),
            uniform_kl=pytest.approx(0.013),
        ),
    )
    assert summary.predicted_kl == pytest.approx(sum(s.predicted_kl for s in summary.stored))


def test_a_way_that_not_every_tensor_tried_has_no_uniform_loss(tmp_path: Path) -> None:
    _write(tmp_path)
    content = json.loads((tmp_path / POLICY).read_text())
    del content["tensors"]["a"]["candidates"][0]
    (tmp_path / POLICY).write_text(json.dumps(content))
    stored = {each.scheme: each.uniform_kl for each in read_summary(tmp_path, MIXED).stored}
    assert math.isnan(stored["int4 block 128 symmetric"])
    assert not math.isnan(stored["int8 block 64 symmetric"])


def test_only_mixed_variants_have_a_policy(tmp_path: Path) -> None:
    _write(tmp_path)
    int4 = QuantizedVariant(target="mlx", variant="int4", quantization="int4-mlx")
    artifacts = {policy_of("mlx"): Artifact(folder=tmp_path, digest="")}
    found = policy_summaries((int4, MIXED), artifacts)
    assert [each.quantization for each in found] == ["mixed-mlx"]


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"tensors": {}}', None, '{"bits_per_weight": "x", "tensors": {}}']
)
def test_a_damaged_policy_is_told(tmp_path: Path, damage: str | None) -> None:
    if damage is not None:
        (tmp_path / POLICY).write_text(damage)
    with pytest.raises(UserError, match="not a policy") as caught:
        read_summary(tmp_path, MIXED)
    assert caught.value.hint == "build again: the stage makes it anew"
