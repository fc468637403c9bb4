"""The body of a chat cell reaches the model byte for byte, except for replaced ``{{ }}``, through the real magics."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from chat_server import ChatServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NAMESPACE = {"name": "Ål {{ name }}", "n": 42, "rows": [{"a": "b}"}, 'quo"te'], "price": 0.1}
EXPRESSIONS = {
    "{{ name }}": "Ål {{ name }}",
    "{{n}}": "42",
    '{{ rows[0]["a"] }}': "b}",
    "{{ rows[1] }}": 'quo"te',
    "{{ rows[1:] }}": '["quo\\"te"]',
    "${{ price }}": "$0.1",
}
PASTED = (
    '{"a": {"b": [1, "%s", null]}}',
    '{"deep": {"er": {}}}',
    r"\frac{{a}}{{b}} \begin{align} x^{{n}} &= \alpha_{{i}} \end{align}",
    "$HOME $$y$$ $(ls) ${PATH} `ls`",
    "a { color: red; } @media print { .b {} }",
    "{% for x in xs %}{{ x | upper }}{% endfor %} {{#if a}}b{{/if}} {{> part}} {{/each}}",
    "def f(x: int) -> str:\n    return f'{x!r:>{10}}' % {'a': 1}  # {}\n",
    "%matplotlib inline\n%%bash\n!ls {name}\n?help\nprint??",
    "🙂‍↔️ naïve ﷽ 中文 \u200b\u202e \\u0041 \\n \\\\ \\",
    "for (;;) { if (a && b || !c) { return; } } // {{}}",
    "SELECT * FROM t WHERE a = '{b}' -- {{}}",
    "-c --model 'unclosed \"quote",
    "<b onclick='x'>&amp;</b> <!-- {{ -->",
    "\ttabs\tand   blanks   ",
    ">>> 1 + 1\n2\n>>> for x in y:\n...     pass",
    "In [1]: 1 + 1\nOut[1]: 2\n   ...: x",
)
PIECE = st.one_of(
    st.sampled_from(PASTED).map(lambda text: (text, text)),
    st.sampled_from(sorted(EXPRESSIONS.items())),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="{}_^\\"),
        max_size=12,
    ).map(lambda text: (text, text)),
    st.sampled_from(["{", "}", "{{}}", "\\", "$", "%", "?", "\n", "\n\n", "    ", "#"]).map(lambda text: (text, text)),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    """The server for all examples."""
    with ChatServer() as opened:
        yield opened


@pytest.fixture(scope="module")
def shell(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """A shell with a conversation in memory."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", "sk-test-1")
        environment.setenv("OPENAI_BASE_URL", server.url)
        environment.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        InteractiveShell.clear_instance()
        config = Config()
        config.HistoryManager.enabled = False
        opened = InteractiveShell.instance(config=config)
        opened.user_ns.update(NAMESPACE, picture=PNG)
        run(opened, "%load_ext promptkit_nb\n%chat_setup --model gpt-4o-mini --store memory\n%chat_use talk")
        yield opened
        run(opened, "%unload_ext promptkit_nb")
        InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> str:
    """Run a cell and return what it printed; an error fails the test."""
    with capture_output() as captured:
        result = shell.run_cell(cell)  # type: ignore[no-untyped-call]  # IPython's has no types
    result.raise_error()
    return captured.stdout


def sent_message(shell: InteractiveShell, server: ChatServer, cell: str) -> object:
    """Run a chat cell in an empty conversation and return the user's message in its one request."""
    run(shell, "%chat_delete talk")
    before = len(server.requests)
    run(shell, cell)
    (request,) = server.requests[before:]
    (message,) = request.body["messages"]
    return message["content"]


@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(PIECE, min_size=1, max_size=6))
def test_any_body_arrives(shell: InteractiveShell, server: ChatServer, pieces: list[tuple[str, str]]) -> None:
    """JSON, LaTeX, code, templates, CSS and emoji are sent as typed, the expressions between them as their values."""
    typed = "".join(f"{piece} " for piece, _ in pieces)
    assert (
        sent_message(shell, server, f"%%chat\nx {typed}\n\ny")
        == f"x {''.join(f'{value} ' for _, value in pieces)}\n\ny"
    )


@pytest.mark.parametrize("text", PASTED)
def test_a_body_of_one_piece_arrives(shell: InteractiveShell, server: ChatServer, text: str) -> None:
    """Also at the beginning of the body, where IPython looks for prompts and indentation."""
    assert sent_message(shell, server, f"%%chat\n{text}") == text.strip("\n")


@pytest.mark.parametrize("text", [text for text in PASTED if "\n" not in text])
def test_a_line_arrives(shell: InteractiveShell, server: ChatServer, text: str) -> None:
    """A ``%chat`` line is sent as typed, with its expressions replaced."""
    assert sent_message(shell, server, f"%chat Look: {text} {{{{ n }}}} end") == f"Look: {text} 42 end"


@pytest.mark.parametrize("text", sorted(EXPRESSIONS))
def test_raw_sends_braces_as_typed(shell: InteractiveShell, server: ChatServer, text: str) -> None:
    """With ``--raw`` nothing is replaced, not even unknown names."""
    assert sent_message(shell, server, f"%%chat --raw\n{text} {{{{ nowhere }}}}") == f"{text} {{{{ nowhere }}}}"


def test_an_image_is_a_part_of_the_message(shell: InteractiveShell, server: ChatServer) -> None:
    """The texts around it become parts, too, in the order in which they were typed."""
    assert sent_message(shell, server, "%%chat\nWhat is {{ picture }}, {{ name }}?") == [
        {"type": "text", "text": "What is "},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}},
        {"type": "text", "text": ", Ål {{ name }}?"},
    ]


@pytest.mark.parametrize("cell", ["%%chat\nHi {{ nowhere }}", "%chat Hi {{ nowhere }}"])
def test_an_unknown_name_fails_before_anything_is_sent(shell: InteractiveShell, server: ChatServer, cell: str) -> None:
    """The cell fails with one line that names it, and nothing is sent."""
    run(shell, "%chat_delete talk")
    before = len(server.requests)
    with capture_output() as captured:
        result = shell.run_cell(cell)  # type: ignore[no-untyped-call]  # as above
    assert type(result.error_in_exec).__name__ == "InvalidArgumentError"
    assert captured.stdout == (
        "InvalidArgumentError: {{ nowhere }}: 'nowhere' is not defined in the notebook. Run the cell that defines it "
        "first. To send braces as typed, add --raw.\n"
    )
    assert len(server.requests) == before
    assert run(shell, "%chat_history") == "No messages yet. Start with %%chat.\n"


def test_a_dry_run_shows_the_resolved_text(shell: InteractiveShell, server: ChatServer) -> None:
    """It shows what would be sent and sends nothing."""
    before = len(server.requests)
    assert "Say 42 times b}" in run(shell, "%%chat --dry-run\nSay {{ n }} times {{ rows[0]['a'] }}")
    assert len(server.requests) == before


def test_a_changed_value_makes_another_request(shell: InteractiveShell, server: ChatServer) -> None:
    """The same text with another value is not replayed; with the previous value it is."""
    before = len(server.requests)
    for value in (1, 2, 1):
        run(shell, f"value = {value}\n%chat_use values\n%chat The value is {{{{ value }}}}\n%chat_undo\n%chat_use talk")
    assert len(server.requests) == before + 2
