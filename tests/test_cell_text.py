"""``{{ expression }}`` in chat cells: what is replaced, with what, and what stays as typed."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.display import Image
from matplotlib.figure import Figure
from PIL.Image import new as new_image
from pydantic import BaseModel

from promptkit_nb import ConversationManager, DemoProvider, InvalidArgumentError
from promptkit_nb.context_hash import replay_key_of
from promptkit_nb.text.cell_text import CellText, fill
from promptkit_nb.turns import ContentPart, Message

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG = b64decode(PIXEL)
PNG_PART = ContentPart("image_url", url=f"data:image/png;base64,{PIXEL}")


@dataclass
class Run:
    """A dataclass with a hidden field."""

    name: str
    loss: float
    key: str = field(default="sk-secret", repr=False)


class Point(BaseModel):
    x: int
    when: datetime


class Broken:
    @property
    def size(self) -> int:
        """Fail like a closed file."""
        raise OSError("the file is\nclosed")

    def _repr_markdown_(self) -> str:
        raise OSError("no picture")


class WithMarkdown:
    def _repr_markdown_(self) -> str:
        return "for people"


class WithLlmText(WithMarkdown):
    def _repr_llm_(self) -> str:
        return "for models"


class WithPng:
    """An object that displays as PNG, as bytes (Pillow) or with metadata (IPython)."""

    def __init__(self, shown: object) -> None:
        """Store the result of ``_repr_png_``."""
        self.shown = shown

    def _repr_png_(self) -> object:
        return self.shown


NOTEBOOK: dict[str, object] = {
    "a": 3,
    "b": 4,
    "i": 5,
    "name": "Ada",
    "price": Decimal("1.10"),
    "config": {"model": {"layers": [1, 2, 3]}, "a b": "é"},
    "rows": [{"id": 1}, {"id": 2}],
    "frame": pd.DataFrame({"n": [1, 2, 3], "t": ["x", "y", "z"]}),
    "braces": "{{ a }}",
    "broken": Broken(),
    "pixel": PNG,
}


def filled(text: str, **values: object) -> str:
    """Return the text filled with values from the notebook and from the arguments."""
    return fill(text, NOTEBOOK | values).text


def error_of(text: str, **values: object) -> str:
    """Return the error message for a text that cannot be filled."""
    with pytest.raises(InvalidArgumentError) as caught:
        fill(text, NOTEBOOK | values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ name }}", "Ada"),
        ("{{name}} and {{ name}}, {{\tname }}", "Ada and Ada, Ada"),
        ('{{ config["model"]["layers"][-1] }}', "3"),
        ("{{ config['a b'] }}", "é"),
        ("{{ rows[0:1] }}", '[{"id": 1}]'),
        ("{{ rows[-1]['id'] }}", "2"),
        ("{{ frame.shape[0] }}", "3"),
        ('{{ frame.loc[1, "t"] }}', "y"),
        ("{{ frame.n.size }}", "3"),
        ("{{a}}{{b}}_{{i}}", "34_5"),
        ('{"n": {{ a }}}', '{"n": 3}'),
        ("{{{ a }}}", "{3}"),
        ("${{ price }}", "$1.10"),
        ("data_{{i}}.csv", "data_5.csv"),
        (r"\frac{{{a}}}{{{b}}}", r"\frac{3}{4}"),
        (r"\frac{{ a }}{2}", r"\frac3{2}"),
        ("a\r\n{{ a }}\r\n", "a\r\n3\r\n"),
    ],
)
def test_an_expression_is_replaced(text: str, expected: str) -> None:
    """A name followed by attributes and items is replaced; spaces around it are ignored, the text around it is kept."""
    assert filled(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain {a} $a $$ % \\n",
        '{"a": {"b": 1}}',
        '{{"a": 1}}',
        '{"a":{"b":{}}}',
        "{{}} {{ }} {{",
        "}} {{ a } {{ a",
        "{{1}} {{'a'}} {{ [a] }} {{ (a) }} {{a, b}}",
        "{{ a\n}}",
        r"\frac{{a}}{{b}} \sqrt[3]{{a}} \hat{a}_{{i}} \sum_{{i}}^{{a}} x^{{a}} x_{{i}}",
        r"$$\textbf{{name}}$$ \left\{{a}\right\}",
        "{% if a %}{{ a | upper }}{% endif %}",
        "{{#if a}}{{/if}}{{> a}}{{^a}}{{! a }}{{&a}}",
        "{{- a -}} {{ a -}} {{ .Values.a }} {{ $a }}",
        "{{ else }} {{ not a b }} {{ a # b }} {{ a: b }} {{ a = b }} {{ a; b }}",
        "{{ a + unknown }}",
        "{{ f'{a}' }} {{ lambda: a }} {{ True }} {{ True and 1 }}",
        "@media x{{color:red}} .a{b:c}",
        "{{ " + "a." * 100 + "a }}",
        "{{ \x00a }} {{ \ud83d }}",
    ],
)
def test_anything_else_stays_as_it_was_typed(text: str) -> None:
    """JSON, CSS, LaTeX, templates and unbalanced braces are not expressions."""
    assert fill(text, NOTEBOOK) == CellText(text)


def test_a_value_is_literal() -> None:
    """Braces in a value are not expanded, so ``{{ a }}`` can be sent to a model."""
    assert filled("{{ braces }} {{ a }}") == "{{ a }} 3"


def test_an_unknown_name_is_an_error_that_names_it() -> None:
    """The error suggests near matches and says how to send braces as typed."""
    assert error_of("{{ nam }}") == (
        "{{ nam }}: 'nam' is not defined in the notebook. Did you mean name? To send braces as typed, add --raw."
    )
    assert error_of("{{ zzz.x }}") == (
        "{{ zzz.x }}: 'zzz' is not defined in the notebook. Run the cell that defines it first. "
        "To send braces as typed, add --raw."
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "{{ frame.query('n > 1') }}",
            "{{ frame.query('n > 1') }} calls DataFrame.query(), which is not one of the calls that are allowed here",
        ),
        ("{{ rows[i] }}", "{{ rows[i] }} uses the index [i], which is not a literal"),
        ("{{ frame[frame.n > 1] }}", "{{ frame[frame.n > 1] }} uses the index [frame.n > 1], which is not a literal"),
        ("{{ a + b * 2 }}", "{{ a + b * 2 }} is a computation, and computations are not allowed here"),
        ("{{ len(rows) * 2 }}", "{{ len(rows) * 2 }} is a computation, and computations are not allowed here"),
        ("{{ name.__class__ }}", "{{ name.__class__ }} reads the private attribute __class__"),
        ("{{ name._x }}", "{{ name._x }} reads the private attribute _x"),
    ],
)
def test_computations_and_private_attributes_are_errors(text: str, why: str) -> None:
    """It is probably meant to be evaluated, so it is not sent as typed."""
    source = text.removeprefix("{{ ").removesuffix(" }}")
    assert error_of(text) == (
        f"{why}. Two lines do it: value = {source} in a cell, and {{{{ value }}}} here; or add --raw to send braces as "
        "typed."
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ name.lenght }}", "AttributeError: 'str' object has no attribute 'lenght'"),
        ("{{ config['modell'] }}", "KeyError: 'modell'"),
        ("{{ rows[9] }}", "IndexError: list index out of range"),
        ("{{ a[0] }}", "TypeError: 'int' object is not subscriptable"),
        ("{{ broken.size }}", "OSError: the file is closed"),
    ],
)
def test_failing_lookups_are_errors_with_their_cause(text: str, why: str) -> None:
    """Missing attributes and items, and properties that raise."""
    with pytest.raises(InvalidArgumentError) as caught:
        filled(text)
    assert str(caught.value) == (
        f"{text} cannot be read ({why}). Try it in a separate cell, or add --raw to send braces as typed."
    )
    assert why.startswith(type(caught.value.__cause__).__name__)


def test_expressions_run_no_code() -> None:
    """Not even inside an item."""
    calls: list[str] = []
    assert "calls log()" in error_of("{{ log('x') }}", log=calls.append)
    assert "is not a literal" in error_of("{{ rows[log('x')] }}", log=calls.append)
    assert calls == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb ", "a\nb "),
        ("", ""),
        (None, "None"),
        (True, "True"),
        (1.50, "1.5"),
        (np.float32(0.1), "0.1"),
        (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01 00:00:00+00:00"),
        ({"é": [1, (2.5, None)], 3: {"z", "y"}}, '{"é": [1, [2.5, null]], "3": ["y", "z"]}'),
        ({"n": np.int64(3), "x": np.float32(0.1), "d": Decimal("1.10")}, '{"n": 3, "x": 0.1, "d": "1.10"}'),
        ({"log": "segfault at 0x7f001234"}, '{"log": "segfault at 0x7f001234"}'),
        (Run("r1", 0.5), '{"name": "r1", "loss": 0.5}'),
        (Point(x=1, when=datetime(2026, 3, 1, tzinfo=UTC)), '{"x": 1, "when": "2026-03-01T00:00:00Z"}'),
        (WithMarkdown(), "for people"),
        (WithLlmText(), "for models"),
        (np.array([[1, 2], [3, 4]]), "array, shape (2, 2), dtype int64\n[[1, 2],\n [3, 4]]"),
        (
            pd.Series([1.5, 2], name="n"),
            "Series, 2 values, name n, dtype float64\n\n|  | n |\n| --- | --- |\n| 0 | 1.5 |\n| 1 | 2.0 |",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_becomes_text(value: object, text: str) -> None:
    """Strings as they are, structures as JSON, data as a table, self-describing objects in their own words."""
    assert filled("{{ value }}", value=value) == text


def test_an_answer_becomes_its_text() -> None:
    """The response stored by ``--to`` can be quoted in the next cell."""
    answer = ConversationManager(DemoProvider()).new_conversation().send("Hi")
    assert filled("{{ answer }}", answer=answer) == answer.content


def test_a_frame_becomes_shape_dtypes_and_rows() -> None:
    """A Markdown table in which special characters are escaped."""
    frame = pd.DataFrame({"a|b": [1, 2], "t": ["x\ny", "|"]}, index=pd.Index(["r", "s"], name="row"))
    assert filled("{{ frame }}", frame=frame).splitlines() == [
        "DataFrame, 2 rows, 2 columns",
        "dtypes: a\\|b int64, t str" if frame.dtypes["t"] == "str" else "dtypes: a\\|b int64, t object",
        "missing: none",
        "distinct: a\\|b 2, t 2",
        "",
        "| row | a\\|b | t |",
        "| --- | --- | --- |",
        "| r | 1 | x\\ny |",
        "| s | 2 | \\| |",
    ]


def test_a_large_frame_is_cut_and_says_so() -> None:
    """To 10 rows, 20 columns, and 60 characters per cell."""
    frame = pd.DataFrame({f"c{n}": range(1000) for n in range(30)} | {"c0": "x" * 61})
    lines = filled("{{ frame }}", frame=frame).splitlines()
    assert lines[0] == "DataFrame, 1000 rows, 30 columns"
    assert lines[-1] == "(first 10 of 1000 rows; first 20 of 30 columns; cells of more than 60 characters are cut)"
    assert len(lines) == 5 + 2 + 10 + 2
    assert lines[-3] == f"| 9 | {'x' * 59}… | {' | '.join(['9'] * 19)} |"


def test_a_wide_frame_shows_fewer_rows() -> None:
    """The table has at most about 8,000 characters."""
    frame = pd.DataFrame({f"c{n}": ["x" * 60] * 50 for n in range(20)})
    text = filled("{{ frame }}", frame=frame)
    assert text.endswith("(first 6 of 50 rows)")
    assert len(text) < 8_500


def test_an_empty_frame_has_no_table() -> None:
    """Only the shape is written."""
    assert filled("{{ frame }}", frame=pd.DataFrame()) == "DataFrame, 0 rows, 0 columns"


def test_a_changed_frame_makes_another_request() -> None:
    """Different data give a different replay key; equal data give the same key."""

    def key(values: list[int]) -> str:
        message = Message("user", filled("{{ frame }}", frame=pd.DataFrame({"n": values})))
        return replay_key_of(
            "", message, model="m", parameters={}, max_output_tokens=None, tools=(), max_tokens=None,
            context_policy="truncate",
        )  # fmt: skip

    assert key([1, 2]) == key([1, 2]) != key([1, 3])


def test_a_large_structure_is_an_error() -> None:
    """It is never cut silently; strings of any length are sent whole."""
    assert error_of("{{ numbers }}", numbers=list(range(20_000))) == (
        "{{ numbers }} takes 128,890 characters, more than 100,000. "
        "Use a part of it; to send all of it, assign str(numbers) to a variable and use that."
    )
    assert len(filled("{{ book }}", book="x" * 200_000)) == 200_000


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Path("no/such.png"), "the file 'no/such.png' cannot be read: No such file or directory"),
        (object(), "its only text is a memory address: use an attribute or item of it"),
        (lambda: 1, "its only text is a memory address: use an attribute or item of it"),
        ([object()], "its only text is a memory address: use an attribute or item of it"),
        (Image(url="https://example.org/x.png")  # type: ignore[no-untyped-call]  # IPython's has no types
,
         "its only text is a memory address: use an attribute or item of it"),
        (b"abc", "it is bytes, but not a PNG, JPEG, GIF or WebP image: decode it"),
        ({1: "a", "1": "b"}, "it has two keys with the same text"),
        (Broken(), "OSError: no picture"),
    ],
    ids=["no file", "object", "function", "list", "remote-image", "bytes", "keys", "broken"],
)  # fmt: skip
def test_a_value_without_a_text_is_an_error(value: object, why: str) -> None:
    """Text that means nothing to a model is not sent."""
    assert error_of("{{ value }}", value=value) == (
        f"{{{{ value }}}} cannot be written as text ({why}). "
        "Assign the text you want to send to a variable and use that."
    )


def test_an_image_becomes_a_part_between_texts() -> None:
    """The model receives text, image, text; the plain text marks the position of the image."""
    assert fill("See {{ pixel }}: {{ name }}?", NOTEBOOK) == CellText(
        "See [image pixel]: Ada?",
        (ContentPart("text", "See "), PNG_PART, ContentPart("text", ": Ada?")),
    )
    assert fill("{{ pixel }}{{pixel}}", NOTEBOOK).parts == (PNG_PART, PNG_PART)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "webp")],
)
def test_bytes_of_an_image_file_are_an_image(data: bytes, kind: str) -> None:
    """The file type is recognized by its first bytes."""
    (part,) = fill("{{ data }}", {"data": data}).parts
    assert part.url.startswith(f"data:image/{kind};base64,")


@pytest.mark.parametrize("shown", [PNG, PIXEL, (PIXEL, {"width": 10})], ids=["bytes", "base64", "with metadata"])
def test_an_object_that_displays_as_png_is_an_image(shown: object) -> None:
    """As bytes or base64, with or without metadata."""
    assert fill("{{ image }}", {"image": WithPng(shown)}).parts == (PNG_PART,)


@pytest.mark.parametrize(
    "image",
    [Image(data=PNG), new_image("RGB", (2, 2), "red"), Figure(figsize=(1, 1))],  # type: ignore[no-untyped-call]
    ids=["IPython", "Pillow", "matplotlib"],
)
def test_images_of_the_libraries_are_images(image: object) -> None:
    """Each becomes a PNG, the same one every time."""
    (part,) = fill("{{ image }}", {"image": image}).parts
    assert part.url.startswith(f"data:image/png;base64,{PIXEL[:11]}")
    assert fill("{{ image }}", {"image": image}).parts == (part,)


def test_a_path_of_an_image_is_an_image(tmp_path: Path) -> None:
    """Read when the cell is run; other paths are text."""
    (tmp_path / "bar.png").write_bytes(PNG)
    assert fill("{{ where }}", {"where": tmp_path / "bar.png"}).parts == (PNG_PART,)
    assert fill("{{ Path(name) }}", {"name": str(tmp_path / "bar.png")}).parts == (PNG_PART,)
    assert filled("{{ where }}", where=Path("data/bar.csv")) == "data/bar.csv"
    (tmp_path / "text.png").write_text("x")
    assert "is not a PNG, JPEG, GIF or WebP image" in error_of("{{ where }}", where=tmp_path / "text.png")


def test_an_exception_keeps_its_class() -> None:
    """The class says more than the message."""
    assert filled("{{ err }}", err=KeyError("price")) == "KeyError: 'price'"


def test_missing_and_distinct_values_are_counted() -> None:
    """Per column; values that cannot be compared have no distinct count."""
    frame = pd.DataFrame({"n": [1.0, None, 1.0], "t": ["x", "y", "z"], "l": [[1], [2], [1]]})
    assert filled("{{ frame }}", frame=frame).splitlines()[2:4] == ["missing: n 1", "distinct: n 1, t 3"]


def test_an_image_is_an_error_if_only_text_can_be_sent() -> None:
    """The error names the image and says what to do."""
    with pytest.raises(InvalidArgumentError) as caught:
        fill("{{ pixel }}", NOTEBOOK, images=False)
    assert str(caught.value) == (
        "{{ pixel }} is an image, and only text can be sent here. Describe it in words, "
        "or use the data it was made from."
    )


@pytest.mark.parametrize(
    ("value", "left_out"),
    [
        (pd.DataFrame({"n": range(200)}), "sent in part (first 10 of 200 rows)"),
        (pd.Series(["x" * 61]), "sent in part (cells of more than 60 characters are cut)"),
        (np.zeros(101), "sent in part (only the outer items)"),
        (Path(__file__), "the path is sent, not the file; for its content, read it into a variable and use that"),
    ],
)
def test_what_is_not_sent_is_said_once(value: object, left_out: str) -> None:
    """Rows, cells and items that are cut, and the content of a file."""
    assert fill("{{ v }} and {{ v }}", {"v": value}).notes == (f"{{{{ v }}}}: {left_out}",)


def test_nothing_is_said_about_whole_values() -> None:
    """Nor about text that looks as if it was cut, or a path of no file."""
    values = {"whole": pd.DataFrame({"n": range(10)}), "text": "a\n(first 10 of 200 rows)", "path": Path("none.csv")}
    assert fill("{{ whole }} {{ text }} {{ path }}", values).notes == ()


def test_no_library_is_imported() -> None:
    """Neither to convert a value nor to recognize its type."""
    program = (
        "import sys\nfrom promptkit_nb.text.cell_text import fill\n"
        "assert fill('{{ x }} {{ y[0] }}', {'x': 1, 'y': [{}]}).text == '1 {}'\n"
        "print({'pandas', 'numpy', 'matplotlib', 'PIL', 'IPython'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


# Things that people paste. No piece, alone or next to others, is an expression that begins with a name. "~" is a blank.
PASTED = r"""
{"a":{"b":[1,{}]}} {{"a":1}} \frac{{1}}{{2}} \frac{{a}}{{b}} \frac{a}{b} x^{{i}} $x_{1}^{2}$ \left\{ \right\} $$ %
{%if~x%} {{#if~x}} {{/if}} {{>p}} {{~a~|~upper~}} @media{a{b:c}} f"{x}{{}}" `${y}` {0} {{}}
{{~}} {~} {{0}} {{- ${HOME} 🎉 é
\n \{ \} def~f(): if(x){return{}} }} } { {{
"""
GLUE = st.sampled_from([" ", "\n", "\r\n", "\t", "", "\n\n", "\u2028"])
PIECES = st.sampled_from([piece.replace("~", " ") for piece in PASTED.split()])
EXPECTED = {"{{ a }}": "3", "{{name}}": "Ada", "{{ rows[1]['id'] }}": "2"}
VALUES = st.sampled_from(list(EXPECTED))


@settings(max_examples=1000)
@given(st.lists(st.tuples(st.one_of(PIECES, VALUES), GLUE), max_size=20))
def test_pasted_text_comes_out_byte_for_byte(pieces: list[tuple[str, str]]) -> None:
    """Whatever is pasted around them, only the expressions change."""
    text = "".join(f" {piece} {glue}" for piece, glue in pieces)
    assert filled(text) == "".join(f" {EXPECTED.get(piece, piece)} {glue}" for piece, glue in pieces)


@settings(max_examples=500)
@given(st.text(st.sampled_from("{}[]()\"'\\$%#|:.,_^ \n\r1é\ud83d🎉")))
def test_braces_without_names_never_change(text: str) -> None:
    """Text without a letter from a name is neither changed nor rejected."""
    assert fill(text, NOTEBOOK).text == text
