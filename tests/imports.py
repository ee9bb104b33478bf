"""Who imports whom: read from the sources with `ast`, and drawn into docs/architecture.md.

    python tests/imports.py     # after a change of what imports what

Imports inside functions count as well: a circle held together by late imports is a circle.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOTS = ("physgym", "worldmodels")
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: made by tests/imports.py -->\n", "<!-- end of imports -->"


def name_of(path: Path) -> str:
    """The dotted module name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for root in ROOTS for p in sorted((ROOT / root).rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Full names an import statement brings in: modules, or `module.name`."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {f"{node.module}.{alias.name}" for alias in node.names}


def at_load(tree: ast.Module) -> set[str]:
    """Names imported when the module loads: not in functions, not for type checkers alone."""
    names: set[str] = set()
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= imported(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))
    return names


def ever(tree: ast.Module) -> set[str]:
    """Names imported anywhere in the module, in functions too."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)))
    return {name for node in nodes for name in imported(node)}


def module_behind(name: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    while name:
        if name in MODULES:
            return name
        name = name.rpartition(".")[0]
    return None


def package_of(module: str) -> str:
    """The package of a module as the layers know it: physgym as a whole, else `worldmodels.<name>`."""
    parts = module.split(".")
    return parts[0] if parts[0] == "physgym" else ".".join(parts[:2])


def package_imports() -> Iterator[tuple[str, str, str]]:
    """(package, package that it imports, module that does), for every pair that differs."""
    for module, path in MODULES.items():
        if module in (*ROOTS, "physgym.__main__"):  # `python -m physgym` is the command line
            continue
        for name in sorted(ever(tree_of(path))):
            other = module_behind(name)
            if other is None or other == "worldmodels":
                continue
            if package_of(module) != package_of(other):
                yield package_of(module), package_of(other), module


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges without those that a longer way implies."""
    below: dict[str, set[str]] = {}
    for above, other in edges:
        below.setdefault(above, set()).add(other)

    @cache
    def reach(name: str) -> frozenset[str]:
        direct = below.get(name, set())
        return frozenset(direct).union(*(reach(other) for other in direct))

    return {
        (above, other)
        for above, other in edges
        if not any(other in reach(between) for between in below[above] - {other})
    }


def picture() -> str:
    """The packages as a Mermaid graph: an arrow points at what is imported."""
    edges = reduced({(above, other) for above, other, _ in package_imports()})
    lines = [
        f"  {above.split('.')[-1]} --> {other.split('.')[-1]}" for above, other in sorted(edges)
    ]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def drawn(text: str) -> str:
    """`text` with the picture between its marks."""
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    return re.sub(pattern, lambda _: BEGIN + picture() + END, text, flags=re.DOTALL)


if __name__ == "__main__":
    DOCUMENT.write_text(drawn(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
