"""Colours and shapes of the plot, for light and for dark pages."""

from fastvlm_compile.report.svg import element, spell, text

# Light and dark; each stands out from its paper by at least 4.5 to 1, and the three targets differ
# for colour-blind eyes as well (and by their shapes).
_COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "faint": ("#59636e", "#9198a1"),
    "grid": ("#e3e7eb", "#262c36"),
    "onnx": ("#0066b3", "#6cb6ff"),
    "coreml": ("#b54708", "#ffa657"),
    "mlx": ("#00745a", "#4ed8a5"),
}
_SERIES = (
    _COLOURS["onnx"],
    _COLOURS["coreml"],
    _COLOURS["mlx"],
    ("#8250df", "#c9a4ff"),
)
_DASHES = ("none", "7 4", "2 3")
NUM_SERIES = len(_SERIES) * len(_DASHES)
"""Curves that can be told apart by their colour and their dashes."""
NAMES = {"onnx": "ONNX", "coreml": "Core ML", "mlx": "MLX"}
"""Targets that can be drawn, and how they are called."""

_FIXED = """\
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-size:12px}
.title{font-size:17px;font-weight:600}
.label{stroke-width:3px;stroke-linejoin:round;paint-order:stroke}
.line{fill:none;stroke-width:1px}
.front{fill:none;stroke-width:1px;stroke-opacity:.55}
.leader{fill:none;stroke-width:.7px;stroke-opacity:.8}
.mark{stroke-width:1.5px}
.end{text-anchor:end}
.middle{text-anchor:middle}"""


def drawing(
    *parts: str,
    title: str,
    description: str,
    ids: str,
    size: tuple[float, float],
    num_series: int = 0,
    standalone: bool = False,
) -> str:
    """A whole plot on its paper, told to those who do not see it.

    Args:
        parts: markup, drawn one over the other.
        title, description: for screen readers, and for a pointer that rests on it.
        ids: what the ids in it begin with.
        size: width and height, in its own coordinates.
        num_series: curves that it has, see `series`.
        standalone: whether it is a file of its own.
    """
    width, height = size
    namespace = {"xmlns": "http://www.w3.org/2000/svg"} if standalone else {}
    markup = element(
        "svg",
        element("title", text(title), id=f"{ids}title"),
        element("desc", text(description), id=f"{ids}desc"),
        _style(num_series),
        element("rect", class_="paper", x=0.0, y=0.0, width=width, height=height),
        *parts,
        **namespace,
        viewBox=f"0 0 {spell(width)} {spell(height)}",
        role="img",
        aria_labelledby=f"{ids}title {ids}desc",
    )
    return markup + "\n"


def _style(num_series: int) -> str:
    """The `<style>` of the plot; the page's colour scheme decides."""
    light, dark = (f"{_rules(theme)}{_series_rules(theme, num_series)}" for theme in (0, 1))
    media = f"@media (prefers-color-scheme:dark){{\n{dark}\n}}"
    return element("style", f"{_FIXED}\n{light}\n{media}")


def series(index: int) -> str:
    """The class of a curve, of what marks it and of its label; after `NUM_SERIES` they repeat."""
    return f"s{index % NUM_SERIES}"


def mark(target: str, x: float, y: float, radius: float, *inside: str) -> str:
    """The shape of a target: a circle, a square or a triangle of about the same area.

    Args:
        target: in `NAMES`.
        x, y: its middle.
        radius: half its width.
        inside: markup, such as a title.
    """
    class_ = f"mark {target}"
    if target == "onnx":
        return element("circle", *inside, class_=class_, cx=x, cy=y, r=radius)
    if target == "coreml":
        r = radius * 0.9
        return element("rect", *inside, class_=class_, x=x - r, y=y - r, width=2 * r, height=2 * r)
    assert target == "mlx", target
    top, bottom = y - 1.15 * radius, y + 0.9 * radius
    corners = ((x, top), (x + 1.15 * radius, bottom), (x - 1.15 * radius, bottom))
    points = " ".join(f"{spell(cx)},{spell(cy)}" for cx, cy in corners)
    return element("polygon", *inside, class_=class_, points=points)


def _series_rules(theme: int, count: int) -> str:
    rules = []
    for index in range(min(count, NUM_SERIES)):
        colour = _SERIES[index % len(_SERIES)][theme]
        dashes = _DASHES[index // len(_SERIES)]
        rules += [
            f".s{index}{{fill:{colour}}}",
            f".curve.s{index}{{fill:none;stroke:{colour};stroke-width:1.6px;"
            f"stroke-dasharray:{dashes}}}",
            f".leader.s{index}{{fill:none;stroke:{colour}}}",
        ]
    return "".join(f"\n{rule}" for rule in rules)


def _rules(theme: int) -> str:
    colour = {name: pair[theme] for name, pair in _COLOURS.items()}
    lines = [f".{name}{{fill:{colour[name]}}}" for name in ("paper", "ink", "faint", *NAMES)]
    lines.append(f".grid{{stroke:{colour['grid']}}}")
    lines.append(f".axis{{stroke:{colour['faint']}}}")
    lines.append(f".label,.mark{{stroke:{colour['paper']}}}")
    lines += [f".front.{name},.leader.{name}{{fill:none;stroke:{colour[name]}}}" for name in NAMES]
    return "\n".join(lines)
