"""The explorer's page: reads markup, look and behavior from `assets/`, and puts data in where it cannot become code.

Data reaches the page as JSON or base64 only and is shown with textContent only: no id or label can become markup.
"""

import html
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

ASSETS = Path(__file__).with_name("assets")
MODULES = ("data", "state", "crops", "map", "histogram", "card", "gallery", "filters", "marks", "keys", "main")
"""Scripts in the order in which they are joined."""

_POLICY = (
    "default-src 'none'; script-src {own}'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src {own}data: blob:; base-uri 'none'; form-action 'none'"
)
ONE_FILE_POLICY = _POLICY.format(own="")
"""Forbids all requests to the network; plotly's WebGL compiles its drawing functions, hence unsafe-eval."""
FOLDER_POLICY = _POLICY.format(own="'self' file: ")
"""The same, but scripts and images may come from the page's own folder: `file:` from a disk, `self` from a server."""


def script_json(value: Any) -> str:
    """JSON that can stand within a script element: no `<`, so that no text can close it or open another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def script() -> str:
    """The page's own script: its modules joined within one function, so that they share names with nobody else."""
    parts = "\n".join((ASSETS / f"explorer-{name}.js").read_text(encoding="utf-8") for name in MODULES)
    return f'(function () {{\n"use strict";\n{parts}\n}})();\n'


def data_element(identity: str, text: str, kind: str = "text/plain") -> str:
    """A script element that holds data and is never run; `text` must hold no `<`."""
    return f'<script type="{kind}" id="{identity}">{text}</script>'


def page(title: str, policy: str, data: Iterable[str], scripts: Iterable[str]) -> str:
    """The whole page: markup and look, then `data` (elements), then `scripts` (elements)."""
    safe = html.escape(title)
    look = (ASSETS / "explorer.css").read_text(encoding="utf-8")
    body = (ASSETS / "explorer.html").read_text(encoding="utf-8").replace("__TITLE__", safe)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe}</title>\n<style>\n{look}</style>\n</head>\n<body>\n{body}",
        *data, *scripts, "</body>\n</html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def own_scripts() -> list[str]:
    """Elements with plotly and the page's own script written into them."""
    return [f"<script>{get_plotlyjs()}</script>", f"<script>\n{script()}</script>"]
