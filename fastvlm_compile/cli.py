"""The command line: find the command, run it, turn its end into an exit code. No logic.

Exit codes: 0 done, 1 a gate or check failed, 2 recipe, usage or input error, 3 internal error,
130 interrupted. Data goes to stdout, everything else to stderr.
"""

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from reference.errors import UserError

PROGRAM = "fastvlm-compile"

# name -> (where the command is, one line for the overview). Imported when asked for, not before.
COMMANDS = {
    "build": (
        "fastvlm_compile.commands.build:build",
        "Build, check and publish a recipe's bundle.",
    ),
    "plan": ("fastvlm_compile.commands.plan:plan", "Show what a build would run and why."),
    "status": ("fastvlm_compile.commands.status:status", "Show what is built of a recipe."),
    "store": ("fastvlm_compile.commands.store:store", "List, check and clean the artifact store."),
    "checkpoint": (
        "fastvlm_compile.commands.checkpoint:checkpoint",
        "Fetch, inspect, merge, convert and synthesize checkpoints.",
    ),
    "generate": ("fastvlm_compile.commands.generate:generate", "Ask a bundle about an image."),
    "demo": ("fastvlm_compile.commands.demo:demo", "Ask a bundle in a browser."),
    "validate": (
        "fastvlm_compile.commands.validate:validate",
        "Measure a bundle again, with its own goldens.",
    ),
    "coreml": (
        "fastvlm_compile.commands.coreml:coreml",
        "Run, inspect and compare Core ML packages.",
    ),
    "corruptions": (
        "fastvlm_compile.commands.quantized_corruptions:corruptions",
        "Damage quantized artifacts and tell what notices.",
    ),
    "consumers": (
        "fastvlm_compile.commands.consumers:consumers",
        "Load a bundle with what people load it with.",
    ),
    "latency": (
        "fastvlm_compile.commands.latency:latency",
        "Time a bundle's phases, compare runs, keep a history.",
    ),
    "report": (
        "fastvlm_compile.commands.report:report",
        "Write one page that tells what a bundle is worth.",
    ),
    "verify": ("fastvlm_compile.commands.verify:verify", "Check every byte of a bundle."),
    "push": ("fastvlm_compile.commands.push:push", "Upload a bundle to a Hugging Face repository."),
    "doctor": ("fastvlm_compile.commands.doctor:doctor", "Tell what is installed and what is not."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module_name, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command), f"{module_name}:{attribute} is not a command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
def cli(*, debug: bool) -> None:
    """Compile a FastVLM checkpoint into a verified on-device bundle."""
    del debug  # read by `run`, which renders the errors


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Errors are told on stderr."""
    debug = False
    try:
        with cli.make_context(PROGRAM, list(arguments)) as context:
            debug = bool(context.params.get("debug"))
            cli.invoke(context)
    except (KeyboardInterrupt, click.Abort):
        tell("error", "interrupted")
        return 130
    except Exception as failure:  # noqa: BLE001 - the one place where any error becomes an exit code
        return tell_failure(failure, debug=debug)
    return 0


def tell_failure(failure: Exception, *, debug: bool) -> int:
    """Tell a failure on stderr in the words its kind asks for; the exit code."""
    match failure:
        case click.exceptions.Exit():
            return failure.exit_code
        case click.ClickException():
            failure.show()
            return 2
        case UserError():
            if debug:
                traceback.print_exception(failure)
            tell("error", failure.message)
            if failure.hint:
                tell("hint", failure.hint)
            return failure.exit_code
        case BrokenPipeError():
            # The reader of our stdout (`| head`) has gone; Python must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case _:
            tell_internal_error(failure, debug=debug)
            return 3


def tell_internal_error(failure: Exception, *, debug: bool) -> None:
    """Our mistake, not the user's: one line on stderr, the traceback in a log that it names."""
    if debug:
        traceback.print_exception(failure)
    handle, name = tempfile.mkstemp(prefix=f"{PROGRAM}-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as log:
        traceback.print_exception(failure, file=log)
    tell("error", f"internal error: {type(failure).__name__}: {failure}")
    tell("hint", f"the traceback is in {Path(name)}; `{PROGRAM} --debug ...` shows it here")


def tell(label: str, text: str) -> None:
    """`label: text` on stderr; the label is coloured on a terminal only."""
    colour = {"error": "red", "hint": "cyan", "warning": "yellow"}[label]
    click.echo(f"{click.style(f'{label}:', fg=colour, bold=True)} {text}", err=True)


def main() -> None:
    """Entry point of the `fastvlm-compile` script."""
    sys.exit(run(sys.argv[1:]))
