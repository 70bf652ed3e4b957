"""What is there of a recipe: its stages, the verdicts of its latest build, its bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvlm_compile.judging import PARITY_FILE
from fastvlm_compile.latest import load_record
from fastvlm_compile.stage import Plan
from fastvlm_compile.store import Store
from fastvlm_compile.verdict import Verdict, verdicts
from validation.gates import GateRow
from validation.parity_file import read_parity

BundleState = Literal["missing", "published", "outdated", "not ours"]
"""`not ours`: the folder is not what the latest build published."""


@dataclass(frozen=True, kw_only=True)
class RecipeStatus:
    """The state of one recipe; reading it writes nothing."""

    recipe: str
    verdicts: tuple[Verdict, ...]
    gates: tuple[GateRow, ...]
    """As the latest build judged them; empty before one came so far."""
    bundle: Path
    bundle_state: BundleState

    @property
    def to_build(self) -> tuple[Verdict, ...]:
        """The stages that the next build would run."""
        return tuple(verdict for verdict in self.verdicts if verdict.entry is None)


def recipe_status(plan: Plan, store: Store, bundle: Path) -> RecipeStatus:
    """Look at a recipe's stages, report and bundle.

    Raises:
        UserError: a source cannot be read, a tool is missing, a record is damaged.
    """
    record = load_record(store, plan.recipe)
    found = tuple(verdicts(plan, store, record))
    report = store.root / "reports" / plan.recipe / PARITY_FILE
    return RecipeStatus(
        recipe=plan.recipe,
        verdicts=found,
        gates=read_parity(report).gates if report.is_file() else (),
        bundle=bundle,
        bundle_state=_bundle_state(plan, store, bundle, current=all(v.entry for v in found)),
    )


def _bundle_state(plan: Plan, store: Store, bundle: Path, *, current: bool) -> BundleState:
    if not bundle.is_dir():
        return "missing"
    published = load_record(store, plan.recipe).published
    if published is None or store.outside_tree(bundle, hidden=True).digest != published.digest:
        return "not ours"
    return "published" if current else "outdated"
