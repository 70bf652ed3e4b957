"""`generate`: ask a bundle about images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastvlm_compile.bundle.ask import Reply
    from fastvlm_compile.bundle.layout import RuntimeName


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An image file; repeat it for several images, leave it out to ask about text alone.",
)
@click.option("--prompt", required=True, help="The question.")
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "torch", "ml_program", "coreml", "mlx"]),
    default="onnxruntime",
    show_default=True,
    help="What computes. ml_program executes Core ML packages anywhere, coreml on a Mac.",
)
@click.option(
    "--variant", default="", help="Which form of the model.  [default: the runtime's first]"
)
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="At most so many.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Nucleus of sampling.")
@click.option("--num-beams", type=int, default=1, show_default=True, help="Above 1: beam search.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling.")
@click.option("--json", "as_json", is_flag=True, help="Answer, tokens and times as JSON.")
def generate(
    *,
    bundle: Path,
    images: tuple[Path, ...],
    prompt: str,
    runtime: "RuntimeName",
    variant: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    num_beams: int,
    seed: int,
    as_json: bool,
) -> None:
    """Answer a question about images from BUNDLE alone.

    The answer goes to stdout as it comes, its times to stderr.
    """
    from fastvlm_compile.bundle.ask import Question, ask

    question = Question(
        prompt=prompt,
        images=images,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        num_beams=num_beams,
        seed=seed,
    )
    on_text = None if as_json else _show
    reply = ask(bundle, question, runtime=runtime, variant=variant, on_text=on_text)
    if as_json:
        click.echo(json.dumps(_to_json(reply), indent=2, ensure_ascii=False))
    else:
        click.echo()
        click.echo(_summary(reply), err=True)


def _show(piece: str) -> None:
    click.echo(piece, nl=False)


def _to_json(reply: "Reply") -> dict[str, object]:
    generation = reply.generation
    return {
        "answer": reply.text,
        "token_ids": list(generation.token_ids),
        "finish_reason": generation.finish_reason,
        "prompt_positions": reply.num_prompt_positions,
        "load_time_s": reply.load_time_s,
        "time_to_first_token_s": generation.time_to_first_token_s,
        "tokens_per_second": generation.tokens_per_second,
        "executor": reply.executor,
    }


def _summary(reply: "Reply") -> str:
    generation = reply.generation
    cut = ", cut at the limit" if generation.finish_reason == "length" else ""
    return (
        f"{len(generation.token_ids)} tokens{cut}; "
        f"time to first token {generation.time_to_first_token_s:.3f} s, "
        f"then {generation.tokens_per_second:.1f} tokens/s; "
        f"loaded in {reply.load_time_s:.2f} s; {reply.executor}"
    )
