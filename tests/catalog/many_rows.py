"""What a module's source says of statements that change or delete many rows: whether each names its site itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

THIS_SITE = frozenset({"catalog.site", "unit.info['site']"})
_CHANGES = ("update", "delete")


@dataclass(frozen=True)
class Change:
    """One statement: the function or the constant that it stands in, and whether its own WHERE demands this site."""

    name: str
    names_site: bool


class Source:
    """A module as it is written."""

    def __init__(self, text: str) -> None:
        self._tree = ast.parse(text)
        self._parents = {child: node for node in ast.walk(self._tree) for child in ast.iter_child_nodes(node)}
        self._aliases = {
            alias.asname or alias.name
            for node in ast.walk(self._tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
            for alias in node.names
            if alias.name in _CHANGES
        }

    def changes(self) -> Iterator[Change]:
        """Every statement that changes or deletes many rows."""
        for top in self._tree.body:
            for node in ast.walk(top):
                if isinstance(node, ast.Call) and self._is_change(node):
                    table = ast.unparse(node.args[0]) if node.args else ""
                    terms = [term for given in self._wheres(node) for term in self._terms(given, top)]
                    yield Change(_name(top), any(self._demands_site(term, table) for term in terms))

    def users(self, name: str) -> set[str]:
        """The functions and constants that use that one."""
        return {
            _name(top)
            for top in self._tree.body
            for node in ast.walk(top)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == name
        }

    def of(self, name: str) -> str:
        """The source of a function, in ast's own spelling."""
        return ast.unparse(self._function(name))

    def _is_change(self, call: ast.Call) -> bool:
        if isinstance(call.func, ast.Name):
            return call.func.id in self._aliases
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in _CHANGES:
            return False
        of = ast.unparse(call.func.value)
        return of in ("sa", "sqlalchemy", "sql") or "__table__" in of or ".query(" in of

    def _wheres(self, node: ast.expr) -> Iterator[ast.expr]:
        """What is given to each `where` that follows a call in the same expression."""
        inner: ast.AST = node
        while True:
            attribute = self._parents.get(inner)
            call = self._parents.get(attribute) if attribute is not None else None
            if not isinstance(attribute, ast.Attribute) or not isinstance(call, ast.Call) or call.func is not attribute:
                return
            if attribute.attr == "where":
                yield from call.args
            inner = call

    def _terms(self, given: ast.expr, top: ast.stmt) -> list[ast.expr]:
        """The conditions that a `where` gets, all of which must hold; of a starred tuple, its members."""
        if not isinstance(given, ast.Starred):
            return [given]
        if isinstance(given.value, ast.Name):
            found = [
                node.value
                for node in ast.walk(top)
                if isinstance(node, ast.Assign)
                and [ast.unparse(to) for to in node.targets] == [given.value.id]
                and isinstance(node.value, ast.Tuple)
            ]
            return found[0].elts if len(found) == 1 else []
        if isinstance(given.value, ast.Call) and isinstance(given.value.func, ast.Name):
            return self._returned(given.value, given.value.func.id)
        return []

    def _returned(self, call: ast.Call, name: str) -> list[ast.expr]:
        """The members of the tuple that a function of this module returns, with what it is given in their place."""
        function = self._function(name)
        last = function.body[-1]
        if not isinstance(last, ast.Return) or not isinstance(last.value, ast.Tuple):
            return []
        given = dict(zip((each.arg for each in function.args.args), call.args, strict=False))
        return [_Put(given).visit(ast.parse(ast.unparse(term), mode="eval").body) for term in last.value.elts]

    def _function(self, name: str) -> ast.FunctionDef:
        (found,) = (node for node in self._tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        return found

    def _demands_site(self, term: ast.expr, table: str) -> bool:
        if not isinstance(term, ast.Compare) or [type(op) for op in term.ops] != [ast.Eq]:
            return False
        right = term.comparators[0]
        return ast.unparse(term.left) == f"{table}.site" and (ast.unparse(right) in THIS_SITE or self._is_bound(right))

    def _is_bound(self, right: ast.expr) -> bool:
        """Whether it is a parameter under whose name this module never gives anything but this site."""
        if not isinstance(right, ast.Call) or ast.unparse(right.func) != "bindparam":
            return False
        name = ast.unparse(right.args[0])
        given = [
            ast.unparse(value)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Dict)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None and ast.unparse(key) == name
        ]
        return bool(given) and set(given) <= THIS_SITE


class _Put(ast.NodeTransformer):
    def __init__(self, given: dict[str, ast.expr]) -> None:
        self._given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """What is given for a parameter."""
        return self._given.get(node.id, node)


def _name(top: ast.stmt) -> str:
    if isinstance(top, ast.Assign):
        return ast.unparse(top.targets[0])
    if isinstance(top, ast.AnnAssign):
        return ast.unparse(top.target)
    return str(getattr(top, "name", ast.unparse(top)))
