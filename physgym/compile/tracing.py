"""Traces equations into a graph of elementary operations and prints it as straight-line Python.

A system's equations are called once on `Expression` operands. Every operation becomes a node (equal
nodes are shared), and each node knows its *level*: what it depends on. Nodes of parameters alone
can then be computed once an episode, nodes of the held control once a step, and the rest once a
sub-step. No operation is reordered or re-associated, so the printed program gives the same bits as
the equations themselves.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

FIXED, HELD, MOVING = 0, 1, 2
"""Levels: parameters and sub-step; the control held over a step; the state that changes inside
it.
"""

_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "and": "&",
    "or": "|",
}


class Graph:
    """The nodes of one trace, in the order in which they were made (so operands come before their
    uses).
    """

    def __init__(self) -> None:
        self.nodes: dict[tuple[Any, ...], Expression] = {}

    def symbol(self, name: str, level: int) -> Expression:
        """An input of the program, printed as `name`."""
        return self.node("symbol", (name,), level)

    def node(self, op: str, args: tuple[Any, ...], level: int | None = None) -> Expression:
        """The node `op(*args)`, shared with an equal one."""
        key = (op, *(a if not isinstance(a, float) else ("float", a.hex()) for a in args))
        if key not in self.nodes:
            if level is None:
                level = max(a.level for a in args if isinstance(a, Expression))
            self.nodes[key] = Expression(self, op, args, level, len(self.nodes))
        return self.nodes[key]


class Expression:
    """A value that is not known yet: arithmetic on it makes nodes instead of numbers."""

    __slots__ = ("args", "graph", "level", "op", "order")

    def __init__(
        self, graph: Graph, op: str, args: tuple[Any, ...], level: int, order: int
    ) -> None:
        self.graph, self.op, self.args, self.level, self.order = graph, op, args, level, order

    __hash__ = object.__hash__

    def _binary(self, op: str, a: Any, b: Any) -> Expression:
        return self.graph.node(
            op, tuple(x if isinstance(x, Expression) else float(x) for x in (a, b))
        )

    def __add__(self, other: Any) -> Expression:
        return self._binary("add", self, other)

    def __radd__(self, other: Any) -> Expression:
        return self._binary("add", other, self)

    def __sub__(self, other: Any) -> Expression:
        return self._binary("sub", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return self._binary("sub", other, self)

    def __mul__(self, other: Any) -> Expression:
        return self._binary("mul", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return self._binary("mul", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return self._binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return self._binary("div", other, self)

    def __neg__(self) -> Expression:
        return self.graph.node("neg", (self,))

    def __abs__(self) -> Expression:
        return self.graph.node("abs", (self,))

    def __lt__(self, other: Any) -> Expression:
        return self._binary("lt", self, other)

    def __le__(self, other: Any) -> Expression:
        return self._binary("le", self, other)

    def __gt__(self, other: Any) -> Expression:
        return self._binary("lt", other, self)

    def __ge__(self, other: Any) -> Expression:
        return self._binary("le", other, self)

    def __and__(self, other: Expression) -> Expression:
        return self.graph.node("and", (self, other))

    def __or__(self, other: Expression) -> Expression:
        return self.graph.node("or", (self, other))

    def __bool__(self) -> bool:
        raise TypeError(
            "equations are traced and must not branch on a value: use elementwise.where, or & and "
            "| between comparisons, instead of if, and, or, min, max"
        )

    @property
    def elementwise(self) -> _Functions:
        """The elementary functions on expressions (how `physgym.elementwise` finds them)."""
        return _Functions(self.graph)


class _Functions:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def _call(self, op: str, *args: Any) -> Expression:
        return self._graph.node(
            op, tuple(x if isinstance(x, Expression) else float(x) for x in args)
        )

    def sin(self, x: Any) -> Expression:
        return self._call("sin", x)

    def cos(self, x: Any) -> Expression:
        return self._call("cos", x)

    def sqrt(self, x: Any) -> Expression:
        return self._call("sqrt", x)

    def rint(self, x: Any) -> Expression:
        return self._call("rint", x)

    def ceil(self, x: Any) -> Expression:
        return self._call("ceil", x)

    def minimum(self, a: Any, b: Any) -> Expression:
        return self._call("minimum", a, b)

    def maximum(self, a: Any, b: Any) -> Expression:
        return self._call("maximum", a, b)

    def where(self, condition: Expression, a: Any, b: Any) -> Expression:
        return self._call("where", condition, a, b)


def needed(outputs: Iterable[Any], known: Container[int] = ()) -> list[Expression]:
    """All nodes that `outputs` depend on, operands first, without those `known` (by order) and what
    is behind them.
    """
    found: dict[int, Expression] = {}
    stack = [x for x in outputs if isinstance(x, Expression)]
    while stack:
        node = stack.pop()
        if node.order not in found and node.order not in known:
            found[node.order] = node
            stack.extend(a for a in node.args if isinstance(a, Expression))
    return [found[i] for i in sorted(found)]


class Printer:
    """Prints nodes as Python assignments, each node once; single uses inside a region are written
    in place.
    """

    def __init__(self, outputs: Sequence[Any], floats: bool) -> None:
        self._floats = floats
        self._text: dict[int, str] = {}
        self._uses: dict[int, list[int]] = {}
        for node in needed(outputs):
            for a in node.args:
                if isinstance(a, Expression):
                    self._uses.setdefault(a.order, []).append(node.level)
        self._roots = {x.order for x in outputs if isinstance(x, Expression)}

    def text(self, x: Any) -> str:
        """How `x`, printed before or a number, is referred to."""
        return self._text[x.order] if isinstance(x, Expression) else f"({x!r})"

    def bind(self, node: Expression, name: str) -> None:
        """Refer to `node` by `name` from now on."""
        self._text[node.order] = name

    def lines(self, outputs: Iterable[Any], level: int) -> list[str]:
        """Assignments for what `outputs` still miss among nodes of up to `level`."""
        lines = []
        for node in needed(outputs, self._text):
            if node.level > level:
                continue
            if node.op == "symbol":
                self._text[node.order] = node.args[0]
                continue
            text = self._operation(node)
            uses = self._uses.get(node.order, [])
            inline = len(uses) == 1 and uses[0] == node.level and node.order not in self._roots
            if inline and len(text) < 400 and node.op not in ("minimum", "maximum", "where"):
                self._text[node.order] = text
            else:
                name = f"t{node.order}"
                lines.append(f"{name} = {text}")
                self._text[node.order] = name
        return lines

    def _operation(self, node: Expression) -> str:
        args = [self.text(a) for a in node.args]
        if node.op in _SYMBOLS:
            return f"({args[0]} {_SYMBOLS[node.op]} {args[1]})"
        if node.op == "neg":
            return f"(-{args[0]})"
        if not self._floats or node.op in ("abs", "sin", "cos", "sqrt", "ceil"):
            return f"{node.op}({', '.join(args)})"
        if node.op == "rint":
            return f"float(round({args[0]}))"
        a, b = args[-2], args[-1]
        if node.op == "where":
            return f"({a} if {args[0]} else {b})"
        return f"({a} if {a} {'<' if node.op == 'minimum' else '>'} {b} else {b})"
