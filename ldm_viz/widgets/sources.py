"""The views' own texts, joined into the one module the browser loads."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

IMPORTS_CORE = "./core.js"


def read_view(name: str) -> str:
    """Text of a file of ``ldm_viz/views``."""
    return files("ldm_viz").joinpath("views", name).read_text(encoding="utf-8")


def compact(text: str) -> str:
    """Leave out indentation and the comments that begin a line.

    The text is stored once for each widget in a saved notebook, so it had better be small. Texts must not hold
    strings over several lines.
    """
    text = re.sub(r"^[ \t]*/\*.*?\*/[ \t]*\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^[ \t]*//.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^[ \t]+|\n(?=\n)", "", text, flags=re.MULTILINE)


def without_import(text: str, source: str, name: str) -> str:
    """Drop the one import statement that ``text`` must begin with.

    A widget's module is loaded from a blob URL, where a relative import cannot be resolved, so views that share
    code are joined as text instead.

    Raises:
        ValueError: the text does not begin with exactly one import, from ``source``.
    """
    statement, found, rest = text.partition(f'}} from "{source}";\n')
    imports = [line for line in text.splitlines() if line.startswith("import ")]
    if not found or not statement.startswith("import {") or len(imports) != 1:
        raise ValueError(f'{name} must begin with exactly one import {{ … }} from "{source}";')
    return rest


@cache
def module_text(view: str) -> str:
    """The ES module of one view: ``core.js`` and the view, with a default export for anywidget.

    Args:
        view: a view's name, such as ``"explorer"``.
    """
    name = f"{view}.js"
    return compact(read_view("core.js") + without_import(read_view(name), IMPORTS_CORE, name))


@cache
def style_text(view: str) -> str:
    """The style sheet of one view."""
    return compact(read_view(f"{view}.css"))


@cache
def page_script(view: str) -> str:
    """The script of an exported page: the view's module, and a small model in place of the notebook's."""
    name = "page.js"
    return module_text(view) + compact(without_import(read_view(name), f"./{view}.js", name))
