"""What the card tells of a bundle beyond its manifest, read back from the bundle itself."""

import json
from pathlib import Path

from fastvlm_compile.report.variants import VariantQuality, variant_rows
from validation.parity_file import read_parity

PARITY = "reports/parity.json"
_REAL_CHANNELS = 3072


def quality_of(folder: Path) -> tuple[VariantQuality, ...]:
    """One row for each variant that was measured; none where there is no report.

    Raises:
        UserError: the report is damaged.
    """
    path = folder / PARITY
    return variant_rows(read_parity(path).measurements) if path.is_file() else ()


def has_real_tower(folder: Path) -> bool:
    """Whether the vision tower has the released sizes, which Apple's app and mlx-vlm fix."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return bool(config.get("mm_hidden_size") == _REAL_CHANNELS)
