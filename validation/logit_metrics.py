"""Distances between next-token distributions, and between generated token sequences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LogitMetrics:
    """Over the positions of one case.

    Attributes:
        kl_mean: mean over positions of KL(reference || candidate), nats.
        kl_max: the largest of them, nats.
        top1_agreement: share of positions whose top token is the same.
        top5_agreement: mean share of the reference's five top tokens among the candidate's five.
        num_positions: how many positions were compared.
    """

    kl_mean: float
    kl_max: float
    top1_agreement: float
    top5_agreement: float
    num_positions: int

    def items(self) -> tuple[tuple[str, float], ...]:
        """(metric name, value) in the order of reports."""
        return (
            ("kl_mean", self.kl_mean),
            ("kl_max", self.kl_max),
            ("top1_agreement", self.top1_agreement),
            ("top5_agreement", self.top5_agreement),
        )


def logit_metrics(
    reference: np.ndarray, candidate: np.ndarray, *, vocab_limit: int
) -> LogitMetrics:
    """Compares logits [..., V] over the tokenizer's vocabulary only.

    Rows of the embedding beyond the tokenizer are padding with arbitrary values: a checkpoint
    converted between layouts may differ there without any meaning.

    Args:
        reference: [..., V].
        candidate: [..., V].
        vocab_limit: number of token ids that the tokenizer knows, 1..V.

    Raises:
        ValueError: the shapes differ or `vocab_limit` is out of range.
    """
    if reference.shape != candidate.shape or reference.size == 0:
        raise ValueError(f"cannot compare logits {reference.shape} and {candidate.shape}")
    vocab_size = reference.shape[-1]
    if not 1 <= vocab_limit <= vocab_size:
        raise ValueError(f"vocab_limit {vocab_limit} is not in 1..{vocab_size}")
    r = reference.reshape(-1, vocab_size)[:, :vocab_limit].astype(np.float64)
    c = candidate.reshape(-1, vocab_size)[:, :vocab_limit].astype(np.float64)
    kl = kl_divergence(r, c)
    usable = np.isfinite(r).all(axis=1) & np.isfinite(c).all(axis=1)  # argmax would pick the NaN
    top1 = usable & (np.argmax(r, axis=1) == np.argmax(c, axis=1))
    return LogitMetrics(
        kl_mean=float(np.mean(kl)),
        kl_max=float(np.max(kl)),
        top1_agreement=float(np.mean(top1)),
        top5_agreement=float(np.mean(_top_overlap(r, c, count=5) * usable)),
        num_positions=int(r.shape[0]),
    )


def kl_divergence(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """KL(reference || candidate) of each row of logits [N, V] in nats, float64 [N]; NaN for NaN."""
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    kl: np.ndarray = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
    return np.where(kl < 0, 0.0, kl)  # rounding may leave -1e-17


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shifted = wide - np.max(wide, axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return result


def _top_overlap(r: np.ndarray, c: np.ndarray, *, count: int) -> np.ndarray:
    count = min(count, r.shape[1])
    top_r, top_c = _top(r, count), _top(c, count)
    common: np.ndarray = (top_r[:, :, None] == top_c[:, None, :]).any(axis=2).mean(axis=1)
    return common


def _top(logits: np.ndarray, count: int) -> np.ndarray:
    """Ids [N, count] of the largest logits; equal ones rank by id, as in greedy decoding."""
    left = logits.copy()
    rows = np.arange(len(left))
    found = []
    for _ in range(count):  # a sort of 150,000 logits to find five costs far more
        found.append(np.argmax(left, axis=1))
        left[rows, found[-1]] = -np.inf
    return np.stack(found, axis=1)


def first_difference(reference: Sequence[int], candidate: Sequence[int]) -> int:
    """Index of the first differing token, -1 for equal sequences.

    A sequence that ends early differs where it ends.
    """
    for index, (expected, found) in enumerate(zip(reference, candidate, strict=False)):
        if expected != found:
            return index
    if len(reference) != len(candidate):
        return min(len(reference), len(candidate))
    return -1
