"""Laws about the code itself: what imports what, what is documented, what users are told."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache

import pytest
from imports import (
    BEGIN,
    DOCUMENT,
    MODULES,
    ROOT,
    ROOTS,
    at_load,
    drawn,
    ever,
    imported,
    module_behind,
    package_imports,
    package_of,
    tree_of,
)

SOURCES = list(MODULES.values())
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
ONLY_IN = {
    "wandb": {"worldmodels.training.tracking"},
    "stable_baselines3": {"worldmodels.agents.stable_baselines"},
    "pygame": {"physgym.steering"},
    "tyro": set(),
    "scripts": set(),
    "ray": set(),
    "submitit": set(),
    "cli": set(),
    "benchmarks": set(),
}
"""Packages that one module alone may import, at call time (or none)."""


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


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ROOTS])
def test_every_module_stands_in_a_layer(module):
    assert package_of(module) in layers(), f"{module} stands in no layer of docs/architecture.md"


def test_imports_go_down_only():
    """Between packages, by every import: one inside a function is an import too."""
    upward = [
        f"{module} imports {other}"
        for package, other, module in package_imports()
        if layers()[other] >= layers()[package]
    ]
    assert not upward, f"no lower in docs/architecture.md: {upward}"


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module: {module_behind(name) for name in at_load(tree_of(path))} - {None, module, *ROOTS}
        for module, path in MODULES.items()
    }
    graph = {m: {o for o in others if not m.startswith(f"{o}.")} for m, others in graph.items()}
    while graph:
        leaves = {module for module, others in graph.items() if not others & graph.keys()}
        assert leaves, f"these modules import one another in a circle: {sorted(graph)}"
        graph = {module: others for module, others in graph.items() if module not in leaves}


def test_the_architecture_lists_no_package_that_is_gone():
    assert set(layers()) == {package_of(module) for module in MODULES if module != "worldmodels"}


def test_the_picture_of_imports_is_that_of_the_sources():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert BEGIN in text and drawn(text) == text, "python tests/imports.py draws it anew"


def test_the_circle_of_a_late_import_would_be_seen():
    source = "def build():\n    from worldmodels.models import building\n"
    assert ever(ast.parse(source)) == {"worldmodels.models.building"}
    assert at_load(ast.parse(source)) == set()


@pytest.mark.parametrize("package", ONLY_IN)
def test_guests_are_imported_by_their_host_alone_and_late(package):
    for module, path in MODULES.items():
        tree = tree_of(path)
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        everything = {name.partition(".")[0] for node in nodes for name in imported(node)}
        if package == "tyro" and module.startswith("worldmodels.commands."):
            continue  # the command line is built from it
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
    assert (
        files("worldmodels/dynamics") - {"fields", "flow", "mass", "nonseparable"}
        == set(STRUCTURES)
        == set(MODELS)
    )
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
    assert all((ROOT / package / "py.typed").exists() for package in ROOTS)
