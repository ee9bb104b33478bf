"""Misspelt keyword arguments of public functions, told with what is meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from worldmodels.configs.schema import suggestion

Called = TypeVar("Called", bound=Callable[..., Any])


def known_keywords(called: Called) -> Called:
    """Decorate a function, or a class that is made by keywords: its TypeError then suggests the closest.

    The words are Python's own, by which other libraries find out what a function takes.
    """
    function: Any = called.__init__ if isinstance(called, type) else called  # type: ignore[misc]
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [name for name in names if name != "self"]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in names:
                raise TypeError(
                    f"{function.__qualname__}() got an unexpected keyword argument {name!r}: expected "
                    f"{', '.join(names)}" + suggestion(name, names)
                )
        return function(*args, **keywords)

    if isinstance(called, type):
        called.__init__ = call  # type: ignore[misc]
        return called
    return call  # type: ignore[return-value]
