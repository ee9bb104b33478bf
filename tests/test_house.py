"""Laws about the code itself: what imports what, what is documented, what users are told."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("physgym", "worldmodels")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
ONLY_IN = {
    "wandb": {"worldmodels.training.tracking"},
    "stable_baselines3": {"worldmodels.agents.stable_baselines"},
    "tyro": set(),
    "scripts": set(),
    "cli": set(),
    "benchmarks": set(),
}
"""Packages that one module alone may import, at call time (or none)."""


def name_of(path: Path) -> str:
    """The dotted module name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text())


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


def module_behind(name: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    while name:
        if name in MODULES:
            return name
        name = name.rpartition(".")[0]
    return None


@cache
def layers() -> dict[str, int]:
    """Height of each module in the list of `docs/architecture.md`; 0 is the lowest."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\d+\. ((?:.+\n)+?)(?=\d+\. |\n)", text, flags=re.MULTILINE)
    heights = {}
    for height, row in enumerate(reversed(rows)):
        for name in re.findall(r"`([a-z_.]+)`", row):
            heights[name] = height
    return heights


def listed(module: str) -> str:
    """The module itself or the package around it, as the list of layers names it."""
    name = module
    while name and name not in layers():
        name = name.rpartition(".")[0]
    assert name, f"{module} stands in no layer of docs/architecture.md"
    return name


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    if module in PACKAGES:
        return
    for name in sorted(at_load(tree_of(MODULES[module]))):
        other = module_behind(name)
        if other in (None, module, *PACKAGES):
            continue
        here, there = listed(module), listed(other)
        assert here == there or layers()[there] < layers()[here], (
            f"{module} imports {other}, which stands no lower in docs/architecture.md"
        )


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module: {module_behind(name) for name in at_load(tree_of(path))} - {None, module, *PACKAGES}
        for module, path in MODULES.items()
    }
    graph = {m: {o for o in others if not m.startswith(f"{o}.")} for m, others in graph.items()}
    while graph:
        leaves = {module for module, others in graph.items() if not others & graph.keys()}
        assert leaves, f"these modules import one another in a circle: {sorted(graph)}"
        graph = {module: others for module, others in graph.items() if module not in leaves}


def test_the_architecture_lists_no_module_that_is_gone():
    gone = [name for name in layers() if name not in MODULES]
    assert not gone


@pytest.mark.parametrize("package", ONLY_IN)
def test_guests_are_imported_by_their_host_alone_and_late(package):
    for module, path in MODULES.items():
        tree = tree_of(path)
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        everything = {name.partition(".")[0] for node in nodes for name in imported(node)}
        if package in everything:
            assert module in ONLY_IN[package], f"{module} imports {package}"
            assert package not in {name.partition(".")[0] for name in at_load(tree)}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import physgym", "torch cv2 scipy matplotlib h5py tyro wandb llvmlite pydantic rich"),
        ("import worldmodels", "torch cv2 scipy matplotlib h5py tyro wandb"),
        (
            "import worldmodels.configs.training, worldmodels.data.config",
            "torch cv2 scipy h5py tyro wandb",
        ),
        ("import worldmodels.training.tracking, worldmodels.storage.runs", "torch cv2 wandb"),
        ("import worldmodels.data", "torch"),
    ],
)
def test_light_imports_stay_light(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr or f"{statement} loads {done.stdout}"


@pytest.mark.parametrize("package", ["worldmodels", "worldmodels.data"])
def test_lazy_exports_exist(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = module.lod


def public_definitions(module: str) -> list[tuple[str, ast.AST]]:
    """Public classes and functions of a module, and public methods of its classes."""
    found: list[tuple[str, ast.AST]] = []
    for node in tree_of(MODULES[module]).body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        found.append((node.name, node))
        if isinstance(node, ast.ClassDef) and not node.bases:
            methods = (n for n in node.body if isinstance(n, ast.FunctionDef))
            found += [(f"{node.name}.{n.name}", n) for n in methods if not n.name.startswith("_")]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_is_documented(module):
    assert ast.get_docstring(tree_of(MODULES[module])), f"{module} has no docstring"
    bare = [name for name, node in public_definitions(module) if not ast.get_docstring(node)]
    assert not bare, f"{module}: no docstring on {bare}"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_input_is_not_checked_by_assert(path):
    """`python -O` removes assertions, so none may guard what a user gives.

    `assert x is not None` alone is left: it tells the type checker what holds by construction.
    """
    lines = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(" is not None")
    ]
    assert not lines, f"{path.name} asserts in lines {lines}: raise an error that says what to do"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_that_is_loaded_can_run_code(path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load") or (
            name == "exec" and path.name in ("program.py", "native.py", "tracing.py")
        ), f"{path.name}:{node.lineno} calls {name}"
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", f"{path.name}:{node.lineno}"
        assert keywords.get("allow_pickle") != "True", f"{path.name}:{node.lineno}"
        assert keywords.get("shell") != "True", f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_stay_readable(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    sizes = {
        n.name: (n.end_lineno or 0) - n.lineno + 1
        for n in ast.walk(tree_of(path))
        if isinstance(n, kinds)
    }
    long = {name: size for name, size in sizes.items() if size > 60}
    assert not long, f"{path.name}: functions over 60 lines: {long}"


def test_registries_agree():
    """A system or structure that has a file is in its registry, and under one name everywhere."""
    import physgym
    from worldmodels.configs.training import MODELS
    from worldmodels.dynamics import STRUCTURES

    def files(folder: str) -> set[str]:
        return {p.stem for p in (ROOT / folder).glob("[a-z]*.py")}

    assert files("physgym/systems") == set(physgym.SYSTEMS)
    assert files("worldmodels/dynamics") - {"fields", "flow"} == set(STRUCTURES) == set(MODELS)
    assert all(config.__doc__ for config in MODELS.values())


def test_every_option_has_help():
    """Docstrings under fields are the help of the command line."""
    for module in ("worldmodels.configs.training", "worldmodels.data.config"):
        for node in tree_of(MODULES[module]).body:
            if not isinstance(node, ast.ClassDef):
                continue
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    documented = isinstance(after, ast.Expr) and isinstance(
                        after.value, ast.Constant
                    )
                    assert documented, f"{module}.{node.name}.{ast.unparse(field.target)}"


def test_the_version_stands_once():
    import physgym

    text = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', text, flags=re.MULTILINE)
    assert physgym.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_the_documents_name_what_exists():
    """Paths in backquotes and links in the documents lead somewhere."""
    for document in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        text = (ROOT / document).read_text()
        folder = (ROOT / document).parent
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), f"{document} links to {link}"
        for path in re.findall(
            r"`((?:physgym|worldmodels|scripts|docs|benchmarks)/[\w/.]+)`", text
        ):
            assert (ROOT / path).exists(), f"{document} names {path}"
        for path in re.findall(r"python (scripts/\w+\.py)", text):
            assert (ROOT / path).exists(), f"{document} runs {path}"
