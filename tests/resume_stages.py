"""Real stages whose build is killed when they have made so many pieces, and a script that builds.

DIE_AFTER in the environment is that number; none: it is not killed. What is told of pieces as they
are made goes to the file TOLD, a line each.

python resume_stages.py STORE PLAN     builds a pickled plan
"""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toy_build import run_toys
from toy_stages import TextConfig

from fastvlm_compile.export.coreml.compress.packages import compress_decoder
from fastvlm_compile.kept import KeptWork
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.weights_file import open_quantized
from fastvlm_compile.stages import coreml_language
from fastvlm_compile.stages import golden as goldens
from fastvlm_compile.stages import parity as parities
from fastvlm_compile.stages import quantize as quantizing
from fastvlm_compile.stages.coreml_compressed import CompressConfig
from fastvlm_compile.stages.coreml_language import CoreMLDecoderConfig
from fastvlm_compile.stages.parity import ReferenceParityConfig
from fastvlm_compile.stages.quantize import QuantizeConfig
from reference.kept import NOTHING_KEPT, Arrays
from validation.golden_plan import GoldenPlan


def told() -> list[str]:
    """What was told so far, in the process that has TOLD."""
    path = Path(os.environ["TOLD"])
    return path.read_text().splitlines() if path.exists() else []


def tell(what: str) -> None:
    """Tell of a piece; the build dies when it is one too many."""
    if len(told()) == int(os.environ.get("DIE_AFTER", "-1")):
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()  # for the death that follows from the parent's
    with Path(os.environ["TOLD"]).open("a") as file:
        file.write(f"{what}\n")


@dataclass(frozen=True, kw_only=True)
class Telling(KeptWork):
    """Keeps whatever is computed, and tells of it when it is kept."""

    def arrays(self, name: str, compute: "Callable[[KeptWork], Arrays]") -> Arrays:
        def compute_and_tell(inner: KeptWork) -> Arrays:
            made = compute(inner)
            tell(f"{self.folder}/{name}")
            return made

        return super().arrays(name, compute_and_tell)  # type: ignore[arg-type]


def _telling(kept: KeptWork) -> Telling:
    return Telling(folder=kept.folder, worth_s=0.0)


def pieces(
    config: TextConfig, inputs: Mapping[str, Path], out: Path, progress: Progress, kept: KeptWork
) -> None:
    """A file for each letter of the text; `!` fails."""
    for letter in config.text:

        def make(folder: Path, letter: str = letter) -> str:
            tell(letter)
            if letter == "!":
                raise RuntimeError("no such letter")
            (folder / letter).write_text(letter)
            return ""

        kept.files(letter, make, out)


def quantize(
    config: QuantizeConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: KeptWork,
) -> None:
    """As the stage; tells of tensors as they are begun."""
    known: set[str] = set()

    def watch(done: int, total: int, what: str) -> None:
        if what.endswith(".weight") and what not in known:
            known.add(what)
            tell(what)
        progress(done, total, what)

    quantizing.quantize(config, inputs, out, watch, kept)


def decoder(
    config: CoreMLDecoderConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: KeptWork,
) -> None:
    """As the stage; tells of packages as they are made."""
    coreml_language.decoder(config, inputs, out, progress, _telling_files(kept))


def compress(
    config: CompressConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: KeptWork | None = None,
) -> None:
    """As the stage for a decoder, but for the check that it shrinks, which a tiny one does not."""
    quantized = open_quantized(inputs["quantized"])
    keeper = NOTHING_KEPT if kept is None else _telling_files(kept)
    compress_decoder(inputs["packages"], quantized, out, progress, tied=False, kept=keeper)


@dataclass(frozen=True, kw_only=True)
class TellingFiles(KeptWork):
    """Tells of files before they are made."""

    def files(self, name: str, make: Callable[[Path], str], out: Path) -> str:
        def make_and_tell(folder: Path) -> str:
            tell(name)
            return make(folder)

        return super().files(name, make_and_tell, out)


def _telling_files(kept: KeptWork) -> TellingFiles:
    return TellingFiles(folder=kept.folder)


def golden(
    config: GoldenPlan, inputs: Mapping[str, Path], out: Path, progress: Progress, kept: KeptWork
) -> None:
    """As the stage; tells of arrays as they are computed."""
    goldens.golden(config, inputs, out, progress, _telling(kept))


def reference(
    config: ReferenceParityConfig,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: KeptWork,
) -> None:
    """As the stage; tells of arrays as they are computed."""
    parities.reference(config, inputs, out, progress, _telling(kept))


if __name__ == "__main__":
    run_toys(pickle.loads(Path(sys.argv[2]).read_bytes()), Path(sys.argv[1]))
