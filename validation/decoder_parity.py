"""A decoder graph with a cache against the golden logits, by every route."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from reference.errors import UserError
from validation.decoder_routes import Rows, cached, padded, prefill
from validation.goldens import GoldenCase
from validation.runtimes.onnx_decoder import OnnxDecoder
from validation.tally import Tally
from validation.tensor_parity import Comparison, Where, add_logits


@dataclass(frozen=True, kw_only=True)
class DecoderContract:
    """What a decoder graph promises.

    Attributes:
        logits: of the last position alone, or of all positions.
        left_padding: whether sequences of different lengths may be given at once.
    """

    logits: Literal["last", "full"]
    left_padding: bool


def measure_decoder(
    comparison: Comparison, contract: DecoderContract, decoder: OnnxDecoder, tally: Tally
) -> None:
    """Golden embeddings of prompt and answer -> logits after every kept position.

    Args:
        comparison: the goldens.
        contract: what to expect.
        decoder: the graph.
        tally: of the component `decoder`.
    """
    goldens = comparison.goldens
    for case in goldens.index.cases:
        comparison.steps.begin(f"decoder, {case.id}")
        embeds = goldens.inputs_embeds(case)
        for route, run in (("one pass", prefill), ("cached", cached)):
            where = Where(case=case.id, route=route)
            try:
                rows, problems = run(decoder, embeds)
            except UserError as error:
                tally.structure((error.message,), case=str(where))
                continue
            if route == "one pass":
                problems = (*problems, *_row_problems(contract, rows, len(embeds)))
            if tally.structure(problems, case=str(where)):
                compare_rows(comparison, tally, where, case=case, rows=rows)
    if contract.left_padding:
        for first, second in list(pairwise(goldens.index.cases))[::2]:
            _measure_padded(comparison, decoder, tally, (first, second))


def _measure_padded(
    comparison: Comparison,
    decoder: OnnxDecoder,
    tally: Tally,
    cases: tuple[GoldenCase, GoldenCase],
) -> None:
    try:
        both = padded(decoder, [comparison.goldens.inputs_embeds(case) for case in cases])
    except UserError as error:
        names = " + ".join(case.id for case in cases)
        tally.structure((error.message,), case=f"{names} (padded batch)")
        return
    for case, rows in zip(cases, both, strict=True):
        where = Where(case=case.id, route="padded batch")
        compare_rows(comparison, tally, where, case=case, rows=rows)


def _row_problems(contract: DecoderContract, rows: Rows, length: int) -> tuple[str, ...]:
    expected = length if contract.logits == "full" else 1
    if len(rows.logits) == expected:
        return ()
    return (f"logits: expected {expected} rows for {length} positions, found {len(rows.logits)}",)


def compare_rows(
    comparison: Comparison, tally: Tally, where: Where, *, case: GoldenCase, rows: Rows
) -> None:
    """Compares the positions that both the goldens and `rows` have.

    Args:
        comparison: the goldens.
        tally: of the component `decoder`.
        where: names the case and the route.
        case: whose embeddings were run.
        rows: what came back.
    """
    first = max(case.first_logit, rows.first)
    last = rows.first + len(rows.logits)
    reference = comparison.goldens.logits(case)
    add_logits(
        tally,
        reference[first - case.first_logit : last - case.first_logit],
        rows.logits[first - rows.first :],
        where=where,
        tolerance=comparison.tolerance,
        vocab_limit=comparison.goldens.contract.vocab_limit,
    )
