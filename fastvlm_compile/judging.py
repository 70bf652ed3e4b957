"""The recipe's gates over what the parity stages measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.durable import refusals
from fastvlm_compile.errors import GateError, StoreError
from fastvlm_compile.report.policies import policy_summaries
from fastvlm_compile.report.variants import variant_rows
from fastvlm_compile.report.variants_plot import variants_plot
from fastvlm_compile.report.variants_table import variants_page
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import Artifact
from validation.compression_table import compression_table
from validation.error_table import error_table
from validation.gate_table import markdown_table, summary, terminal_table
from validation.gates import Gate, GateRow, judge
from validation.layer_curves import LAYERS_FILE, LayerReport, read_layers, render_layers
from validation.measurement import Measurement
from validation.parity_file import ParityReport, read_parity, write_parity
from validation.quantized_variants import QuantizedVariant

PARITY_FILE = "parity.json"
PLOT_FILE = "variants.svg"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All verdicts of one build, and the files that tell them."""

    report: ParityReport
    json_path: Path
    markdown_path: Path
    variants_path: Path
    """Bytes against quality, as Markdown."""
    plot_path: Path
    """The same as a plot."""
    layers_path: Path | None
    """Errors behind every layer; None where nothing is quantized."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that goes into a bundle's reports."""
        always = (self.json_path, self.markdown_path, self.variants_path, self.plot_path)
        return always if self.layers_path is None else (*always, self.layers_path)

    @property
    def rows(self) -> tuple[GateRow, ...]:
        """One per gate and per structural check."""
        return self.report.gates

    def failed(self) -> tuple[GateRow, ...]:
        """The gates that failed."""
        return tuple(row for row in self.rows if row.status == "failed")

    def not_run(self) -> dict[str, list[GateRow]]:
        """The gates that could not be judged, by the reason."""
        rows: dict[str, list[GateRow]] = {}
        for row in self.rows:
            if row.status == "not run":
                rows.setdefault(row.reason, []).append(row)
        return rows


def judge_gates(
    gates: tuple[Gate, ...],
    parity_stages: tuple[str, ...],
    artifacts: Mapping[str, Artifact],
    *,
    recipe: str,
    quantized: tuple[QuantizedVariant, ...],
    sizes: tuple[Measurement, ...],
    store: Store,
    random_weights: bool,
) -> Judgement:
    """Judge every gate and write the report, whatever the verdicts are.

    Args:
        gates: the recipe's.
        parity_stages: names of the artifacts that hold a `parity.json`, some a `layers.json` too.
        artifacts: of the build.
        recipe: name of the folder that the report goes to.
        quantized: variants whose error has a share of compression.
        sizes: of all variants, see `report.sizes`; they are reported beside the rest.
        store: takes the report.
        random_weights: whether the checkpoint was never trained, which some gates ask for.
    """
    measured = (
        measurement
        for stage in parity_stages
        for measurement in read_parity(artifacts[stage].folder / PARITY_FILE).measurements
    )
    measurements = (*measured, *sizes)
    judged = judge(measurements, gates, random_weights=random_weights)
    report = ParityReport(measurements=measurements, gates=judged)
    folder = store.root / "reports" / recipe
    layers = _layers(parity_stages, artifacts)
    judgement = Judgement(
        report=report,
        json_path=folder / PARITY_FILE,
        markdown_path=folder / "parity.md",
        variants_path=folder / "variants.md",
        plot_path=folder / PLOT_FILE,
        layers_path=folder / LAYERS_FILE if layers.curves else None,
    )
    rows = variant_rows(measurements)
    policies = policy_summaries(quantized, artifacts)
    sections = (
        markdown_table(report.gates),
        compression_table(measurements, quantized),
        error_table(measurements),
    )
    pages = {
        judgement.markdown_path: "\n".join((f"# Parity of {recipe}\n", *filter(None, sections))),
        judgement.variants_path: variants_page(recipe, rows, policies, plot=PLOT_FILE),
        judgement.plot_path: variants_plot(recipe, rows),
    }
    if judgement.layers_path is not None:
        pages[judgement.layers_path] = render_layers(layers)
    _write(judgement, pages, store)
    return judgement


def _layers(parity_stages: tuple[str, ...], artifacts: Mapping[str, Artifact]) -> LayerReport:
    """Of all quantizations, one below the other."""
    files = (artifacts[stage].folder / LAYERS_FILE for stage in parity_stages)
    read = (read_layers(file) for file in files if file.is_file())
    return LayerReport(curves=tuple(curve for report in read for curve in report.curves))


def _write(judgement: Judgement, pages: Mapping[Path, str], store: Store) -> None:
    folder = judgement.json_path.parent
    with refusals(StoreError, store.root):
        store.disk.make_folder(folder)
        aside = folder / f".{PARITY_FILE}"
        write_parity(aside, judgement.report)
        aside.rename(judgement.json_path)
        for path, text in pages.items():
            store.disk.write(path, text.encode())


def refuse_failures(judgement: Judgement) -> None:
    """Raises GateError with a table of what failed, by how much, if anything did."""
    failed = judgement.failed()
    if failed:
        table, _, _ = terminal_table(failed).rpartition("\n")  # its last line counts these alone
        raise GateError(
            f"{len(failed)} of {len(judgement.rows)} gates failed; nothing was published\n{table}\n"
            f"{summary(judgement.rows)}",
            hint=f"the whole report is {judgement.markdown_path}",
        )
