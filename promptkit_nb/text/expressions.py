"""Evaluates ``{{ expressions }}``: names, attributes, items, and calls that only read.

A call is allowed if the exact type of its object and the method are listed in ``METHODS``, or if it calls one of
``BUILTINS``. Subclasses may override methods, so they are not allowed. Methods are not listed if they take the name of
another method as text (``agg``, ``apply``), evaluate text (``query``), change their object, or write files.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import defaultdict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path, PosixPath, WindowsPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAME = (
    "head(n) tail(n) describe(; include exclude percentiles) count(; axis numeric_only) sum(; axis numeric_only) "
    "mean(; axis numeric_only) median(; axis numeric_only) min(; axis numeric_only) max(; axis numeric_only) "
    "std(; axis ddof numeric_only) var(; axis ddof numeric_only) sem() skew() kurt() prod() nunique(; axis dropna) "
    "quantile(q) any(; axis) all(; axis) abs() round(decimals) cumsum() diff(periods) pct_change() shift(periods) "
    "rank(; ascending) isna() notna() duplicated(; keep) drop_duplicates(; keep) fillna(value) "
    "isin(values) idxmin() idxmax() mode() clip(lower upper) reset_index(; drop) sort_index(; ascending) "
    "to_numpy() to_dict() copy() unstack(level) groupby(by; level sort dropna observed) rolling(window; min_periods "
    "center) expanding() resample(rule) equals(other)"
)
_GROUPED = (
    "sum(; numeric_only) mean(; numeric_only) median(; numeric_only) min(; numeric_only) max(; numeric_only) count() "
    "size() std(; ddof numeric_only) var(; ddof numeric_only) first() last() nunique() describe() head(n) tail(n) "
    "quantile(q) prod() cumsum() cumcount() ngroup() any() all() idxmin() idxmax()"
)
_ROLLED = "sum() mean() median() min() max() count() std() var() quantile(q)"

METHODS = {
    "pandas.DataFrame": _SAME
    + " dropna(; axis how subset) duplicated(; subset keep) drop_duplicates(; subset keep) nlargest(n columns) "
    "nsmallest(n columns) sort_values(by; ascending) set_index(keys) "
    "value_counts(; subset normalize dropna ascending) corr() cov() transpose() drop(labels; columns index axis) "
    "select_dtypes(include; exclude) memory_usage(; deep) pivot(; index columns values)",
    "pandas.Series": _SAME.replace("nunique(; axis dropna)", "nunique(; dropna)")
    + " dropna() nlargest(n) nsmallest(n) sort_values(; ascending) value_counts(; normalize dropna ascending bins) "
    "unique() between(left right) to_frame(name) tolist() corr(other) get(key)",
    "pandas.Index": "unique() nunique() min() max() tolist() value_counts() sort_values() isna() duplicated()",
    "pandas.RangeIndex": "unique() nunique() min() max() tolist()",
    "pandas.DatetimeIndex": "unique() nunique() min() max() tolist() day_name() month_name() strftime(date_format)",
    "pandas.Timestamp": "strftime(format) isoformat() day_name() month_name() date() time()",
    "pandas.Timedelta": "total_seconds() isoformat()",
    "pandas.DataFrameGroupBy": _GROUPED + " corr() value_counts()",
    "pandas.SeriesGroupBy": _GROUPED + " nlargest(n) nsmallest(n) unique() value_counts()",
    "pandas.Rolling": _ROLLED,
    "pandas.Expanding": _ROLLED,
    "pandas.DatetimeIndexResampler": _ROLLED + " size() first() last() nunique()",
    "pandas.StringMethods": "upper() lower() title() strip() len() count(pat) "
    "contains(pat; case na regex) startswith(pat) endswith(pat)",
    "pandas.DatetimeProperties": "day_name() month_name() strftime(date_format) normalize()",
    "numpy.ndarray": "sum(axis) mean(axis) std(axis; ddof) var(axis; ddof) min(axis) max(axis) argmin(axis) "
    "argmax(axis) "
    "prod(axis) cumsum(axis) any(axis) all(axis) round(decimals) tolist() item() ravel() flatten() transpose() trace()",
    "datetime.datetime": "strftime(format) isoformat() date() time()",
    "datetime.date": "strftime(format) isoformat()",
    "builtins.str": "upper() lower() title() strip()",
    "builtins.dict": "keys() values() items() get(key default)",
}
METHODS["promptkit_nb.TextFrame"] = METHODS["pandas.DataFrame"]  # what our views return
METHODS["promptkit_nb.UsageTable"] = METHODS["pandas.DataFrame"]  # what %chat_usage returns
"""The allowed methods by exact type; parameters after the semicolon can only be given by name."""

BUILTINS = {"len": 1, "sum": 1, "min": 1, "max": 1, "sorted": 1, "round": 2, "abs": 1, "any": 1, "all": 1}
"""The allowed built-in functions, and their maximum number of arguments."""

_ATOMS = (str, int, float, complex, bool, type(None), bytes, Decimal, date, datetime, time, timedelta)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_PATHS = (Path, PosixPath, WindowsPath)
_DATA_MODULES = ("pandas", "numpy", "promptkit_nb")
_DEEPEST = 20


class NotAllowedError(Exception):
    """The expression is not allowed; the text of the error says why."""


class FailedError(Exception):
    """Evaluating the expression raised an exception, which is the cause of this error."""


class UnknownNameError(Exception):
    """A name is not defined in the notebook; the text of the error is the name."""


def evaluate(node: ast.expr, namespace: Mapping[str, object]) -> Any:
    """Return the value of an expression.

    Raises ``UnknownNameError`` for an undefined name, ``NotAllowedError`` for a call that is not listed, without making
    it, and ``FailedError`` if an attribute, an item, or a call fails.
    """
    if isinstance(node, ast.Name):
        if node.id in namespace:
            return namespace[node.id]
        raise UnknownNameError(node.id)
    if isinstance(node, ast.Attribute):
        return _attribute(evaluate(node.value, namespace), node.attr)
    if isinstance(node, ast.Subscript):
        key = _item(node.slice)
        return _tried(_get_item, evaluate(node.value, namespace), key)
    if isinstance(node, ast.Call):
        return _call(node, namespace)
    raise NotAllowedError("is a computation, and computations are not allowed here")


def check(node: ast.expr) -> bool:
    """Return whether the source is an expression that begins with a name; raise if it can never be allowed."""
    if isinstance(node, ast.Name):
        return True
    if isinstance(node, ast.Attribute):
        known = check(node.value)
        if known and node.attr.startswith("_"):
            raise NotAllowedError(f"reads the private attribute {node.attr}")
        return known
    if isinstance(node, ast.Subscript):
        known = check(node.value)
        if known:
            _item(node.slice)
        return known
    if isinstance(node, ast.Call):
        known = check(node.func)
        for each in [*node.args, *(keyword.value for keyword in node.keywords)] if known else []:
            if not _is_literal(each) and not check(each):
                raise NotAllowedError(f"has the argument {ast.unparse(each)}, which is not a value or a name")
        if any(keyword.arg is None for keyword in node.keywords):
            raise NotAllowedError("has a ** argument")
        return known
    return False


def _attribute(value: Any, name: str) -> Any:
    if name.startswith("_"):
        raise NotAllowedError(f"reads the private attribute {name}")
    if isinstance(value, ModuleType):  # a module's __getattr__ may import
        if name not in vars(value):
            raise FailedError from AttributeError(f"module {value.__name__!r} has no attribute {name!r}")
        return vars(value)[name]
    return _tried(getattr, value, name)


def _get_item(value: Any, key: object) -> Any:
    if isinstance(value, defaultdict) and key not in value:  # it would grow
        raise KeyError(key)
    return value[key]


def _call(node: ast.Call, namespace: Mapping[str, object]) -> Any:
    keywords = {str(keyword.arg): keyword.value for keyword in node.keywords}
    if isinstance(node.func, ast.Attribute):
        owner = evaluate(node.func.value, namespace)
        name = node.func.attr
        _check_method(owner, name, len(node.args), keywords)
        called = partial(getattr(type(owner), name), owner)  # not an attribute of the instance
    elif isinstance(node.func, ast.Name):
        called = _function(node.func.id, namespace, len(node.args), keywords)
    else:
        raise NotAllowedError("is a call, and only methods and a few functions can be called here")
    if called is len:
        return _tried(len, _sized(node.args[0], namespace))
    arguments = [_argument(each, namespace) for each in node.args]
    return _tried(called, *arguments, **{name: _argument(each, namespace) for name, each in keywords.items()})


def _check_method(owner: Any, name: str, count: int, keywords: Mapping[str, object]) -> None:
    kind = type(owner)
    listed = _parameters(METHODS.get(_name_of(kind), "")).get(name)
    if listed is None:
        raise NotAllowedError(f"calls {kind.__name__}.{name}(), which is not one of the calls that are allowed here")
    by_position, by_name = listed
    wrong = [word for word in keywords if word not in by_position + by_name]
    if count > len(by_position) or wrong:
        what = f"the argument {wrong[0]}=" if wrong else f"{count} arguments without a name"
        raise NotAllowedError(f"calls {kind.__name__}.{name}() with {what}, which is not allowed here")


def _function(name: str, namespace: Mapping[str, object], count: int, keywords: Mapping[str, object]) -> Any:
    if name == "Path" and namespace.get(name, Path) is Path and count == 1 and not keywords:
        return Path
    known = name in namespace or hasattr(builtins, name)
    if not known:
        raise UnknownNameError(name)
    if name not in BUILTINS or namespace.get(name, getattr(builtins, name)) is not getattr(builtins, name):
        raise NotAllowedError(f"calls {name}(), which is not one of the calls that are allowed here")
    if not 1 <= count <= BUILTINS[name] or keywords:
        raise NotAllowedError(f"calls {name}() with arguments that are not allowed here")
    return getattr(builtins, name)


def _argument(node: ast.expr, namespace: Mapping[str, object]) -> Any:
    value = ast.literal_eval(node) if _is_literal(node) else evaluate(node, namespace)
    if not _is_data(value):
        raise NotAllowedError(f"has the argument {ast.unparse(node)}, which is not plain data")
    return value


def _sized(node: ast.expr, namespace: Mapping[str, object]) -> Any:
    """Return the argument of ``len``, a container of anything."""
    value = ast.literal_eval(node) if _is_literal(node) else evaluate(node, namespace)
    if type(value) not in _CONTAINERS and not _is_data(value):
        raise NotAllowedError(f"has the argument {ast.unparse(node)}, which is not plain data")
    return value


def _is_data(value: Any, depth: int = 0) -> bool:
    """Return whether a value is plain data, which does not run code, unlike functions and iterators."""
    kind = type(value)
    if kind in _CONTAINERS:
        items = [*value.keys(), *value.values()] if kind is dict else value
        return depth < _DEEPEST and all(_is_data(each, depth + 1) for each in items)
    return kind in _ATOMS or kind in _PATHS or kind is range or _is_frame_or_array(kind)


def _is_frame_or_array(kind: type) -> bool:
    is_listed = _name_of(kind) in METHODS and kind.__module__.partition(".")[0] in _DATA_MODULES
    numpy = sys.modules.get("numpy")
    return is_listed or (kind.__module__ == "numpy" and numpy is not None and issubclass(kind, numpy.generic))


def _name_of(kind: type) -> str:
    """Return the package and name of a type; ``""`` for a class that only claims to be from that package."""
    if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        return ""
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _parameters(listed: str) -> dict[str, tuple[list[str], list[str]]]:
    """Return the parameters of each method: those that can be positional, and those that are keyword-only."""
    methods = {}
    for each in listed.split(")"):
        name, _, parameters = each.strip().partition("(")
        by_position, _, by_name = parameters.partition(";")
        methods[name] = by_position.split(), by_name.split()
    methods.pop("", None)
    return methods


def _item(node: ast.expr) -> object:
    """Return a literal index, slice, or tuple of them; raise ``NotAllowedError`` for anything else."""
    if isinstance(node, ast.Slice):
        bounds = (node.lower, node.upper, node.step)
        return slice(*(None if bound is None else _item(bound) for bound in bounds))
    if isinstance(node, ast.Tuple):
        return tuple(map(_item, node.elts))
    if not _is_literal(node):
        raise NotAllowedError(f"uses the index [{ast.unparse(node)}], which is not a literal")
    return ast.literal_eval(node)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _tried(function: Any, *arguments: Any, **keywords: Any) -> Any:
    try:
        return function(*arguments, **keywords)
    except Exception as error:  # a property or a method may fail with anything
        raise FailedError from error
