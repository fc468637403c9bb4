"""Which conversations a prefix holds, and which are a user's: two lists that outlive what the server lets expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Command = tuple[str | bytes | int, ...]

_OF_USER = b"\xff"  # in no text as UTF-8, and behind all that is

# Takes an id out of the lists of a user who was seen not to have it, if nobody wrote since.
_UNLIST = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('SREM', KEYS[3], ARGV[3])
end
"""


class Listed(NamedTuple):
    """An id that is listed as a user's."""

    conversation_id: str
    user_id: str

    @property
    def member(self) -> bytes:
        """What stands in the sorted set: by the id first, so that those that begin alike stand together."""
        return self.conversation_id.encode() + _OF_USER + self.user_id.encode()


class RedisLists:
    """The sorted set of all ids, and the set of each user's."""

    def __init__(self, client: Any, key: Callable[[str], bytes]) -> None:
        """Keep the lists under these keys."""
        self._client = client
        self._key = key
        self._unlist = client.register_script(_UNLIST)

    def added(self, listed: Listed) -> list[Command]:
        """Return the commands that list an id."""
        return [
            ("ZADD", self._key("ids"), 0, listed.member),
            ("SADD", self._key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]

    def removed(self, listed: Listed) -> list[Command]:
        """Return the commands that list an id no longer."""
        return [
            ("ZREM", self._key("ids"), listed.member),
            ("SREM", self._key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]

    def find(self, reader: Any, prefix: str, user_id: str | None) -> list[Listed]:
        """Return the ids that begin so, of one user or of all, in their order."""
        if user_id is not None:
            members = (member.decode() for member in reader.smembers(self._key(f"u:{user_id}")))
            return [Listed(name, user_id) for name in sorted(members) if name.startswith(prefix)]
        low = b"[" + prefix.encode() if prefix else b"-"
        high = b"(" + prefix.encode() + 2 * _OF_USER if prefix else b"+"
        found = (member.partition(_OF_USER) for member in reader.zrangebylex(self._key("ids"), low, high))
        return [Listed(name.decode(), owner.decode()) for name, _, owner in found]

    def forget(self, ghosts: Iterable[tuple[Listed, bytes]]) -> None:
        """Take out of the lists what was seen to be there no longer, each with the record that was seen instead."""
        with self._client.pipeline(transaction=False) as pipeline:
            for listed, seen in ghosts:
                keys = [self._key(name) for name in (f"h:{listed.conversation_id}", "ids", f"u:{listed.user_id}")]
                args = [seen, listed.member, listed.conversation_id.encode()]
                self._unlist(keys=keys, args=args, client=pipeline)
            pipeline.execute()
