"""What is an option and what is text on the lines of magics, in a real kernel, with requests counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from day_in_cells import Day, day

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

MAGICS = (
    *("chat", "chat_new", "chat_use", "chat_list", "chat_import", "chat_history", "chat_context", "chat_usage"),
    *("chat_models", "chat_panel", "chat_fork", "chat_tree", "chat_undo", "chat_restore", "chat_summarize"),
    *(
        "chat_truncate",
        "chat_export",
        "chat_delete",
        "chat_search",
        "chat_title",
        "chat_setup",
        "chat_fix",
        "chat_edit",
        "chat_fix",
    ),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The kernel of this file."""
    with day(tmp_path_factory.mktemp("lines")) as started:
        yield started


@pytest.fixture
def cells(shared: Day) -> Day:
    """A new conversation."""
    shared.begin()
    return shared


class TestOptionsOfALine:
    @pytest.mark.parametrize(
        ("line", "text"),
        [
            ("-m gpt-4o Why?", "Why?"),
            ("--model=gpt-4o -q Why?", "Why?"),
            ('--model "gpt-4o" "Why?" she asked', '"Why?" she asked'),
            ("-m gpt-4o -- --fresh is a word", "--fresh is a word"),
            ("-m gpt-4o Why --fresh?", "Why --fresh?"),
            ("-m gpt-4o -5 degrees", "-5 degrees"),
            ("-m gpt-4o - a list", "- a list"),
            ("-m gpt-4o -x is no option", "-x is no option"),
            ("-m gpt-4o What's the matter?", "What's the matter?"),
        ],
    )
    def test_come_first_and_the_rest_is_sent_as_typed(self, cells: Day, line: str, text: str) -> None:
        """One request goes to the model of the option, with the text after the options."""
        assert cells.run(f"%chat {line}").status == "ok"
        assert cells.asked == [text]
        assert cells.server.requests[0].body["model"] == "gpt-4o"

    @pytest.mark.parametrize("text", ["Why?", '"Why" is a word', "- a list", "-5", "-x", "a --fresh b", "-- -m"])
    def test_a_line_without_options_is_text(self, cells: Day, text: str) -> None:
        """Nothing is taken from it but a leading ``--``."""
        assert cells.run(f"%chat {text}").status == "ok"
        assert cells.asked == [text.removeprefix("-- ")]

    def test_a_dry_run_sends_nothing(self, cells: Day) -> None:
        """``%chat --dry-run`` shows what would be sent."""
        shown = cells.run("%chat --dry-run My name is Alice").contents("execute_result")[0]["data"]["text/plain"]
        assert shown.splitlines()[0].split() == ["user", "My", "name", "is", "Alice", "8"]
        assert cells.asked == []

    def test_what_is_left_out_of_a_table_is_said(self, cells: Day) -> None:
        """A line before the answer, and before a dry run; ``--quiet`` shows nothing."""
        cells.run("import pandas as pd; df = pd.DataFrame({'n': range(200)})")
        line = "{{ df }}: sent in part (first 10 of 200 rows)\n"
        assert line in cells.printed("%chat Which? {{ df }}")
        assert cells.printed("%chat --dry-run Which? {{ df }}") == line
        assert cells.printed("%chat -q Which? {{ df }}") == ""

    @pytest.mark.parametrize("magic", ["%chat {}", "%%chat {}\nHi"])
    def test_a_mistyped_option_names_the_near_one_and_sends_nothing(self, cells: Day, magic: str) -> None:
        """A line and a cell alike."""
        line = cells.error(
            magic.format("--modle gpt-4o Hi" if "{}" in magic and "\n" not in magic else "--modle gpt-4o")
        )
        assert line == "InvalidArgumentError: Unknown option --modle. Did you mean --model? %chat? lists the options."
        assert cells.asked == []

    @pytest.mark.parametrize(
        "line", ["%chat -t warm Hi", "%chat -m", "%chat -m --fresh Hi", "%chat --to 1x Hi", "%chat -q"]
    )
    def test_a_wrong_or_missing_value_sends_nothing(self, cells: Day, line: str) -> None:
        """The error is one line."""
        assert cells.error(line).startswith("InvalidArgumentError: ")
        assert cells.asked == []

    @pytest.mark.parametrize("magic", MAGICS)
    def test_help_explains_and_does_nothing(self, cells: Day, magic: str) -> None:
        """Every magic of the extension prints its help."""
        printed = cells.printed(f"%{magic} --help")
        assert printed[0] in " ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # the usage or a sentence, without the marks of reST
        assert f"%{magic}" in printed
        assert cells.asked == []

    def test_help_of_a_cell(self, cells: Day) -> None:
        """``%%chat --help`` needs no message."""
        assert "--max-output-tokens" in cells.printed("%%chat --help\n")


class TestOneMeaning:
    @pytest.mark.parametrize(
        "line", ["%chat --max-tokens 100 Hi", "%%chat --max-tokens 100\nHi", "%chat_setup --max-tokens 100"]
    )
    def test_max_tokens_is_refused(self, cells: Day, line: str) -> None:
        """Both alternatives are named, and nothing is sent."""
        assert cells.error(line) == (
            "InvalidArgumentError: --max-tokens is ambiguous: --context-tokens N limits what is sent, "
            "--max-output-tokens N of %%chat limits the answer."
        )
        assert cells.asked == []

    def test_the_trait_of_that_name_is_refused(self, cells: Day) -> None:
        """The next message fails until it is reset."""
        cells.run("%config PromptKit.max_tokens = '100'")
        assert "PromptKit.context_tokens" in cells.error("%chat Hi")
        cells.run("%config PromptKit.max_tokens = ''")
        assert cells.asked == []
        assert cells.run("%chat Hi").status == "ok"

    def test_the_answer_is_bounded(self, cells: Day) -> None:
        """``--max-output-tokens`` is OpenAI's limit of the answer."""
        cells.run("%chat --max-output-tokens 7 Hi")
        body = cells.server.requests[0].body
        assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))

    def test_what_is_sent_is_bounded_and_the_error_names_the_option(self, cells: Day) -> None:
        """In a cell the error has no Python argument."""
        line = cells.error(f"%chat --context-tokens 20 {'word ' * 40}")
        assert line.startswith("ContextWindowExceededError: ")
        assert (
            "more than --context-tokens 20; nothing was sent. Shorten one of them, or raise --context-tokens." in line
        )
        assert cells.asked == []

    def test_in_python_the_error_names_the_argument(self, cells: Day) -> None:
        """The same error outside a magic."""
        cells.run(
            "from promptkit_nb import *; conv = ConversationManager(DemoProvider()).new_conversation(max_tokens=20)"
        )
        (line,) = (line for line in cells.run(f"conv.send('{'word ' * 40}')").traceback if "max_tokens=20" in line)
        assert "or raise max_tokens." in line

    @pytest.mark.parametrize("word", ["none", "off", "None", '""'])
    def test_a_budget_is_lifted(self, cells: Day, word: str) -> None:
        """The error of a budget says how, and then the message is sent."""
        cells.run("%chat_setup --budget 0.0000001")
        assert "lift it with %chat_setup --budget none" in cells.error("%chat Hi")
        assert cells.asked == []
        assert "budget" not in cells.printed(f"%chat_setup --budget {word}")
        assert cells.run("%chat Hi").status == "ok"
        assert cells.asked == ["Hi"]


class TestAssignedLine:
    @pytest.mark.parametrize("line", ["%chat Is it a name?", "%chat -m gpt-4o Is it a name?", "%chat Is it a name"])
    def test_the_response_is_the_value(self, cells: Day, line: str) -> None:
        """A trailing question mark asks instead of printing IPython's help."""
        assert cells.run(f"r = {line}").status == "ok"
        assert cells.asked == [line.split(" ", 1)[1].removeprefix("-m gpt-4o ")]
        assert cells.printed("print(type(r).__name__, r.turn.user_text == 'x')") == "Response False\n"

    def test_an_assignment_in_a_loop(self, cells: Day) -> None:
        """Indented lines work, too."""
        cells.run("answers = []\nfor _ in range(2):\n    r = %chat Really?\n    answers.append(r)")
        assert cells.asked == ["Really?", "Really?"]
        assert cells.printed("print(len(answers))") == "2\n"

    def test_help_is_still_help(self, cells: Day) -> None:
        """``%chat?`` shows IPython's help and sends nothing."""
        assert cells.run("%chat?").status == "ok"
        assert cells.asked == []


class TestValuesInOptions:
    def test_are_filled_in(self, cells: Day) -> None:
        """In cells and lines, in values with blanks, after an equals sign, and as numbers."""
        cells.run("model, words = 'gpt-4o', {'n': 9}")
        cells.run('%%chat -m {{ model }} --max-output-tokens={{ words["n"] }}\nHi')
        cells.run("%chat --model {{model}} Hello")
        assert [request.body["model"] for request in cells.server.requests] == ["gpt-4o", "gpt-4o"]
        assert cells.asked == ["Hi", "Hello"]

    def test_are_never_options(self, cells: Day) -> None:
        """A value that looks like options is one value."""
        cells.run("model = '--dry-run -q gpt'")
        cells.run("%chat -m {{ model }} Hello")
        assert [request.body["model"] for request in cells.server.requests] == ["--dry-run -q gpt"]

    def test_are_filled_into_ids(self, cells: Day) -> None:
        """Of conversations to open, to fork and to delete."""
        cells.run("session = 'first talk'")
        assert cells.printed("%chat_use {{ session }}").startswith("started 'first talk'")
        cells.run("%chat Hi")
        assert cells.printed("%chat_fork {{ session }}/copy") == "forked 'first talk' to 'first talk/copy'\n"
        assert cells.printed('%chat_delete "{{ session }}"') == "deleted 'first talk'\n"

    @pytest.mark.parametrize(
        "cell",
        [
            "%chat_use {session}",
            "%chat_use run-$session",
            "%chat_new ${session}",
            "%chat -c {session} Hi",
            "%%chat -m $session\nHi",
        ],
    )
    def test_other_braces_are_refused(self, cells: Day, cell: str) -> None:
        """No conversation of that name is started, and nothing is sent."""
        cells.run("session = 'first talk'")
        assert "is not filled in: write {{ session }} for the value of session." in cells.error(cell)
        listed = cells.run("%chat_list").contents("execute_result")[0]["data"]["text/plain"]
        assert "$" not in listed.replace("$0", "")
        assert "{" not in listed
        assert cells.asked == []

    def test_an_unknown_name_is_an_error(self, cells: Day) -> None:
        """It starts no conversation."""
        assert "'sesion' is not defined in the notebook" in cells.error("%chat_use {{ sesion }}")


class TestNearIds:
    @pytest.mark.parametrize("near", ["Weekly-Report-7", "weekly_report_7", "weekly-reprot-7"])
    def test_a_typing_error_is_refused(self, cells: Day, near: str) -> None:
        """The line says how to resume the one that exists, and how to start the other."""
        cells.run("%chat_use weekly-report-7")
        assert cells.error(f"%chat_use {near}") == (
            f"ConversationNotFoundError: There is no conversation '{near}', but there is 'weekly-report-7': %chat_use "
            f"weekly-report-7 resumes that one, %chat_new {near} starts another one."
        )

    def test_other_digits_are_another_conversation(self, cells: Day) -> None:
        """It is started, and the near one is named."""
        cells.run("%chat_use daily-report-7")
        assert cells.printed("%chat_use daily-report-8") == (
            "started 'daily-report-8' (there is 'daily-report-7', too; %chat_use daily-report-7 resumes it)\n"
        )

    def test_a_batch_run_is_not_refused(self, cells: Day) -> None:
        """What it prints does not depend on what else is stored."""
        cells.run("%chat_use batch-report")
        ran = cells.run("%chat_use Batch-report", allow_stdin=False)
        assert ran.stdout == "started 'Batch-report'\n"


class TestValuesInMessages:
    def test_what_only_reads_is_called(self, cells: Day) -> None:
        """A summary of a DataFrame is computed in the message."""
        cells.run("import pandas as pd; df = pd.DataFrame({'x': ['a', 'b', 'a'], 'y': [1, 2, 4]})")
        cells.run("%chat {{ len(df) }} rows, {{ df.groupby('x').y.sum().to_dict() }}")
        assert cells.asked == ['3 rows, {"a": 5, "b": 2}']

    def test_what_is_refused_is_not_sent(self, cells: Day) -> None:
        """The error has the two lines that do it."""
        cells.run("import pandas as pd; df = pd.DataFrame({'y': [1, 2, 4]})")
        assert cells.error("%chat {{ df.query('y > 1') }}") == (
            "InvalidArgumentError: {{ df.query('y > 1') }} calls DataFrame.query(), which is not one of the calls "
            "that are allowed here. Two lines do it: value = df.query('y > 1') in a cell, and {{ value }} here; or add "
            "--raw to send braces as typed."
        )
        assert cells.asked == []
