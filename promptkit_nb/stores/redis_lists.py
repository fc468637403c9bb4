"""The lists of a store on Redis: the ids of all conversations, and those of each user."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from promptkit_nb.stores.redis_keys import Keys

Command = tuple[str | bytes | int, ...]

AT_ONCE = 1000
_OF_USER = b"\xff"  # never part of UTF-8 text, and sorted after all of it


class Listed(NamedTuple):
    """An id in the lists of its user."""

    conversation_id: str
    user_id: str

    @property
    def member(self) -> bytes:
        """The member of the sorted set: the id first, so that ids with a common prefix are adjacent."""
        return self.conversation_id.encode() + _OF_USER + self.user_id.encode()


class RedisLists:
    """The sorted set of all ids, and the set of each user's."""

    def __init__(self, keys: Keys) -> None:
        """Keep the lists under these keys."""
        self._keys = keys

    def added(self, listed: Listed) -> list[Command]:
        """Return the commands that list an id, and remove it from the lists of version 0.1."""
        return [
            ("ZADD", self._keys("ids"), 0, listed.member),
            ("SADD", self._keys(f"u:{listed.user_id}"), listed.conversation_id.encode()),
            *(self._removed(listed, self._keys.old) if self._keys.has_old else ()),
        ]

    def removed(self, listed: Listed) -> list[Command]:
        """Return the commands that remove an id from the lists."""
        old = self._removed(listed, self._keys.old) if self._keys.has_old else []
        return [*self._removed(listed, self._keys), *old]

    def find(self, reader: Any, prefix: str, user_id: str | None) -> list[Listed]:
        """Return the ids that have the prefix, of one user or of all, sorted."""
        if not self._keys.has_old:
            return self._find(reader, self._keys, prefix, user_id)
        # the old lists first, so that an id that is moved in between is not missed
        found = {*self._find(reader, self._keys.old, prefix, user_id)}
        return sorted(found.union(self._find(reader, self._keys, prefix, user_id)))

    def find_old(self, reader: Any) -> list[Listed]:
        """Return all ids in the lists of version 0.1."""
        return self._find(reader, self._keys.old, "", None)

    def forget(self, client: Any, gone: Sequence[tuple[Listed, bytes | None]]) -> None:
        """Remove ids of deleted conversations from the lists; each comes with the record that was found instead.

        If one of these records is written meanwhile, its group of ids stays listed until the next attempt.
        """
        for start in range(0, len(gone), AT_ONCE):
            part = gone[start : start + AT_ONCE]
            names = [f"h:{listed.conversation_id}" for listed, _ in part]
            with suppress(exceptions.WatchError, exceptions.NoPermissionError), client.pipeline() as pipeline:
                pipeline.watch(*self._keys.both(names))
                found = [*self._keys.values(pipeline.mget(self._keys.both(names)))]
                pipeline.multi()
                for (listed, before), now in zip(part, found, strict=True):
                    for command in self.removed(listed) if now == before else ():
                        pipeline.execute_command(*command)
                pipeline.execute()

    @staticmethod
    def _find(reader: Any, key: Callable[[str], bytes], prefix: str, user_id: str | None) -> list[Listed]:
        if user_id is not None:
            members = (member.decode() for member in reader.smembers(key(f"u:{user_id}")))
            return [Listed(name, user_id) for name in sorted(members) if name.startswith(prefix)]
        low = b"[" + prefix.encode() if prefix else b"-"
        high = b"(" + prefix.encode() + 2 * _OF_USER if prefix else b"+"
        found = (member.partition(_OF_USER) for member in reader.zrangebylex(key("ids"), low, high))
        return [Listed(name.decode(), owner.decode()) for name, _, owner in found]

    @staticmethod
    def _removed(listed: Listed, key: Callable[[str], bytes]) -> list[Command]:
        return [
            ("ZREM", key("ids"), listed.member),
            ("SREM", key(f"u:{listed.user_id}"), listed.conversation_id.encode()),
        ]
