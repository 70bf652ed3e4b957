"""The options of what measures latency, and what they ask for."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from fastvlm_compile.latency.measure import Order
    from fastvlm_compile.latency.request import RuntimeChoice, Units

_NO_CLAIM = "ml_program"

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options as they were given."""

    runtimes: "tuple[RuntimeChoice, ...]"
    variants: tuple[str, ...]
    units: "tuple[Units, ...]"
    threads: int | None
    prompt_lengths: tuple[int, ...]
    new_tokens: int
    min_seconds: float
    min_runs: int
    processes: int

    def order(self) -> "Order":
        """With the defaults of this machine.

        Raises:
            ToolError: of something whose time says nothing.
        """
        from fastvlm_compile.errors import ToolError
        from fastvlm_compile.latency.measure import Order
        from fastvlm_compile.latency.surroundings import default_threads
        from validation.latency.samples import Settings
        from validation.runtimes.coreml_runtime import COMPUTE_UNITS

        if _NO_CLAIM in self.runtimes:
            raise ToolError(
                "the ML Program executor is a checker, not a runtime: its time says nothing about "
                "Core ML's",
                hint="--runtime coreml on a Mac, or --runtime onnxruntime here",
            )
        settings = Settings(
            threads=self.threads or default_threads(),
            prompt_lengths=self.prompt_lengths,
            min_seconds=self.min_seconds,
            min_runs=self.min_runs,
        )
        return Order(
            runtimes=self.runtimes or ("onnxruntime",),
            variants=self.variants,
            units=self.units or COMPUTE_UNITS,
            settings=settings,
            num_processes=self.processes,
            num_new_tokens=self.new_tokens,
        )


def measuring(default_processes: int) -> Callable[[F], F]:
    """Adds the options of what measures; the command is called with them as `asked`."""

    def add(command: F) -> F:
        @functools.wraps(command)
        def gathered(**given: Any) -> None:
            asked = Asked(**{field.name: given.pop(field.name) for field in fields(Asked)})
            command(asked=asked, **given)

        processes = click.option(
            "--processes",
            type=click.IntRange(1),
            default=default_processes,
            show_default=True,
            help="For each variant.",
        )
        for option in (processes, *reversed(_OPTIONS)):
            gathered = option(gathered)
        return gathered  # type: ignore[return-value]  # click calls it by keywords

    return add


def _lengths(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """`64,280`."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{value!r} is no list of lengths such as 64,280", ctx, option)
    return tuple(dict.fromkeys(int(word) for word in words))


_OPTIONS = (
    click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        type=click.Choice(["onnxruntime", "torch", "torch-compiled", "mlx", "coreml", _NO_CLAIM]),
        help="What computes; repeat it for several.  [default: onnxruntime]",
    ),
    click.option("--variant", "variants", multiple=True, help="Repeat it.  [default: all]"),
    click.option(
        "--compute-units",
        "units",
        multiple=True,
        type=click.Choice(["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]),
        help="Of Core ML; repeat it.  [default: each of them]",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="For the computation.  [default: one a core]"
    ),
    click.option(
        "--prompt-lengths",
        default="64,280",
        show_default=True,
        callback=_lengths,
        help="Positions of the prefills; those beyond a bundle's context are left out.",
    ),
    click.option(
        "--new-tokens",
        type=click.IntRange(2),
        default=16,
        show_default=True,
        help="Of an answer, end to end.",
    ),
    click.option(
        "--min-seconds",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="Time each phase for so long in each process, and",
    ),
    click.option(
        "--min-runs",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        help="for so many runs.",
    ),
)
