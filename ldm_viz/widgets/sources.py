"""The views' own texts, joined into the one module the browser loads."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'import \{[^{}]*\} from "\./([a-z0-9_]+)\.js";\n')

_STRING = re.compile(r'"([^"\\\n]*)"')

_PARTS = ("filmstrip", "latent_statistics", "noise_heatmap")


def read_view(name: str) -> str:
    """Text of a file of ``ldm_viz/views``."""
    return files("ldm_viz").joinpath("views", name).read_text(encoding="utf-8")


def compact(text: str) -> str:
    """Leave out indentation, comments, types, and line breaks where a statement goes on or has ended.

    The text is stored once for each widget in a saved notebook, as JSON, where a double quote takes two
    characters: so it had better be small, and its strings have single quotes. Texts must not hold strings over
    several lines.
    """
    text = re.sub(r"^[ \t]*/\*(?:(?!\*/).)*\*/[ \t]*\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"/\*\* @.*?\*/ ?", "", text)
    text = re.sub(r"^[ \t]*//.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r" // .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[ \t]+|\n(?=\n)", "", text, flags=re.MULTILINE)
    text = re.sub(
        r"^[^`'\n]*$", lambda line: _STRING.sub(r"'\1'", line[0]), text, flags=re.MULTILINE
    )
    return re.sub(r"(?<=[;{,])\n", "", text)


def split_imports(text: str, name: str) -> tuple[list[str], str]:
    """Divide a module into what it imports and the rest.

    A widget's module is loaded from a blob URL, where a relative import cannot be resolved, so views that share
    code are joined as text instead. For that a module begins with its imports, each
    ``import { … } from "./module.js";``, and renames nothing.

    Returns:
        Names of the modules it imports from, without their ending, and its text without the imports.

    Raises:
        ValueError: an import is written otherwise or stands elsewhere.
    """
    rest = text.removeprefix("// @ts-check\n")
    needed = []
    while found := _IMPORT.match(rest):
        if " as " in found[0]:
            raise ValueError(f"{name} renames what it imports: joined as text, it could not")
        needed.append(found[1])
        rest = rest[found.end() :]
    if re.search(r"^\s*import\b|^export .* from ", rest, flags=re.MULTILINE):
        raise ValueError(
            f'{name} must begin with its imports, each written import {{ … }} from "./module.js";'
        )
    return needed, rest


def _joined(modules: list[str]) -> str:
    """These modules, each after those it imports from and none twice; only the last has a default export."""
    order: dict[str, str] = {}

    def add(module: str, above: tuple[str, ...]) -> None:
        if module in above:
            raise ValueError(f"views import each other in a circle: {' → '.join((*above, module))}")
        if module in order:
            return
        needed, rest = split_imports(read_view(f"{module}.js"), f"{module}.js")
        for other in needed:
            add(other, (*above, module))
        order[module] = rest

    for module in modules:
        add(module, ())
    *before, last = order.values()
    exported = [re.sub(r"^export default .*\n", "", text, flags=re.MULTILINE) for text in before]
    return compact("".join([*exported, last]))


@cache
def module_text(view: str) -> str:
    """The ES module of one view: all that it is made of, with a default export for anywidget.

    Args:
        view: a view's name, such as ``"explorer"``.
    """
    return _joined([view])


def compact_style(text: str) -> str:
    """Leave out the white space and the comments of a style sheet that change nothing."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*([{};,])\s*", r"\1", text)
    text = re.sub(r'\[([a-z-]+)="([a-z]+)"\]', r"[\1=\2]", text)
    return re.sub(r"(?<=[a-z-]):\s+", ":", text).replace(";}", "}")


@cache
def style_text(view: str) -> str:
    """The style sheet of one view: what all share, and its own or that of the parts."""
    own = f"{view}.css" if view not in _PARTS else "part.css"
    return compact_style(read_view("core.css") + read_view(own))


@cache
def page_script(view: str) -> str:
    """The script of an exported page: the view's module, and a small model in place of the notebook's."""
    first, *rest = view.split("_")
    constant = first + "".join(word.capitalize() for word in rest)
    return f"{_joined([view, 'page'])}openPage({constant});\n"
