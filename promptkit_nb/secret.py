"""Wraps keys and passwords, so that they never appear in outputs, tracebacks, logs, or pickles."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, AnyStr, Generic
from weakref import ReferenceType, ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

SHORTEST_CHARACTERS = 6
"""Shorter secrets are not replaced in texts, because they could be part of any word."""

SHOWN = "[key]"
_SHORTEST_WITH_DIGIT = 8
_SHORTEST_OF_LETTERS = 20


class Secret:
    """A key or a password. Only ``reveal()`` returns it; it is not part of any repr, attribute, or pickle.

    Functions that take a key as an argument wrap it at once, because tracebacks may show arguments and local variables.

    >>> key = Secret("sk-0123456789")
    >>> key, len(key.reveal())
    (Secret('[key]'), 13)
    """

    __slots__ = ("__weakref__", "reveal")

    reveal: Callable[[], str]
    """Return the text; this is a function, so that listing the attributes does not show it."""

    def __init__(self, text: str = "", *, strips: bool = True) -> None:
        """Wrap the text, without whitespace around it unless ``strips`` is false."""
        held = text.strip() if strips else text
        self.reveal = lambda: held

    @classmethod
    def of(cls, value: object, *, strips: bool = True) -> Self | None:
        """Wrap an argument; return ``None`` if it is not text."""
        return cls(str.__str__(value), strips=strips) if isinstance(value, str) else None

    def __repr__(self) -> str:
        """Show whether there is a secret."""
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
        """Return this object, which is immutable."""
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[()]]:
        """Pickle as an empty secret."""
        return Secret, ()

    def hidden_in(self, text: str) -> str:
        """Return the text with the secret replaced."""
        found = self.reveal()
        return text.replace(found, SHOWN) if len(found) >= SHORTEST_CHARACTERS else text


def hide_in_logs(secrets: Iterable[Secret], loggers: Iterable[str]) -> None:
    """From now on, replace these secrets in records of these loggers, such as URLs and a server's headers."""
    _hidden.add(secrets)
    for name in loggers:
        logging.getLogger(name).addFilter(_hidden)  # adding it again changes nothing


class StreamHider(Generic[AnyStr]):
    """Replaces secrets in text or bytes that arrive in pieces; the possible beginning of a secret is held back.

    >>> hide = StreamHider([Secret("sk-0123456789")], "")
    >>> hide("It is sk-01"), hide("23456789!"), hide.rest()
    ('It is ', '[key]!', '')
    """

    def __init__(self, secrets: Iterable[Secret], empty: AnyStr) -> None:
        """Replace secrets that look like keys; words such as ``ollama``, as used for local servers, are left alone."""
        self._held: AnyStr = empty
        self._hidden: list[Callable[[], AnyStr]] = []
        for secret in secrets:
            if is_distinctive(secret.reveal()):
                self._hidden.append(_as_type_of(empty, secret.reveal))
        self._shown: AnyStr = SHOWN.encode() if isinstance(empty, bytes) else SHOWN

    def __call__(self, piece: AnyStr) -> AnyStr:
        """Return the text held back so far and the piece, up to a possible beginning of a secret."""
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
        """Return the text held back, at the end of the stream."""
        held, self._held = self._held, self._held[:0]
        return held


def is_distinctive(text: str) -> bool:
    """Return whether a key is unlike any word, so that it can be replaced in answers."""
    has_digit = any(character.isdigit() for character in text)
    return len(text) >= (_SHORTEST_WITH_DIGIT if has_digit else _SHORTEST_OF_LETTERS)


def _as_type_of(empty: AnyStr, reveal: Callable[[], Any]) -> Callable[[], Any]:
    return (lambda: reveal().encode()) if isinstance(empty, bytes) else reveal


def _overlap(text: AnyStr, reveal: Callable[[], AnyStr]) -> int:
    """Return how many characters at the end of the text are the beginning of the secret."""
    lengths = range(min(len(text), len(reveal()) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(reveal()[:length])), 0)


class _HidingFilter(logging.Filter):
    """Replaces the secrets in log records."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: list[ReferenceType[Secret]] = []

    def add(self, secrets: Iterable[Secret]) -> None:
        """Also replace these secrets, as long as they are in use."""
        self._secrets = [*(known for known in self._secrets if known() is not None), *map(ref, secrets)]

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass on every record, without the secrets."""
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
