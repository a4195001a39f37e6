"""Self-contained HTML pages from templates."""

import base64
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def render(
    template: str,
    *,
    title: str,
    styles: Sequence[str] = (),
    script: str = "",
    folder: pathlib.Path = TEMPLATES,
    **context: Any,
) -> str:
    """Renders a page. Text is escaped, and the browser runs only the page's script.

    Args:
      template: its file, which extends `page.html.j2`.
      title: of the page.
      styles: further style sheets, beside `page.css`.
      script: file of its script; "" for none.
      folder: of the template and the style sheets; the package's by default.
      **context: variables of the template.

    Returns:
      The page's text, which is valid UTF-8.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def text(name: str) -> str:
        return environment.loader.get_source(environment, name)[0]

    code = text(script) if script else ""
    digest = hashlib.sha256(code.encode()).digest()
    page = environment.get_template(template).render(
        title=title,
        style=markupsafe.Markup("".join(map(text, ("page.css", *styles)))),
        script=markupsafe.Markup(code),
        script_hash=base64.b64encode(digest).decode("ascii"),
        **context,
    )
    # File names that are not valid UTF-8 contain surrogates.
    return page.encode("utf-8", "replace").decode("utf-8")
