"""Tool calls side by side: promptkit_nb, the OpenAI Agents SDK, and chatlas run the same scripts against one server.

The others need an environment of their own, whose Python is the argument::

    python -m venv build/peers && build/peers/bin/pip install openai-agents chatlas
    python tests/benchmarks/tool_peers.py build/peers/bin/python

For each script, the table shows how many requests were sent, or what went wrong: a function that did not run with the
right arguments, a request that OpenAI would refuse, or an exception. It exits with 1 if promptkit_nb fails a script.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(1, str(Path(__file__).parents[1]))  # for the server of the tests

if TYPE_CHECKING:
    from collections.abc import Callable

    from chat_server import Reply

TIMEOUT_S = 120
QUESTION = "How much did ACME and Bolt order?"
TOTALS = {"ACME": 200.5, "Bolt": 42.0}
asked: list[str] = []


def order_total(customer: str) -> float:
    """Return the total of a customer's orders, in dollars."""
    asked.append(customer)
    return TOTALS[customer]


def scripts() -> dict[str, tuple[list[Reply], list[str]]]:
    """Return each script: the replies of the server, and the arguments that the function has to be called with."""
    from chat_server import Reply  # noqa: PLC0415 - of the tests, which the others do not need
    from tool_replies import calling, pieces, tool_call  # noqa: PLC0415 - as above

    acme, bolt = (tool_call("order_total", {"customer": name}, f"call_{name}") for name in TOTALS)
    wrong, encoded = tool_call("order_total", {"name": "ACME"}), json.dumps(json.dumps({"customer": "ACME"}))
    done = Reply(text="Done.")
    return {
        "one call": ([calling(acme), done], ["ACME"]),
        "two calls at once": ([calling(acme, bolt), done], ["ACME", "Bolt"]),
        "wrong arguments, then right ones": ([calling(wrong), calling(acme), done], ["ACME"]),
        "two calls without ids that share an index": (
            [pieces({**acme, "index": 0}, {**bolt, "index": 0}), done],
            ["ACME", "Bolt"],
        ),
        "arguments as JSON in JSON, without an index": (
            [pieces(tool_call("order_total", encoded)), done],
            ["ACME"],
        ),
    }


def ask_here(url: str) -> str:
    """Ask with this package."""
    from promptkit_nb import ConversationManager, OpenAIProvider  # noqa: PLC0415 - each process needs one library

    conversation = ConversationManager(OpenAIProvider("m", base_url=url, max_retries=0)).new_conversation()
    return conversation.send(QUESTION, tools=[order_total]).content


def ask_with_agents(url: str) -> str:
    """Ask with the OpenAI Agents SDK."""
    import asyncio  # noqa: PLC0415 - as above

    import agents  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own
    from openai import AsyncOpenAI  # noqa: PLC0415 - as above

    agents.set_tracing_disabled(disabled=True)
    model = agents.OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url=url, api_key="k", max_retries=0))
    agent = agents.Agent("analyst", model=model, tools=[agents.function_tool(order_total)])

    async def ask() -> object:
        run = agents.Runner.run_streamed(agent, QUESTION)
        async for _ in run.stream_events():
            pass
        return run.final_output

    return str(asyncio.run(ask()))


def ask_with_chatlas(url: str) -> str:
    """Ask with chatlas."""
    import chatlas  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own

    chat = chatlas.ChatOpenAICompletions(model="m", base_url=url, api_key="k")
    chat.register_tool(order_total)
    return str(chat.chat(QUESTION, echo="none"))


LIBRARIES: dict[str, Callable[[str], str]] = {
    "promptkit_nb": ask_here,
    "openai-agents": ask_with_agents,
    "chatlas": ask_with_chatlas,
}


def outcome(python: str, library: str, replies: list[Reply], expected: list[str]) -> tuple[bool, str]:
    """Run a script in a process of its own; return whether it went well, with the number of requests or the fault."""
    from chat_server import ChatServer  # noqa: PLC0415 - as above
    from strict_servers import openai_violation, strict  # noqa: PLC0415 - as above

    with ChatServer() as server:
        refused = strict(server, openai_violation, replies=replies)
        command = [python, __file__, library, server.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        requests = len(server.requests)
    if refused:
        return False, f"refused: {refused[0]}"
    if ended.returncode:
        return False, (ended.stderr.strip().splitlines() or ["ended without a word"])[-1]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    if told["asked"] != expected or "Done." not in told["answer"]:
        return False, f"called with {told['asked']}, answered {told['answer']!r:.40}"
    return True, f"{requests} requests"


def main(python: str) -> int:
    """Print a line for each script and library; return 1 if one of this package's fails."""
    failed = 0
    for name, (replies, expected) in scripts().items():
        print(name)
        for library in LIBRARIES:
            is_ours = library == "promptkit_nb"
            went_well, words = outcome(sys.executable if is_ours else python, library, replies, expected)
            print(f"    {library:14} {'✓' if went_well else '✗'} {words:.120}")
            failed += is_ours and not went_well
    return int(failed > 0)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        answer = LIBRARIES[sys.argv[1]](sys.argv[2])
        print(json.dumps({"asked": asked, "answer": answer}))
    elif len(sys.argv) == 2:
        sys.exit(main(sys.argv[1]))
    else:
        sys.exit(__doc__)
