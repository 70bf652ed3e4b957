"""Held-out accuracy: `python -m reference.tiny.evaluate CHECKPOINT [--questions 500] [--blank]`.

The answers come from the reference by the path every user takes; see `answering.py`.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reference.errors import UserError
from reference.fastvlm import FastVLM
from reference.loading import load
from reference.prompt import ImagePosition, PromptTokenizer, load_tokenizer
from reference.scenes.questions import DESCRIPTION_KIND, EXACT_KINDS
from reference.scenes.scene import Scene, held_out
from reference.tiny.answering import Asked, answer_all


@dataclass(frozen=True, kw_only=True)
class KindScore:
    """Exact matches of one kind of question; `chance` is that of its best constant answer."""

    questions: int
    right: int
    accuracy: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy over the exact kinds together and kind by kind; descriptions stand apart."""

    overall: KindScore
    kinds: dict[str, KindScore]
    descriptions: KindScore | None
    blank: bool
    image_position: ImagePosition


def held_out_questions(count: int, *, descriptions: int = 0) -> list[Asked]:
    """The first `count` exact questions of the held-out scenes, then `descriptions` free ones.

    Kinds take turns, so that each has an equal share; scenes without a number lack one.
    """
    asked: list[Asked] = []
    wanted = {kind: -(-count // len(EXACT_KINDS)) for kind in EXACT_KINDS}
    wanted[DESCRIPTION_KIND] = descriptions
    for scene in _held_out_scenes():
        for question in scene.questions:
            if wanted[question.kind] > 0:
                wanted[question.kind] -= 1
                asked.append(Asked(scene=scene, question=question))
        if not any(wanted.values()):
            break
    exact = [item for item in asked if item.question.kind != DESCRIPTION_KIND]
    free = [item for item in asked if item.question.kind == DESCRIPTION_KIND]
    return exact[:count] + free


def _held_out_scenes() -> Iterator[Scene]:
    index = 0
    while True:
        yield held_out(index)
        index += 1


def evaluate(
    model: FastVLM,
    tokenizer: PromptTokenizer,
    asked: Sequence[Asked],
    *,
    blank: bool = False,
    image_position: ImagePosition = "before",
) -> Evaluation:
    """Ask everything and count exact matches.

    Args:
        model: in evaluation mode.
        tokenizer: of the same checkpoint.
        asked: see `held_out_questions`.
        blank: show a black image in place of every scene: what is left is guessing.
        image_position: image before the text (Apple's `predict.py`) or after it (Apple's app).
    """
    answers = answer_all(model, tokenizer, asked, blank=blank, image_position=image_position)
    verdicts: dict[str, list[bool]] = defaultdict(list)
    truths: dict[str, Counter[str]] = defaultdict(Counter)
    for item, answer in zip(asked, answers, strict=True):
        verdicts[item.question.kind].append(answer == item.question.answer)
        truths[item.question.kind][item.question.answer] += 1
    scores: dict[str, KindScore] = {
        kind: _score(verdicts[kind], best_constant=max(truths[kind].values()))
        for kind in (*EXACT_KINDS, DESCRIPTION_KIND)
        if kind in verdicts
    }
    descriptions = scores.pop(DESCRIPTION_KIND, None)
    overall = _score(
        [right for kind in scores for right in verdicts[kind]],
        best_constant=sum(max(truths[kind].values()) for kind in scores),
    )
    return Evaluation(
        overall=overall,
        kinds=scores,
        descriptions=descriptions,
        blank=blank,
        image_position=image_position,
    )


def _score(verdicts: Sequence[bool], *, best_constant: int) -> KindScore:
    count = len(verdicts)
    right = sum(verdicts)
    return KindScore(
        questions=count,
        right=right,
        accuracy=right / max(count, 1),
        chance=best_constant / max(count, 1),
    )


def format_table(evaluation: Evaluation) -> str:
    """Lines of a table for reading: kind, questions, accuracy, chance."""
    rows = [("all exact", evaluation.overall), *evaluation.kinds.items()]
    if evaluation.descriptions is not None:
        rows.append(("(description)", evaluation.descriptions))
    lines = [f"{'kind':<14}{'questions':>10}{'right':>8}{'accuracy':>10}{'chance':>9}"]
    lines += [
        f"{name:<14}{score.questions:>10}{score.right:>8}{score.accuracy:>10.1%}{score.chance:>9.1%}"
        for name, score in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(
        description="Exact-match accuracy of a tiny checkpoint on held-out scenes."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--questions", type=int, default=500, help="exact questions (default 500)")
    parser.add_argument("--descriptions", type=int, default=50, help="free ones (default 50)")
    parser.add_argument("--blank", action="store_true", help="show a black image instead")
    parser.add_argument("--image-position", choices=("before", "after"), default="before")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        evaluation = evaluate(
            load(arguments.checkpoint),
            load_tokenizer(arguments.checkpoint),
            held_out_questions(arguments.questions, descriptions=arguments.descriptions),
            blank=arguments.blank,
            image_position=arguments.image_position,
        )
    except UserError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return error.exit_code
    if arguments.json:
        sys.stdout.write(f"{json.dumps(asdict(evaluation), indent=2)}\n")
    else:
        sys.stdout.write(f"{format_table(evaluation)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
