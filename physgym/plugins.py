"""Systems and structures from outside this package: of a plugin that the user names, or of an installed package.

Whatever registers something enters it in the `JOURNAL`; loading a plugin reads there what it brought, and takes
that back where the plugin fails half-way. Nothing is ever imported because a file that was read names it: a user
named the plugin, installed it (entry points), or started the process that this one is a worker of.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "PHYSGYM_PLUGINS"
"""Environment variable that tells workers what their parent has loaded: a JSON list."""
GROUPS = ("physgym.systems", "physgym.structures")
"""Entry points under which installed packages bring their own."""


class PluginError(ValueError):
    """A plugin that is not there, does not import, or registers nothing; the message says which."""


class Entry(NamedTuple):
    """Something that was registered from outside."""

    kind: str
    """What it is: "system" or "structure"."""
    name: str
    """Its name in the registry."""
    module: str
    """Where its class was defined."""
    undo: Callable[[], None]
    """Takes it out of the registry again."""


JOURNAL: list[Entry] = []
"""What was registered, in order; `physgym.register` and `worldmodels.register_structure` write it."""
_loaded: dict[str, list[str]] = {}
"""What each plugin registered, of those that the user named."""
_installed: list[str] = []
"""Modules of entry points."""
_loading: set[str] = set()


def load_plugin(plugin: str | os.PathLike[str]) -> list[str]:
    """Import a plugin, once, and return what it registered, such as ["system cart", "structure spring"].

    Args:
        plugin: a Python file (a path that ends in .py), or the dotted name of a module.

    Raises:
        PluginError: it is not there, does not import (its own error is named), or registers nothing. What it had
            registered by then is taken back.
    """
    given = os.fspath(plugin) if isinstance(plugin, os.PathLike) else plugin
    if not isinstance(given, str) or not given.strip():
        raise PluginError(f"plugin {plugin!r} is none: expected a .py file or a module's name")
    name, module = _named(given)
    if name in _loading:  # it is what imports this
        return []
    if name not in _loaded:
        _loaded[name] = _load(name, module)
        os.environ[VARIABLE] = json.dumps(list(_loaded))
    return list(_loaded[name])


def loaded() -> list[str]:
    """Plugins that were loaded, as `load_plugin` takes them: files by absolute path, modules by name."""
    return [*_loaded, *(name for name in _installed if name not in _loaded)]


def load_inherited() -> None:
    """Load what the process that started this worker had loaded. Raises PluginError as `load_plugin`."""
    given = os.environ.get(VARIABLE) or "[]"
    try:
        names = json.loads(given)
    except ValueError:
        names = None
    if not isinstance(names, list):
        raise PluginError(f"{VARIABLE}={given!r} is no JSON list: load_plugin sets it, for workers")
    for name in names:
        load_plugin(name)


def in_worker() -> bool:
    """Whether another Python process started this one as its worker."""
    starting = getattr(
        multiprocessing.current_process(), "_inheriting", False
    )  # before its parent is known
    return starting or multiprocessing.parent_process() is not None


def load_entry_points(group: str) -> list[Any]:
    """Import what installed packages bring under `group`, and return it; a broken one warns in a line."""
    values = []
    for point in _entry_points().select(group=group):
        if _importing(point.module):  # it is what imports this package, and will register by itself
            continue
        before = len(JOURNAL)
        try:
            values.append(point.load())
        except (Exception, SystemExit) as error:
            _take_back(before)
            package = point.dist.name if point.dist is not None else point.module
            told = f"the installed package {package} brings {point.value} as one of {group}, which does not load"
            warnings.warn(f"{told}: {_reason(error)}", RuntimeWarning, stacklevel=2)
        else:
            _installed.append(point.module)
    return values


@functools.cache
def _entry_points() -> Any:
    """All entry points of this Python; finding them reads a file of every installed package."""
    return metadata.entry_points()


def _importing(module: str) -> bool:
    """Whether `module` is being imported at this moment."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _named(given: str) -> tuple[str, str]:
    """What a plugin is called in records, and the name of its module. Raises PluginError."""
    if not given.endswith(".py"):
        if os.sep in given or not all(part.isidentifier() for part in given.split(".")):
            raise PluginError(
                f"plugin {given!r} is neither a path that ends in .py nor the dotted name of a module"
            )
        return given, given
    path = Path(given).expanduser().resolve()
    if not path.is_file():
        raise PluginError(f"plugin {given}: there is no such file")
    mark = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    stem = re.sub(r"\W", "_", path.stem)
    return str(path), f"physgym_plugin_{stem}_{mark}"  # the same in every process


def _load(name: str, module: str) -> list[str]:
    before, known = len(JOURNAL), set(sys.modules)
    _loading.add(name)
    try:
        _import(name, module)
        brought = _brought(module, before)
        if not brought:
            raise PluginError(
                f"plugin {name} registers nothing: decorate a System with @physgym.register, or a Dynamics with "
                "@worldmodels.register_structure(name, config)"
            )
    except BaseException:
        _take_back(before)
        for other in set(sys.modules) - known:  # they would register nothing on another try
            if f"{other}.".startswith(f"{module}."):
                del sys.modules[other]
        raise
    finally:
        _loading.discard(name)
    return brought


def _import(name: str, module: str) -> None:
    try:
        if name == module:
            importlib.import_module(module)
        else:
            _import_file(name, module)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            raise PluginError(
                f"plugin {name}: there is no module {missing!r}: install it, put its folder on PYTHONPATH, or name "
                "a file by its path (ending in .py)"
            ) from error
        raise PluginError(f"plugin {name} does not import: {_reason(error)}") from error


def _import_file(path: str, module: str) -> None:
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    sys.modules[module] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)


def _reason(error: BaseException) -> str:
    """An error in one line, and where it was raised."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = "" if isinstance(error, SyntaxError) or not frames else f" ({_place(frames)})"
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _place(frames: traceback.StackSummary) -> str:
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"


def _brought(module: str, before: int) -> list[str]:
    """What a plugin registered: what is new since `before`, and what its own modules define."""
    own = [e for e in JOURNAL if f"{e.module}.".startswith(f"{module}.")]
    found = [*own, *JOURNAL[before:]]
    return list(dict.fromkeys(f"{entry.kind} {entry.name}" for entry in found))


def _take_back(before: int) -> None:
    while len(JOURNAL) > before:
        JOURNAL.pop().undo()
