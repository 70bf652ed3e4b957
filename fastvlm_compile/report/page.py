"""The report as one HTML page that needs nothing else: no network, no script to be read."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from fastvlm_compile.report.html import Markup, join, tag
from fastvlm_compile.report.page_data import ReportData
from fastvlm_compile.report.page_gates import failed_section, gates_section
from fastvlm_compile.report.page_latency import latency_section, speed_section
from fastvlm_compile.report.page_layers import layers_section
from fastvlm_compile.report.page_sections import (
    consumers_section,
    origin_section,
    provenance_section,
    quality_section,
    stages_section,
    variants_section,
    verdict_section,
    verdict_title,
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its id.
        title: its heading.
        content: markup; a section without any is left out.
    """

    anchor: str
    title: str
    content: Markup


def render_page(data: ReportData) -> str:
    """The whole page; equal data, equal text."""
    style, script = _own("page.css"), _own("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{data.name}: {verdict_title(data.verdict)}"),
        tag("style", Markup(style)),
    )
    sections = [section for section in _sections(data) if section.content]
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#report", class_="skip"),
        tag("header", tag("h1", f"Report of {data.name}"), verdict_section(data)),
        _contents(sections),
        tag("main", *(_section(each) for each in sections), id="report", tabindex="-1"),
        tag("footer", tag("p", "Written by fastvlm-compile report. ", *_footer(data))),
        tag("script", Markup(script)),
    )
    page = tag("html", head, "\n", body, lang="en")
    return f"<!doctype html>\n{page}\n"


def _sections(data: ReportData) -> Sequence[Section]:
    named = (
        ("failed", "What failed", failed_section(data)),
        ("origin", "What was built from what", origin_section(data)),
        ("variants", "Variants", variants_section(data)),
        ("quality", "Bytes against quality", quality_section(data)),
        ("speed", "Quality against speed", speed_section(data)),
        ("gates", "Gates", gates_section(data)),
        ("layers", "Error layer by layer", layers_section(data)),
        ("latency", "Latency", latency_section(data)),
        ("stages", "Stages of the build", stages_section(data)),
        ("consumers", "Who loaded it", consumers_section(data)),
        ("provenance", "Provenance", provenance_section(data)),
    )
    return [Section(anchor=anchor, title=title, content=each) for anchor, title, each in named]


def _section(section: Section) -> Markup:
    heading = f"{section.anchor}-heading"
    return tag(
        "section",
        tag("h2", section.title, id=heading),
        "\n",
        section.content,
        "\n",
        id=section.anchor,
        aria_labelledby=heading,
    )


def _contents(sections: Sequence[Section]) -> Markup:
    items = (tag("li", tag("a", each.title, href=f"#{each.anchor}")) for each in sections)
    return tag("nav", tag("ul", *items), aria_label="Sections")


def _footer(data: ReportData) -> Sequence[str]:
    return "The manifest is ", tag("code", data.manifest_digest), "."


def _policy(script: str) -> str:
    """Nothing is fetched, and no script runs but ours, whatever a name may hold."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )


def _own(name: str) -> Markup:
    return join([Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))])
