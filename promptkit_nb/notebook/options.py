"""The notebook's options: set by ``%chat_setup`` or ``%config PromptKit.…``, checked when they are used."""

from __future__ import annotations

from typing import Any

from traitlets import CUnicode
from traitlets.config import Configurable


def _option(default: str, meaning: str) -> Any:
    """Return an option. Any value becomes text: one that traitlets refuses would break every later ``%load_ext``."""
    return CUnicode(default, allow_none=True, help=meaning).tag(config=True)


class PromptKit(Configurable):
    """Options of the chat magics; empty means the default."""

    provider = _option("", "Who answers: 'openai' (any OpenAI-compatible server) or 'demo'.")
    model = _option("", "The model of calls that name none; else PROMPTKIT_MODEL.")
    base_url = _option("", "The address of an OpenAI-compatible server; else OPENAI_BASE_URL.")
    store = _option("disk", "Where conversations are kept: 'disk', 'memory', a directory, or 'redis://host'.")
    user = _option("default", "Whose conversations these are.")
    max_tokens = _option("", "The context window of calls that name none, in tokens: all that is sent.")
    budget = _option("", "What may be spent, in US dollars, as in '0.50', '2/user', '5/day' or '20/total'.")
    replay = _option("auto", "Stored answers: 'auto' gives them again, 'strict' asks nothing, 'off' always asks.")
    recording = _option("", "An exported conversation whose answers may be given again.")
    pack = _option("", "The PromptPack file whose prompt new conversations use.")
    prompt = _option("", "Which prompt of that pack; may be left out where it has one.")
