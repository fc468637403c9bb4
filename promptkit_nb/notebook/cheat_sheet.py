"""What to type: one screen of help, and the line after ``%load_ext``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from promptkit_nb.text.near_names import similar_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from promptkit_nb.notebook.session import PromptKit

_MAGIC = re.compile(r"%(chat\w*)")

CHEAT_SHEET = """\
Ask             %chat TEXT                 or %%chat, with the text below it
                {{ df }}  {{ len(df) }}    the value of a variable, in the text or an option
                -m MODEL   -m ONE,TWO      another model; two, side by side
                --dry-run  --fresh         what would it cost? / ask again although nothing changed
                --to VARIABLE  --code      keep the answer / put its Python into the next cell
                --tools NAMES              functions that the model may call
An error        %chat_fix                  asks about the cell that failed; {{ error }} quotes it
In a panel      %chat_panel                chat beside the notebook
Over a column   df.promptkit.ask("…{{ column }}…", into="NAME")    %chat_rows lists the runs
Look            %chat_history              what was said       %chat_tree     versions and branches
                %chat_usage                tokens and cost     %chat_context  what is sent next
                %chat_search WORDS         find an old answer  %chat_list     all conversations
Conversations   %chat_use ID or TITLE      open or create one  %chat_new      start another
                %chat_title TEXT           name it             %chat_fork ID  copy it
                %chat_export FILE          .json, .md, .html   %chat_delete ID
                %chat_import FOLDER        those of Claude Code, Codex, llm, or PromptKit
Change          %%chat_edit N              correct an answer   %chat_undo     the last turn
                %chat_restore ID or MODEL  bring a version or a branch back
                %chat_summarize            shorten what is sent, or drop it: %chat_truncate
Settings        %chat_setup                who answers, budgets, store; alone, it shows them
                %chat_models               what the server offers
Running a cell again answers in place; unchanged cells are answered from the store, free of charge.
Every magic explains itself: %chat --help"""


def sheet_of(known: Iterable[str]) -> str:
    """Return the sheet; magics that it does not name are in its last line."""
    others = sorted(set(known) - {"chat_help", *_MAGIC.findall(CHEAT_SHEET)})
    return "\n".join([CHEAT_SHEET, *([f"Also: %{'  %'.join(others)}"] if others else [])])


def greeting(options: PromptKit) -> str:
    """Return the line after ``%load_ext``: what to type next, and who answers. Nothing is opened for it."""
    provider = options.provider or os.environ.get("PROMPTKIT_PROVIDER", "")
    model = options.model or os.environ.get("PROMPTKIT_MODEL", "")
    is_chosen = options.base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY")
    if not provider and not is_chosen:
        return "No model is chosen yet. Try the demo: %chat_setup --provider demo (%chat_help shows more)"
    from promptkit_nb.providers.endpoints import DEFAULT_MODEL  # noqa: PLC0415 - only if it may answer

    default_model = provider if provider not in {"", "openai"} else DEFAULT_MODEL
    who = "the built-in demo" if provider == "demo" else model or default_model
    return f"Type %chat and a message; {who} answers (%chat_help shows more)"


def unknown_magic(name: str, known: Iterable[str]) -> str:
    """Return the message for a magic that does not exist.

    >>> unknown_magic("chat_hist", ["chat", "chat_history", "chat_list"])
    'There is no %chat_hist. Did you mean %chat_history? %chat_help lists all.'
    """
    candidates = sorted(known)
    own = {each.removeprefix("chat_"): each for each in candidates}
    near = [each for each in candidates if each.startswith(name)]
    near += [own[each] for each in similar_names(name.removeprefix("chat_"), own)]
    hint = f" Did you mean %{near[0]}?" if near else ""
    return f"There is no %{name}.{hint} %chat_help lists all."
