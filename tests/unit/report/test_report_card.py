"""The model card shows the plot where the bundle has one."""

from fastvlm_compile.bundle.card import model_card
from fastvlm_compile.bundle.manifest import InputContract, Provenance

CONTRACT = InputContract(
    image_size=256, fit="pad", image_position="before", context_length=512, tokens_per_image=16
)
PROVENANCE = Provenance(checkpoint_digest="c", source_revision="s", tools={}, recipe="name: tiny")


def _card(plot: str) -> str:
    return model_card("tiny", CONTRACT, (), PROVENANCE, plot=plot)


def test_the_card_shows_the_plot_and_links_the_page() -> None:
    card = _card("reports/variants.svg")
    assert "![Bytes of each variant against its quality](reports/variants.svg)" in card
    assert "[reports/variants.md](reports/variants.md)" in card


def test_a_bundle_without_the_plot_has_no_broken_link() -> None:
    assert "variants.svg" not in _card("")
    assert "variants.md" not in _card("")
