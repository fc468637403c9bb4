"""The notebook's options: set by ``%chat_setup`` or ``%config PromptKit.…``, checked when they are used."""

from __future__ import annotations

from traitlets import Unicode
from traitlets.config import Configurable


class PromptKit(Configurable):
    """Options of the chat magics; empty means the default."""

    provider = Unicode("", help="Who answers: 'openai' (any OpenAI-compatible server) or 'demo'.").tag(config=True)
    model = Unicode("", help="The model of calls that name none; else PROMPTKIT_MODEL.").tag(config=True)
    base_url = Unicode("", help="The address of an OpenAI-compatible server; else OPENAI_BASE_URL.").tag(config=True)
    store = Unicode("disk", help="Where conversations are kept: 'disk', 'memory', or a directory.").tag(config=True)
    user = Unicode("default", help="Whose conversations these are.").tag(config=True)
    pack = Unicode("", help="The PromptPack file whose prompt new conversations use.").tag(config=True)
    prompt = Unicode("", help="Which prompt of that pack; may be left out where it has one.").tag(config=True)
