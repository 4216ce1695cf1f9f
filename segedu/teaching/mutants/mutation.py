"""Machine mutants: every change of one operator, number, axis, bound, call or statement.

Existing libraries (cosmic-ray, mutmut, mutatest) change files on disk and run a test command for each change, which
takes seconds, and do not know axes, keepdim, broadcast positions, slices, or calls such as `.clamp()` that keep a
shape. Here a change is made in memory, in a copy of the namespaces, so that thousands run within minutes.

Some code is not changed, because no answer could show the change or the statement does not require it: docstrings, type
hints, decorators, texts, error messages, `assert`, guards, and code that no case runs. A guard is an `if` whose body
ends in `raise`, or a call, as a statement of its own, of a function that only raises; it is changed only if a case
makes it raise. A library's function has options that an exercise does not offer, so code that never runs is left
alone. The `if` that skips such code is changed, so a missing case still shows: the `if` can be dropped.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Path = tuple[tuple[str, int | None], ...]
Rule = Callable[[ast.AST, list[ast.AST]], Iterator[ast.AST]]

OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Mod: (ast.FloorDiv, ast.Mult),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr, ast.BitXor),
    ast.BitOr: (ast.BitAnd, ast.BitXor),
    ast.BitXor: (ast.BitAnd, ast.BitOr),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_PAIRS = """min max, minimum maximum, amin amax, fmin fmax, sum mean, nansum nanmean, argmax argmin, any all,
zeros ones, zeros_like ones_like, floor ceil, logical_and logical_or, cumsum cumprod, cummax cummin,
softmax log_softmax, max_pool2d avg_pool2d, MaxPool2d AvgPool2d,
adaptive_avg_pool2d adaptive_max_pool2d, binary_dilation binary_erosion,
bilinear nearest, left right, constant edge, hstack vstack, row_stack column_stack, flipud fliplr, append extend"""
SWAPPED = {a: b for pair in _PAIRS.split(",") for a, b in (pair.split(), pair.split()[::-1])}
SWAPPED |= {"round": "floor", "prod": "sum", "ReLU": "Identity", "BatchNorm2d": "Identity", "sigmoid": "tanh"}
# Calls that can be dropped: `x.clamp(min=0)` and `torch.sqrt(x)` become `x`.
DROPPED_CALLS = frozenset(
    """clamp clamp_min clamp_max clip float double long int bool abs sqrt exp log log1p log2 relu sigmoid softmax
    log_softmax tanh round floor ceil nan_to_num astype flip roll square neg cumsum cumprod transpose permute t mT
    masked_fill squeeze unsqueeze sorted reversed sort type_as as_tensor tensor item tolist logical_not normalize
    clone copy pad dropout batch_norm cummax list set unique flatten reshape expand""".split()
)
COMMUTATIVE = {"min", "max", "minimum", "maximum", "add", "isclose", "logical_and", "logical_or", "equal", "isinstance"}
# Keywords whose value no answer shows: a check of our own loops, a device.
SILENT = {"strict", "device", "stacklevel"}


def _operators(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield from (_copy_with(node, op=new()) for new in OPERATORS.get(type(node.op), ()))
    if isinstance(node, ast.AugAssign):
        target = _copy_with(node.target, ctx=ast.Store())
        yield ast.Assign([target], copy.deepcopy(node.value))
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield from (_copy_with(node, ops=[*node.ops[:i], new(), *node.ops[i + 1 :]]) for new in OPERATORS[type(op)])
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand


def _terms(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Keep one side of a sum, a product, an `and`, a maximum, a conditional expression."""
    if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.MatMult):
        yield from (node.left, node.right)
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            rest = node.values[:i] + node.values[i + 1 :]
            yield _copy_with(node, values=rest) if len(rest) > 1 else rest[0]
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    if isinstance(node, ast.Call) and _called(node) in ("min", "max", "minimum", "maximum") and len(node.args) == 2:
        if not isinstance(node.args[1], ast.Constant) or not isinstance(node.func, ast.Attribute):
            yield from node.args
    if isinstance(node, ast.comprehension) and node.ifs:
        yield _copy_with(node, ifs=[])


def _numbers(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = -node.operand.value
    elif isinstance(node, ast.Constant) and not _is_minus(parents[-1]):
        value = node.value
    else:
        return
    if any(isinstance(p, ast.Call) and _called(p) in ("permute", "transpose") for p in parents[-2:]):
        return  # a repeated axis is an error for every input
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        # 2 and -2 are often the same axis or bound, so an index is not negated
        others = dict.fromkeys((value + 1, value - 1, 0, *(() if _is_index(parents) else (-value,))))
        yield from (_number(other) for other in others if other != value)
    elif isinstance(value, float):
        yield from (_number(other) for other in ((value * 2, -value) if value else (1.0,)))


def _axes(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Permute axes, drop one axis, or insert a new axis elsewhere."""
    if isinstance(node, ast.Call) and _called(node) == "permute":
        yield from (_copy_with(node, args=args) for args in _neighbours_swapped(node.args))
    if isinstance(node, ast.keyword) and node.arg in ("dim", "axis") and isinstance(node.value, ast.Tuple):
        for i in range(len(node.value.elts)):
            yield _copy_with(node, value=ast.Tuple(node.value.elts[:i] + node.value.elts[i + 1 :], ast.Load()))
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        elements = node.slice.elts
        if any(isinstance(e, ast.Constant) and e.value is None for e in elements):
            for swapped in _neighbours_swapped(elements):
                yield _copy_with(node, slice=ast.Tuple(swapped, ast.Load()))
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT", "H"):
        yield node.value


def _names(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Swap min and max, sum and mean; only if the name is called or passed on, never a variable of that name."""
    if isinstance(node, ast.Attribute) and node.attr in SWAPPED and isinstance(node.ctx, ast.Load):
        yield _copy_with(node, attr=SWAPPED[node.attr])
    if isinstance(node, ast.Name) and node.id in ("min", "max", "any", "all", "sum") and isinstance(node.ctx, ast.Load):
        yield _copy_with(node, id={**SWAPPED, "sum": "max"}[node.id])
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and isinstance(parents[-1], ast.keyword):
        if node.value in SWAPPED:
            yield ast.Constant(SWAPPED[node.value])


def _calls(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Drop a call or a keyword, or swap two arguments."""
    if not isinstance(node, ast.Call):
        return
    name = _called(node)
    plain_args = not any(isinstance(a, ast.Starred) for a in node.args)
    if name in DROPPED_CALLS:
        # a module's function keeps its first argument, a method its object
        of_module = isinstance(node.func, ast.Name) or ast.unparse(node.func.value) in ("torch", "np", "math", "F")
        if not of_module:
            yield node.func.value
        elif node.args and plain_args:
            yield node.args[0]
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in SILENT and not isinstance(getattr(keyword.value, "value", None), bool):
            yield _copy_with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    if name == "where" and len(node.args) == 3:
        yield _copy_with(node, args=[node.args[0], node.args[2], node.args[1]])
    elif name not in COMMUTATIVE and len(node.args) > 1 and plain_args:
        first, second, *rest = node.args
        if not isinstance(first, ast.Constant) and not isinstance(second, ast.Constant):
            yield _copy_with(node, args=[second, first, *rest])


def _slices(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Drop a bound or shift it by one; negate an index or a mask."""
    if isinstance(node, ast.Slice):
        for field in ("lower", "upper", "step"):
            bound = getattr(node, field)
            if bound is not None:
                yield _copy_with(node, **{field: None})
            if isinstance(bound, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
                yield _copy_with(node, **{field: ast.BinOp(bound, ast.Add(), ast.Constant(1))})
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name) and not _is_hint(node, parents):
        yield _copy_with(node, slice=ast.UnaryOp(ast.Invert(), node.slice))


def _conditions(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            yield _copy_with(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.If):
        yield _copy_with(node, test=ast.Constant(True))
        if node.orelse:
            yield _copy_with(node, test=ast.Constant(False))


def _statements(node: ast.AST, parents: list[ast.AST]) -> Iterator[ast.AST]:
    """Drop a statement if the rest can still run."""
    lost = isinstance(node, ast.AugAssign | ast.For | ast.While | ast.Continue)
    lost |= isinstance(node, ast.If) and not node.orelse
    lost |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "super()" not in ast.unparse(node)
    if isinstance(node, ast.Assign):
        target, function = node.targets[0], next((p for p in reversed(parents) if isinstance(p, ast.FunctionDef)), None)
        lost |= isinstance(target, ast.Subscript) or (isinstance(target, ast.Name) and _has_value(target, function))
    if lost:
        yield ast.Pass()
    if isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


RULES: list[Rule] = [_operators, _terms, _numbers, _axes, _names, _calls, _slices, _conditions, _statements]


def _copy_with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _number(value: float) -> ast.AST:
    return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


def _is_index(parents: list[ast.AST]) -> bool:
    """Whether a number is an index, a bound or an axis."""
    near = [p for p in parents[-2:] if not isinstance(p, ast.Tuple)]
    axis = any(isinstance(p, ast.keyword) and p.arg in ("dim", "axis", "dims") for p in near)
    return axis or isinstance(near[-1] if near else None, ast.Slice | ast.Subscript)


def _is_minus(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _is_hint(node: ast.Subscript, parents: list[ast.AST]) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("dict", "list", "tuple", "set", "type")


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", None) or getattr(node.func, "id", "")


def _neighbours_swapped(items: list) -> Iterator[list]:
    for i in range(len(items) - 1):
        if ast.dump(items[i]) != ast.dump(items[i + 1]):
            yield [*items[:i], items[i + 1], items[i], *items[i + 2 :]]


def _has_value(target: ast.Name, function: ast.FunctionDef | None) -> bool:
    """Whether the name already has a value at the statement: an argument, or assigned above."""
    if function is None:
        return False
    if target.id in {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}:
        return True
    stores = (n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return any(n.id == target.id and (n.lineno, n.col_offset) < (target.lineno, target.col_offset) for n in stores)


@dataclass(frozen=True)
class Mutant:
    """One change of one definition.

    Attributes:
        name: the definition, the old and the new code; the second of equal names ends in "(2)".
        unit: key of the definition in `segedu.teaching.mutants.units.Units`.
        tree: the changed definition.
        line: of the change, in its file.
    """

    name: str
    unit: tuple[str, str]
    tree: ast.stmt
    line: int


def sites(root: ast.AST, skip: Callable[[ast.AST], bool]) -> Iterator[tuple[Path, ast.AST, list[ast.AST]]]:
    """Walk a definition without the parts that are never changed.

    Args:
        root: a function, a class or an assignment.
        skip: tells which nodes are skipped, with everything inside.

    Yields:
        Path from the root, node, its parents from the root down.
    """

    def walk(node: ast.AST, path: Path, parents: list[ast.AST]) -> Iterator:
        yield path, node, parents
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params", "ctx"):
                continue
            items = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, child in items:
                if isinstance(child, ast.AST) and not _is_excluded(child, node, field) and not skip(child):
                    yield from walk(child, (*path, (field, index)), [*parents, node])

    yield from walk(root, (), [])


def _is_excluded(child: ast.AST, node: ast.AST, field: str) -> bool:
    text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
    silent = isinstance(child, ast.keyword) and child.arg in SILENT
    message = field == "body" and ends_in_raise(node)
    nothing = isinstance(child, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom)
    return text or silent or message or nothing


def ends_in_raise(node: ast.AST) -> bool:
    """Whether a statement is a guard: an `if` without `else` whose body ends in `raise`."""
    return isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise)


def mutants_of(unit: tuple[str, str], root: ast.stmt, skip: Callable[[ast.AST], bool]) -> list[Mutant]:
    """Make all mutants of a definition; for `skip` see `sites`.

    Returns:
        The mutants in the order of the source; no two are equal, and none equals the original.
    """
    seen, names, mutants = {ast.dump(root)}, {}, []
    for path, node, parents in sites(root, skip):
        for rule in RULES if parents else ():
            for new in rule(node, parents):
                tree = replaced(root, path, new)
                if (key := ast.dump(tree)) in seen:
                    continue
                seen.add(key)
                owner = ".".join(p.name for p in (*parents, node) if isinstance(p, ast.FunctionDef | ast.ClassDef))
                name = f"{owner or unit[1]}: {_describe(root, tree, path, parents)}"
                names[name] = names.get(name, 0) + 1
                name += f" ({names[name]})" if names[name] > 1 else ""
                line = getattr(node, "lineno", None) or next(p.lineno for p in parents[::-1] if hasattr(p, "lineno"))
                mutants.append(Mutant(name, unit, tree, line))
    return mutants


def replaced(root: ast.stmt, path: Path, new: ast.AST) -> ast.stmt:
    """Copy a definition with another node at one path, from `sites`."""
    tree = copy.deepcopy(root)
    parent = _at(tree, path[:-1])
    field, index = path[-1]
    if index is None:
        setattr(parent, field, copy.deepcopy(new))
    else:
        getattr(parent, field)[index] = copy.deepcopy(new)
    return ast.fix_missing_locations(tree)


def _at(tree: ast.AST, path: Path) -> ast.AST:
    for field, index in path:
        tree = getattr(tree, field) if index is None else getattr(tree, field)[index]
    return tree


def _describe(root: ast.stmt, tree: ast.stmt, path: Path, parents: list[ast.AST]) -> str:
    """Describe a change by the code before and after, with enough context for a reader to locate it."""
    if isinstance(parents[-1], ast.arguments):
        name = _argument(parents[-1], *path[-1])
        return " -> ".join(f"{name}={ast.unparse(_at(t, path))}" for t in (root, tree))
    for length in range(len(path), -1, -1):
        before, after = (_text(_at(t, path[:length])) for t in (root, tree))
        if len(before) >= 8 or isinstance(_at(root, path[:length]), ast.stmt):
            break
    return f"{before} dropped" if after == "pass" else f"{before} -> {after}"


def _argument(arguments: ast.arguments, field: str, index: int) -> str:
    """The name of the argument that a default belongs to."""
    if field == "kw_defaults":
        return arguments.kwonlyargs[index].arg
    return [*arguments.posonlyargs, *arguments.args][index - len(arguments.defaults)].arg


def _text(node: ast.AST) -> str:
    return ast.unparse(node).strip().partition("\n")[0]
