"""Conditions as pandas users write them, ``(households.NP >= 4) & (households.WGTP < np.inf)``: read, never evaluated.

Python's own parser makes the tree; what is walked here is a short list of nodes, each of which is one operation on
columns. Anything else is refused by name.
"""

import ast
import operator

import numpy as np

_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_JOIN = {
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_TURN = {ast.Invert: operator.invert, ast.USub: operator.neg, ast.UAdd: operator.pos}
_METHODS = ("isna", "notna", "isnull", "notnull", "isin", "between")
_CONSTANTS = {("np", "inf"): np.inf, ("np", "nan"): np.nan, ("numpy", "inf"): np.inf}


class ExpressionError(ValueError):
    """An expression outside the list. The message names what came and where."""


def evaluate(text: str, tables: dict) -> object:
    """The value of an expression on DataFrames, by their names in it: a Series, or a number.

    Known: ``table.column`` and ``table["column"]``, numbers, text, ``np.inf``, comparisons, ``& | ~``, ``+ - * /`` and
    the methods isna, notna, isin and between of a column.

    Raises:
        ExpressionError: anything else, or an unknown table or column.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"expression: expected a condition on columns, got {text!r} ({error})") from None
    try:
        return _Walk(tables, text).value(tree)
    except RecursionError:
        raise ExpressionError(f"expression: too deeply nested: {text[:60]!r} ...") from None


class _Walk:
    def __init__(self, tables: dict, text: str):
        self.tables, self.text = tables, text

    def fail(self, node: ast.AST, expected: str):
        came = ast.get_source_segment(self.text.strip(), node) or type(node).__name__
        raise ExpressionError(f"expression: expected {expected}, got {came!r} in {self.text!r}")

    def value(self, node: ast.AST):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool):
            return node.value
        if isinstance(node, ast.Compare):
            if len(node.ops) > 1:
                self.fail(node, "one comparison at a time, joined by &")
            if type(node.ops[0]) in _COMPARE:
                return self.compared(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _JOIN:
            return self.computed(node, _JOIN[type(node.op)], self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _TURN:
            return self.computed(node, _TURN[type(node.op)], self.value(node.operand))
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return self.column(node, node.value, node.slice.value)
        if isinstance(node, ast.Call):
            return self.called(node)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self.value(element) for element in node.elts]
        return self.fail(node, "a column, a number, a text, a comparison, & | ~ + - * / or isna, isin, between")

    def compared(self, node: ast.Compare):
        left, right = self.value(node.left), self.value(node.comparators[0])
        return self.computed(node, _COMPARE[type(node.ops[0])], left, right)

    def computed(self, node: ast.AST, work, *operands):
        try:
            return work(*operands)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            return self.fail(node, f"operands that go together ({error})")

    def attribute(self, node: ast.Attribute):
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) in _CONSTANTS:
            return _CONSTANTS[node.value.id, node.attr]
        return self.column(node, node.value, node.attr)

    def column(self, node: ast.AST, table: ast.AST, name):
        if not isinstance(table, ast.Name) or table.id not in self.tables:
            self.fail(node, f"a column of {' or '.join(self.tables)}")
        frame = self.tables[table.id]
        if name not in frame.columns:
            self.fail(node, f"one of the columns of {table.id} ({', '.join(map(str, list(frame.columns)[:8]))} ...)")
        return frame[name]

    def called(self, node: ast.Call):
        method = node.func
        if not isinstance(method, ast.Attribute) or method.attr not in _METHODS or node.keywords:
            self.fail(node, f"one of the methods {', '.join(_METHODS)} of a column")
        column = self.value(method.value)
        if not hasattr(column, "isin"):
            self.fail(node, "a method of a column")
        arguments = [self.value(argument) for argument in node.args]
        return self.computed(node, getattr(column, method.attr), *arguments)
