"""``import_chats`` reads what PromptKit's own Go code wrote, from Redis and from files, and equals what Go loads.

``tests/data/imports/promptkit`` holds the keys and files that Go's stores wrote, and what their ``Load`` returned.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from other_tools import DATA, checksums
from promptkit_nb import ImportSourceError, InvalidArgumentError, MemoryStore, import_chats, usage_df

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promptkit_nb import ConversationState

LOADED: dict[str, dict[str, Any]] = json.loads((DATA / "promptkit" / "load.json").read_text("utf-8"))
TEXTS = ("persistent-chat", "user:bob:session:1", "with/slash", "appended", "summarized-excluded", "legacy")


@pytest.fixture(scope="module")
def service(redis_url: str) -> Iterator[redis.Redis]:
    """A Redis database with the keys that Go wrote, each expiring in a day."""
    client = redis.Redis.from_url(redis_url.replace("/0", "/7"))
    for each in json.loads((DATA / "promptkit" / "redis.json").read_text("utf-8")):
        key, value = each["key"], each["value"]
        if each["type"] == "string":
            client.set(key, value)
        elif each["type"] == "list":
            client.rpush(key, *value)
        elif each["type"] == "set":
            client.sadd(key, *value)
        else:
            client.hset(key, mapping=value)
        client.expire(key, 86_400)
    yield client
    client.flushdb()
    client.close()


def texts_of_go(state: dict[str, Any]) -> list[str]:
    """Return what the messages say, as Go's ``GetContent`` does; of a failed tool, its error."""
    texts = []
    for message in state["Messages"]:
        result = message.get("tool_result") or {}
        parts = result.get("parts") or message.get("parts") or []
        text = "".join(part.get("text", "") for part in parts) if parts else message.get("content", "")
        texts.append(text or result.get("error", ""))
    return texts


def said(state: ConversationState) -> list[str]:
    """Return what the messages of an imported conversation say, the system prompt among them if it was one."""
    return [message.content for message in state.messages]


@pytest.mark.parametrize("conversation_id", TEXTS)
def test_conversation_equals_what_go_loads(service: redis.Redis, conversation_id: str) -> None:
    """Messages, user, tokens, cost and metadata are the same."""
    store = MemoryStore()
    import_chats(service, store)
    state, go = store.get(f"promptkit:{conversation_id}"), LOADED["redis"][conversation_id]
    assert said(state) == texts_of_go(go)
    assert state.user_id == (go["UserID"] or "default")
    spent = [message["cost_info"] for message in go["Messages"] if "cost_info" in message]
    assert state.token_count == sum(each["input_tokens"] + each["output_tokens"] for each in spent)
    costs = [Decimal(str(round(each["total_cost_usd"], 12))) for each in spent]
    assert sum(turn.cost or Decimal(0) for turn in state.turns) == sum(costs)
    ours = {key: state.metadata[key] for key in go["Metadata"] or {}}
    assert json.loads(json.dumps(ours), parse_int=float) == (go["Metadata"] or {})  # Go reads integers as floats


def test_half_migrated_conversation_recovers_more_than_go(service: redis.Redis) -> None:
    """Go's ``Load`` sees no user and no metadata; they are in the document that is left."""
    assert (LOADED["redis"]["half"]["UserID"], LOADED["redis"]["half"]["Metadata"]) == ("", None)
    store = MemoryStore()
    import_chats(service, store)
    state = store.get("promptkit:half")
    assert said(state) == texts_of_go(LOADED["redis"]["half"])
    assert (state.user_id, state.metadata["user.locale"], state.metadata["big"]) == ("alice", "pt", 9007199254740993)


@pytest.mark.parametrize("conversation_id", list(LOADED["files"]))
def test_files_equal_what_go_loads(conversation_id: str) -> None:
    """Ids with slashes are nested folders; an empty conversation is counted but not created."""
    store = MemoryStore()
    report = import_chats(DATA / "promptkit" / "files", store)
    assert report.left_out["conversations without messages"] == 1
    go = LOADED["files"][conversation_id]
    if go["Messages"]:
        assert said(store.get(f"promptkit:{conversation_id}")) == texts_of_go(go)
    else:
        assert f"promptkit:{conversation_id}" not in report.created


def test_details_of_a_turn(service: redis.Redis) -> None:
    """Tool calls, results, reasoning, latency, models and the recorded cost, in the order of the source."""
    store = MemoryStore()
    import_chats(service, store)
    state = store.get("promptkit:persistent-chat")
    first, second = state.turns
    assert (first.cost, first.price_source, first.latency_ms, first.model) == (
        Decimal("0.00048"),
        "reported",
        812.0,
        "gpt-4o-mini",
    )
    assert [message.role for message in second.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [(call.name, call.arguments) for call in second.messages[1].tool_calls] == [
        ("weather", '{"city":"Lisbon"}'),
        ("broken", "{}"),
    ]
    assert (second.messages[-1].reasoning, second.usage.cached_tokens, second.finish_reason) == (
        "The tool says sunny.",
        64,
        "stop",
    )
    assert state.metadata["configured_system_prompt"] == "You help."


@pytest.mark.parametrize(("kind", "ranges"), [("excluded", [(0, 4), (5, 9)]), ("included", [(0, 2), (2, 5)])])
def test_summaries_cover_the_turns_of_their_messages(
    service: redis.Redis, kind: str, ranges: list[tuple[int, int]]
) -> None:
    """Their ranges are of messages, and whether the end is included, the next one tells."""
    store = MemoryStore()
    import_chats(service, store)
    state = store.get(f"promptkit:summarized-{kind}")
    place = {turn.id: at for at, turn in enumerate(state.turns)}
    assert [(place[str(each.first_turn)], place[str(each.last_turn)]) for each in state.summaries] == ranges


def test_server_stays_as_it_was(service: redis.Redis) -> None:
    """No key changes, and no expiry is renewed."""

    def seen() -> dict[bytes, tuple[bytes | None, int]]:
        return {key: (service.dump(key), service.expiretime(key)) for key in service.scan_iter()}

    before = seen()
    import_chats(service, MemoryStore())
    assert seen() == before


def test_files_stay_as_they_were() -> None:
    """No byte changes."""
    before = checksums(DATA / "promptkit" / "files")
    import_chats(DATA / "promptkit" / "files", MemoryStore())
    assert checksums(DATA / "promptkit" / "files") == before


def test_second_run_writes_nothing(service: redis.Redis) -> None:
    """The server does not report changes, so everything is read and compared."""
    store = MemoryStore()
    import_chats(service, store)
    before = {head.conversation_id: head.revision for head in store.list()}
    report = import_chats(service, store)
    assert sorted(report.unchanged) == sorted(before)
    assert {head.conversation_id: head.revision for head in store.list()} == before


def test_prefix_is_part_of_the_id(service: redis.Redis) -> None:
    """Two prefixes on one server may hold the same ids."""
    store = MemoryStore()
    import_chats(service, store)
    import_chats(service, store, prefix="acme")
    assert store.get("promptkit:acme:persistent-chat").user_id == "carol"
    assert store.get("promptkit:persistent-chat").user_id == "alice"


def test_url_is_read_and_its_password_not_shown(service: redis.Redis, redis_url: str) -> None:
    """A URL works like a client."""
    url = redis_url.replace("/0", "/7")
    report = import_chats(url.replace("redis://", "redis://:@"), MemoryStore())
    assert report.source == url
    del service


def test_nothing_under_a_prefix_names_the_others(service: redis.Redis) -> None:
    """The error says where conversations are."""
    with pytest.raises(ImportSourceError, match=r"under prefix='none'\. Some have prefix='acme', 'promptkit'"):
        import_chats(service, MemoryStore(), prefix="none")


def test_server_that_does_not_answer_is_named() -> None:
    """The error says what to check."""
    with pytest.raises(ImportSourceError, match=r"The Redis server at 127\.0\.0\.1:1/0 cannot be read"):
        import_chats("redis://127.0.0.1:1/0", MemoryStore())
    with pytest.raises(InvalidArgumentError, match="decodes responses"):
        import_chats(redis.Redis(decode_responses=True), MemoryStore())


def test_damaged_keys_stop_nothing(service: redis.Redis) -> None:
    """A key of another type, broken JSON, and parts without a state are reported; the rest is imported."""
    start = "promptkit:conversation:"
    service.set(f"{start}broken:meta", "{")
    service.rpush(f"{start}broken:messages", "{", '{"role": "user", "content": "Hi"}', '{"role": 5}')
    service.set(f"{start}odd:meta", '{"id": "odd"}')
    service.set(f"{start}odd:messages", "not a list")
    service.rpush(f"{start}orphan:messages", "{}")
    store = MemoryStore()
    try:
        report = import_chats(service, store)
    finally:
        service.delete(*(key for name in ("broken", "odd", "orphan") for key in service.keys(f"{start}{name}*")))
    assert store.get("promptkit:broken").turns[0].user_text == "Hi"
    assert {row.place for row in report.damaged} == {
        "broken:meta",
        "broken:messages:1",
        "broken:messages:3",
        "odd",
        "orphan",
    }
    assert len(report.created) == 9


def test_cost_per_user(service: redis.Redis) -> None:
    """``usage_df`` has the cost by user."""
    store = MemoryStore()
    import_chats(service, store)
    usage = usage_df(store, by=["source", "user_id"]).set_index("user_id")
    assert usage.loc["alice", "source"] == "promptkit"
    assert usage.loc["alice", "cost_usd"] == pytest.approx(0.00198 * 2 + 0.00246 + 0.0012 * 2)
