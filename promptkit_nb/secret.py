"""Keys and passwords, held so that nothing that shows a value shows them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, AnyStr, Generic
from weakref import ReferenceType, ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

SHORTEST_CHARACTERS = 6
"""Shorter ones are not looked for in texts, where they could be part of any word."""

SHOWN = "[key]"
_SHORTEST_WITH_DIGIT = 8
_SHORTEST_OF_LETTERS = 20


class Secret:
    """A key or a password. Only ``reveal()`` returns it; it is in no repr, no attribute, no pickle.

    Functions that take a key as an argument put it into one at once, because tracebacks may show arguments and local
    variables.

    >>> key = Secret("sk-0123456789")
    >>> key, len(key.reveal())
    (Secret('[key]'), 13)
    """

    __slots__ = ("__weakref__", "reveal")

    reveal: Callable[[], str]
    """Return the text: a function, so that nothing that shows attributes shows it."""

    def __init__(self, text: str = "", *, strips: bool = True) -> None:
        """Hold the text, without whitespace around it unless ``strips`` is false."""
        held = text.strip() if strips else text
        self.reveal = lambda: held

    @classmethod
    def of(cls, value: object, *, strips: bool = True) -> Self | None:
        """Return the secret that an argument holds, ``None`` if it is not text."""
        return cls(str.__str__(value), strips=strips) if isinstance(value, str) else None

    def __repr__(self) -> str:
        """Say whether there is one."""
        return f"Secret({SHOWN if self else ''!r})"

    def __bool__(self) -> bool:
        """Return whether it is not empty."""
        return bool(self.reveal())

    def __eq__(self, other: object) -> bool:
        """Compare the texts."""
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self.reveal())

    def __deepcopy__(self, memo: object) -> Self:
        """Return this one, which never changes."""
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[()]]:
        """Pickle as an empty one."""
        return Secret, ()

    def hidden_in(self, text: str) -> str:
        """Return the text without it."""
        found = self.reveal()
        return text.replace(found, SHOWN) if len(found) >= SHORTEST_CHARACTERS else text


def hide_in_logs(secrets: Iterable[Secret], loggers: Iterable[str]) -> None:
    """Replace these secrets in what the loggers of libraries log from now on, such as URLs and a server's headers."""
    _hidden.add(secrets)
    for name in loggers:
        logging.getLogger(name).addFilter(_hidden)  # adding it again changes nothing


class StreamHider(Generic[AnyStr]):
    """Replaces secrets in text or bytes that arrive in pieces; what may be the beginning of one is held back.

    >>> hide = StreamHider([Secret("sk-0123456789")], "")
    >>> hide("It is sk-01"), hide("23456789!"), hide.rest()
    ('It is ', '[key]!', '')
    """

    def __init__(self, secrets: Iterable[Secret], empty: AnyStr) -> None:
        """Replace what looks like a key: a word such as ``ollama``, which local servers get, is left alone."""
        self._held: AnyStr = empty
        self._hidden: list[Callable[[], AnyStr]] = []
        for secret in secrets:
            if is_distinctive(secret.reveal()):
                self._hidden.append(_as_type_of(empty, secret.reveal))
        self._shown: AnyStr = SHOWN.encode() if isinstance(empty, bytes) else SHOWN

    def __call__(self, piece: AnyStr) -> AnyStr:
        """Return the piece, with what was held back, as far as it cannot be the beginning of a secret."""
        if not self._hidden:
            return piece
        piece = self._held + piece
        held = 0
        for reveal in self._hidden:
            piece = piece.replace(reveal(), self._shown)
            held = max(held, _overlap(piece, reveal))
        cut = len(piece) - held
        self._held = piece[cut:]
        return piece[:cut]

    def rest(self) -> AnyStr:
        """Return what is held back, at the end."""
        held, self._held = self._held, self._held[:0]
        return held


def is_distinctive(text: str) -> bool:
    """Whether a key is unlike any word, so that it can be replaced in answers."""
    has_digit = any(character.isdigit() for character in text)
    return len(text) >= (_SHORTEST_WITH_DIGIT if has_digit else _SHORTEST_OF_LETTERS)


def _as_type_of(empty: AnyStr, reveal: Callable[[], Any]) -> Callable[[], Any]:
    return (lambda: reveal().encode()) if isinstance(empty, bytes) else reveal


def _overlap(text: AnyStr, reveal: Callable[[], AnyStr]) -> int:
    """Return how much of the end of the text is the beginning of the secret."""
    lengths = range(min(len(text), len(reveal()) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(reveal()[:length])), 0)


class _HidingFilter(logging.Filter):
    """Replaces the secrets in log records."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: list[ReferenceType[Secret]] = []

    def add(self, secrets: Iterable[Secret]) -> None:
        """Replace these, too, as long as they are in use."""
        self._secrets = [*(known for known in self._secrets if known() is not None), *map(ref, secrets)]

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record on, without the secrets."""
        said = record.getMessage()
        hidden = said
        for secret in (known() for known in self._secrets):
            hidden = hidden if secret is None else secret.hidden_in(hidden)
        if hidden != said:
            record.msg, record.args = hidden, ()
        return True


_hidden = _HidingFilter()


def without_frames(error: BaseException) -> BaseException:
    """Return an error of another library without its traceback, whose frames hold keys and headers."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
