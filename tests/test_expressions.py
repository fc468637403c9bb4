"""Which ``{{ expressions }}`` are evaluated, which are refused, and that a refused one does nothing."""

from __future__ import annotations

import inspect
import math
import os
import sys
import types
from collections import defaultdict
from datetime import date, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from promptkit_nb import InvalidArgumentError, MemoryStore, usage_df
from promptkit_nb.text.cell_text import fill
from promptkit_nb.text.expressions import METHODS, _name_of, _parameters
from promptkit_nb.text.text_frame import TextFrame
from promptkit_nb.views.usage_table import UsageTable

ROWS = {"x": ["a", "b", "a"], "y": [1, 2, 4], "when": pd.to_datetime(["2026-03-01", "2026-03-02", "2026-04-01"])}


class Frame(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """A subclass, whose methods may do anything."""

    def head(self, n: int = 5) -> pd.DataFrame:  # noqa: ARG002 - as in pandas
        """Tell that it ran."""
        raise AssertionError


class Told(list[object]):
    """Notes what ran; nothing may."""

    def __len__(self) -> int:
        """Tell that it ran."""
        raise AssertionError

    def note(self, *_: object) -> str:
        """Tell that it ran."""
        raise AssertionError


def namespace() -> dict[str, object]:
    """What the expressions see."""
    frame = pd.DataFrame(ROWS)
    disguised = pd.DataFrame(ROWS)
    object.__setattr__(disguised, "head", Told().note)
    return {
        "df": frame,
        "s": frame["x"],
        "n": 2,
        "name": "y",
        "rows": [{"id": 1}, {"id": 2}],
        "objects": [object(), object()],
        "words": {"a": 1},
        "grown": defaultdict(list),
        "a": np.array([[1, 2], [3, 4]]),
        "day": date(2026, 3, 1),
        "mine": Frame(ROWS),
        "disguised": disguised,
        "told": Told(),
        "note": Told().note,
        "made": (each for each in [1, 2]),
        "np": np,
        "pd": pd,
        "os": os,
        "math": math,
        "here": Path("no/such.txt"),
    }


ALLOWED = {
    "len(df)": "3",
    "len(objects)": "2",
    "len(df.columns)": "3",
    "df.head(1).shape": "[1, 3]",
    "df.head(n).shape": "[2, 3]",
    "df.tail(n=1).y.iloc[0]": "4",
    "df.describe().loc['mean', 'y']": "2.3333333333333335",
    'df.groupby("x").y.sum().to_dict()': '{"a": 5, "b": 2}',
    'df.groupby("x")["y"].mean()["a"]': "2.5",
    "df.groupby(['x'], sort=True).size().tolist()": "[2, 1]",
    "df.sort_values(name, ascending=False).y.tolist()": "[4, 2, 1]",
    "df.nlargest(1, 'y').y.sum()": "4",
    "s.value_counts().to_dict()": '{"a": 2, "b": 1}',
    "s.value_counts(normalize=True)['b']": "0.3333333333333333",
    "s.unique()[0]": "a",
    "s.nunique()": "2",
    "s.str.upper().tolist()": '["A", "B", "A"]',
    "s.isin(['a']).sum()": "2",
    "df.y.between(1, 2).tolist()": "[true, true, false]",
    "df.y.quantile(0.5)": "2.0",
    "df.when.dt.day_name().iloc[0]": "Sunday",
    "df.when.max().strftime('%d %b')": "01 Apr",
    "df.isna().sum().sum()": "0",
    "df.y.rolling(2).mean().iloc[1]": "1.5",
    "round(df.y.mean(), 2)": "2.33",
    "sum(df.y)": "7",
    "max(df.y)": "4",
    "sorted(s)[0]": "a",
    "a.mean()": "2.5",
    "a.sum(0).tolist()": "[4, 6]",
    "words.get('b', 0)": "0",
    "day.strftime('%Y')": "2026",
    "name.upper()": "Y",
    "math.pi": "3.141592653589793",
}

REFUSED = (
    # they write
    *("df.to_csv('out.csv')", "df.to_pickle('out.pkl')", "df.insert(0, 'z', 1)", "df.pop('x')", "df.update(df)"),
    *("df.drop(columns='x', inplace=True)", "df.fillna(0, inplace=True)", "df.sort_values('y', inplace=True)"),
    *("df.y.to_list().append(1)", "rows.append(1)", "words.update(b=2)", "words.pop('a')", "words.setdefault('b', 1)"),
    *("a.sort()", "a.fill(0)", "a.sum(0, None, a)", "a.sum(out=a)", "a.tofile('out.bin')", "grown['new']"),
    *(
        "here.write_text('x')",
        "here.unlink()",
        "here.mkdir()",
        "df.to_string(buf='out.txt')",
        "next(made)",
        "list(made)",
    ),
    *("sum(made)", "sorted(made)", "df.to_sql('t', 'sqlite:///out.db')", "print('x')", "setattr(df, 'x', 1)"),
    # they import or evaluate text, or name a method by text
    *("__import__('out')", "eval('1')", "exec('x = 1')", "compile('1', '', 'eval')", "open('out.txt', 'w')"),
    *("df.eval('y + 1')", "df.query('y > 1')", "df.agg('sum')", "df.apply('sum')", "df.transform('cumsum')"),
    *(
        "s.map(note)",
        "df.pipe(note)",
        "df.groupby(note)",
        "df.groupby('x').agg('sum')",
        "df.pivot_table(aggfunc='sum')",
    ),
    *("s.str.decode('rot13')", "df.rolling(2, win_type='triang')", "df.corr(method='kendall')", "getattr(df, 'head')"),
    *("os.system('touch out.txt')", "os.getcwd()", "pd.read_csv('x.csv')", "np.load('x.npy')", "np.testing"),
    *("name.format(df)", "'{}'.format(df)", "globals()", "vars()", "df.style.pipe(note)", "input('x')", "breakpoint()"),
    # they run code of the notebook
    *(
        "note('x')",
        "told.note('x')",
        "len(told)",
        "mine.head()",
        "df.head(note)",
        "max([1], key=note)",
        "df.head(*rows)",
    ),
    *("df.head(**words)", "df.head(n=note(1))", "df.y.sum().__class__", "df._mgr", "df.head.__globals__", "df[note]"),
    *("df.head(1 + 1)", "df[df.y > 1]", "(lambda: 1)()", "df.head(lambda: 1)"),
)


@pytest.mark.parametrize(("source", "text"), ALLOWED.items())
def test_an_allowed_expression_is_its_value(source: str, text: str) -> None:
    """Names, attributes, items, and calls that only read."""
    assert fill(f"{{{{ {source} }}}}", namespace()).text == text


@pytest.mark.parametrize("source", REFUSED)
def test_a_refused_expression_does_nothing(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value of the notebook changes, no file appears, no module is imported, and no code of the notebook runs."""
    monkeypatch.chdir(tmp_path)
    names = namespace()
    fill("{{ df.style.index }}", names)  # pandas imports what it needs for its attributes
    before = repr(names)
    modules = set(sys.modules)
    try:
        assert fill(f"{{{{ {source} }}}}", names).text == f"{{{{ {source} }}}}"  # left as typed: it begins with no name
    except InvalidArgumentError as error:
        assert source in str(error)  # noqa: PT017 - either way it has done nothing
    assert set(sys.modules) == modules
    assert repr(names) == before
    assert names["made"].gi_frame.f_lasti == namespace()["made"].gi_frame.f_lasti  # type: ignore[attr-defined]  # a generator
    assert list(tmp_path.iterdir()) == []


def test_there_are_enough() -> None:
    """The table has allowed, refused, and hostile expressions."""
    assert len(ALLOWED) + len(REFUSED) > 100


def test_a_method_of_one_object_is_not_called() -> None:
    """The method of the type is, which is the one that was allowed."""
    assert fill("{{ disguised.head(1).shape }}", namespace()).text == "[1, 3]"


def test_a_shadowed_function_is_not_called() -> None:
    """``len`` of the notebook may do anything."""
    with pytest.raises(InvalidArgumentError, match="calls len"):
        fill("{{ len(df) }}", namespace() | {"len": Told().note})


def test_a_module_is_not_asked_for_what_it_does_not_have() -> None:
    """Its ``__getattr__`` may import."""
    module = types.ModuleType("lazy")
    module.__getattr__ = Told().note  # type: ignore[method-assign]  # as lazy modules do
    with pytest.raises(InvalidArgumentError, match="has no attribute 'part'"):
        fill("{{ lazy.part }}", {"lazy": module})


def test_an_unknown_name_in_a_call_is_an_error() -> None:
    """It names the near ones."""
    with pytest.raises(InvalidArgumentError, match=r"'dff' is not defined in the notebook\. Did you mean df"):
        fill("{{ len(dff) }}", namespace())


@cache
def samples() -> dict[str, object]:
    """An object of each type whose methods may be called."""
    frame = pd.DataFrame(ROWS)
    by, day = frame.groupby("x"), frame.set_index("when")
    objects = [
        *(
            frame,
            TextFrame(frame),
            UsageTable(usage_df(MemoryStore())),
            frame.x,
            pd.Index(["a"]),
            frame.index,
            day.index,
            frame.when[0],
            pd.Timedelta(1),
            by,
            by.y,
        ),
        *(frame.y.rolling(2), frame.y.expanding(), day.resample("D"), frame.x.str, frame.when.dt, np.array([1])),
        *(datetime(2026, 3, 1), date(2026, 3, 1), "text", {}),  # noqa: DTZ001 - any
    ]
    return {_name_of(type(each)): each for each in objects}


def test_every_type_is_known_by_its_name() -> None:
    """The names are those that the installed pandas and NumPy have."""
    assert sorted(samples()) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_by_position_are_the_first_ones(name: str) -> None:
    """So that a listed call gives exactly the parameters that are listed."""
    for method, (by_position, by_name) in _parameters(METHODS[name]).items():
        called = getattr(type(samples()[name]), method)
        try:
            signature = inspect.signature(called)
        except ValueError:  # some methods in C have none
            continue
        known = [each for each in signature.parameters if each not in {"self", "args", "kwargs"}]
        if known and not method.startswith("_"):
            assert known[: len(by_position)] == by_position, method
            assert set(by_name) <= set(known), method
