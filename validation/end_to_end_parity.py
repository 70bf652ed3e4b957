"""The whole model of any runtime, from pixels to tokens, against the goldens."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from reference.decoding import GenerationSettings, Ids, Logits, Session
from reference.errors import UserError
from reference.generation import generate
from reference.prompt import PromptTokenizer
from validation.answer import splice
from validation.goldens import GoldenCase
from validation.logit_metrics import first_difference
from validation.measurement import Measurement
from validation.runtimes.base import Floats, Runtime
from validation.tally import Tally
from validation.task import ALL_QUESTIONS, accuracy, answer_questions
from validation.tensor_parity import Comparison, Where, add_logits

TASK_METRICS = ("task_accuracy", "task_greedy_agreement", "task_accuracy_drop")


class RecordingSession:
    """A session that keeps the logits it hands on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: list[Logits] = []

    def start(self) -> Logits:
        """As the inner session."""
        return self._kept(self._session.start())

    def step(self, token_ids: Ids) -> Logits:
        """As the inner session."""
        return self._kept(self._session.step(token_ids))

    def select(self, rows: Ids) -> None:
        """As the inner session."""
        self._session.select(rows)

    def _kept(self, logits: Logits) -> Logits:
        self.rows.append(logits)
        return logits


def measure_generations(
    comparison: Comparison,
    runtime: Runtime,
    tally: Tally,
    image_features: Mapping[str, Floats],
) -> None:
    """Greedy answers token for token, and the logits as long as the answers agree.

    Args:
        comparison: the goldens.
        runtime: what computes.
        tally: of the component `end_to_end`.
        image_features: what this runtime made of the golden images, [T, H] by id; an image
            missing here has failed before and is told again.
    """
    goldens = comparison.goldens
    for case in goldens.index.cases:
        comparison.steps.begin(f"answer, {case.id}")
        if not case.generated:
            continue
        if failed := [name for name in case.image_ids if name not in image_features]:
            tally.structure((f"no features of {', '.join(failed)}",), case=case.id)
            continue
        features = [image_features[name] for name in case.image_ids]
        try:
            embeds = splice(
                runtime, goldens.prompt_ids(case), np.stack(features) if features else None
            )
            session = RecordingSession(runtime.session(embeds))
            token_ids = _answer_until_it_differs(session, case, goldens.contract.greedy())
        except UserError as error:
            tally.structure((error.message,), case=case.id)
            continue
        index = first_difference(case.token_ids, token_ids)
        tally.add("first_difference", index, case=case.id)
        tally.add("greedy_agreement", float(index == -1), case=case.id)
        # Up to the first different token both models have seen the same; beyond, nothing compares.
        num_rows = len(session.rows) if index == -1 else index + 1
        _compare_logits(comparison, tally, case, session.rows[:num_rows])


class _DifferentTokenError(Exception):
    """Nothing that comes behind the first different token is compared with anything."""


def _answer_until_it_differs(
    session: Session, case: GoldenCase, settings: GenerationSettings
) -> list[int]:
    """The greedy answer to a case, at most up to the first token that the golden has not."""
    chosen: list[int] = []

    def take(token: int) -> None:
        chosen.append(token)
        if [token] != [*case.token_ids[len(chosen) - 1 : len(chosen)]]:
            raise _DifferentTokenError

    with suppress(_DifferentTokenError):
        generate(session, settings, on_token=take)
    return chosen


def _compare_logits(
    comparison: Comparison, tally: Tally, case: GoldenCase, rows: list[Logits]
) -> None:
    """Compares logits [1, V] after the prompt and after each token of the answer."""
    # A large vocabulary may have kept fewer positions than were answered.
    skip = max(0, case.first_logit - (case.prompt_length - 1))
    if not rows[skip:]:
        return
    first = case.prompt_length - 1 + skip - case.first_logit
    candidate = np.concatenate(rows[skip:])
    add_logits(
        tally,
        comparison.goldens.logits(case)[first : first + len(candidate)],
        candidate,
        where=Where(case=case.id),
        tolerance=comparison.tolerance,
        vocab_limit=comparison.goldens.contract.vocab_limit,
    )


def measure_task(
    comparison: Comparison,
    runtime: Runtime,
    tally: Tally,
    tokenizer: PromptTokenizer,
    *,
    max_questions: int = ALL_QUESTIONS,
) -> tuple[Measurement, ...]:
    """Accuracy on held-out scene questions, and what was lost against the reference.

    Args:
        comparison: goldens with or without task questions.
        runtime: what computes.
        tally: of the component `end_to_end`, which gets the numbers.
        tokenizer: turns answers into text.
        max_questions: the first so many alone are asked.

    Returns:
        Measurements that say why there are no numbers, where there are none.
    """
    goldens = comparison.goldens
    if not goldens.index.questions:
        return tally.not_run(TASK_METRICS, "the goldens hold no task questions")
    if max_questions == 0:
        return tally.not_run(TASK_METRICS, "the recipe asks this variant no task questions")
    try:
        answered = answer_questions(
            runtime, goldens, tokenizer, comparison.steps, max_questions=max_questions
        )
    except UserError as error:
        tally.structure((error.message,), case="task questions")
        return ()
    reached = accuracy([each.right for each in answered])
    of_reference = accuracy([each.reference_right for each in answered])
    num_lost = sum(each.reference_right and not each.right for each in answered)
    for number, each in enumerate(answered):
        case = f"question {number} ({each.question.scene_id}, {each.question.kind})"
        tally.add("task_accuracy", float(each.right), case=case)
        tally.add("task_greedy_agreement", float(each.as_reference), case=case)
    tally.add("task_accuracy_drop", of_reference - reached, case=f"{len(answered)} questions")
    tally.detail("task_accuracy", f"the reference reaches {of_reference:.4f}")
    tally.detail("task_accuracy_drop", f"{num_lost} right answers of the reference were lost")
    return ()
