"""A report as one HTML file that needs nothing else: no network, no script, pictures inside."""

import base64
import itertools

from hieros_repro.findings import page
from hieros_repro.findings.page import Page
from hieros_repro.stats import drawings

TEMPLATE = "report.html.j2"
MARKS = {True: ("met", "✓"), False: ("unmet", "✗"), None: ("unknown", "?")}


def render(content: Page) -> str:
    """Everything that comes from runs is escaped; only drawings, which are made here, are not."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    numbers = itertools.count(1)
    environment = Environment(
        loader=PackageLoader("hieros_repro.findings", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "kind": page.kind,
        "texts": page.texts,
        "numeric": page.numeric,
        "marks": MARKS,
        "breakable": lambda text: Markup(str(escape(text)).replace("=", "=<wbr>")),
        "svg": lambda figure: Markup(drawings.svg(figure, f"f{next(numbers)}")),
        "picture": lambda content: f"data:image/png;base64,{base64.b64encode(content).decode()}",
    }
    return environment.get_template(TEMPLATE).render(page=content)
