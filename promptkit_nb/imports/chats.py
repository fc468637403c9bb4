"""``import_chats``: recognizes a source by its contents, reads it, and stores its conversations."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

from promptkit_nb import errors
from promptkit_nb.frontend import is_batch
from promptkit_nb.ids import check_own_user, check_user_id
from promptkit_nb.imports.building import Reading, ToolOutput
from promptkit_nb.imports.notes import Notes
from promptkit_nb.imports.prices import CallPrices
from promptkit_nb.imports.records import BROKEN, text_of
from promptkit_nb.imports.report import ImportReport, ReportRow
from promptkit_nb.imports.sources import name_of, not_understood, source_of
from promptkit_nb.imports.writing import RECORD, Origin, Writer
from promptkit_nb.stores.checks import check_store
from promptkit_nb.text.plain_text import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from promptkit_nb.imports.reader import OpenReader, Reader, Source, Unit
    from promptkit_nb.pricing import Price
    from promptkit_nb.state import ConversationState, Head
    from promptkit_nb.stores.base import StateStore
    from promptkit_nb.views.filters import Moment

READERS = {
    "promptkit": "promptkit_nb.imports.promptkit",
    "claude-code": "promptkit_nb.imports.claude_code",
    "codex": "promptkit_nb.imports.codex",
    "llm": "promptkit_nb.imports.llm",
}
"""The readers, each a module with ``open_reader``, in the order in which they are tried."""

READER_VERSION = 1
"""Part of each stamp: increase it if readers find more than before, so that everything is read again."""

PROGRESS_DELAY_S = 2


def import_chats(
    source: Any,  # a path, a URL, or a client of redis-py, which may not be installed
    store: StateStore,
    *,
    kind: str | None = None,
    user_id: str = "default",
    prefix: str | None = None,
    id_prefix: str | None = None,
    since: Moment | None = None,
    tool_output: ToolOutput = "cut",
    prices: Mapping[str, Price | tuple[float, float]] | None = None,
    dry_run: bool = False,
) -> ImportReport:
    """Import another tool's conversations into a store, and report the outcome of each.

    Args:
        source: PromptKit's Redis (a URL or a client) or its files, the sessions of Claude Code
            (``~/.claude/projects``) or Codex (``~/.codex/sessions``), or a ``logs.db`` of llm; it is recognized
            by its contents.
        store: Where to write. Through ``for_user``, conversations of other users are skipped.
        kind: ``"promptkit"``, ``"claude-code"``, ``"codex"`` or ``"llm"``, to read only what that tool wrote.
        user_id: The owner of conversations without a recorded user.
        prefix: The prefix of PromptKit's keys in Redis; by default ``"promptkit"``.
        id_prefix: Added in front of the ids, which are ``SOURCE:ID``, such as ``codex:01a21ee0-…``.
        since: Only conversations last active at or after this moment, given as in ``turns_df``.
        tool_output: ``"cut"`` keeps 4,000 characters of each tool's output, ``"keep"`` all, ``"drop"`` none.
        prices: Your own prices, as in ``OpenAIProvider``; they take precedence over the list.
        dry_run: Only report what would be done.

    The source is only read. Running the import again adds new turns and conversations, and never overwrites changes
    made in the store. Costs are those recorded by the source; otherwise they are computed from the list prices on the
    day of each call, and ``price_source`` says so. Tokens that were not recorded are missing. Logs may contain
    anything that the tool has read, including files and keys. Raises ``ImportSourceError`` if there is nothing to read.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from promptkit_nb import MemoryStore, import_chats
    >>> folder = Path(tempfile.mkdtemp()) / "conv-persistent-chat"
    >>> folder.mkdir()
    >>> state = {"id": "persistent-chat", "user_id": "alice", "last_accessed_at": "2026-11-27T21:17:38Z"}
    >>> _ = (folder / "state.json").write_text(json.dumps(state))
    >>> _ = (folder / "messages.jsonl").write_text('{"role": "user", "content": "My name is Alice"}')
    >>> import_chats(folder.parent, store := MemoryStore()).created
    ('promptkit:persistent-chat',)
    """
    check_store(store)
    own_user = getattr(store, "user_id", None)
    if user_id != "default":
        check_own_user(own_user, check_user_id(user_id))
    _check_words(kind=kind, tool_output=tool_output, prefix=prefix, id_prefix=id_prefix)
    notes = Notes()
    reading = Reading(notes, CallPrices(notes, prices), tool_output, id_prefix or "")
    found = source_of(source, prefix)
    importing = _Import(store, reading, Writer(store, user_id, reading.id_prefix, dry_run), _since(since), prices)
    opened = [reader for name in READERS if kind in (None, name) if (reader := _opened(name, found, reading))]
    importing.plan(opened)
    if not importing.has_units:
        raise not_understood(found, notes.damaged)
    importing.run()
    damaged = [ReportRow(outcome="damaged", place=place, detail=problem) for place, problem in notes.damaged]
    return ImportReport(
        source=name_of(found),
        rows=(*importing.writer.rows, *importing.unrecognized(), *damaged),
        unknown_types=dict(notes.unknown_types.most_common()),
        unpriced_models=dict(notes.unpriced_models.most_common()),
        left_out=dict(notes.omissions.most_common()),
        dry_run=dry_run,
    )


class _Import:
    """One import: runs each reader in turn, with the records of previous imports."""

    def __init__(
        self,
        store: StateStore,
        reading: Reading,
        writer: Writer,
        since: datetime | None,
        prices: Mapping[str, object] | None,
    ) -> None:
        """Start with nothing to read."""
        self.writer = writer
        self._store = store
        self._reading = reading
        self._since = since
        options = [READER_VERSION, reading.tool_output, reading.id_prefix, writer.user_id, sorted(prices or ())]
        self._options = hashlib.blake2b(repr(options).encode(), digest_size=6).hexdigest()
        self._planned: list[tuple[Reader, Unit]] = []
        self._seen: dict[str, bool] = {}

    @property
    def has_units(self) -> bool:
        """Whether any reader recognized anything."""
        return any(self._seen.values())

    def plan(self, readers: Sequence[Reader]) -> None:
        """Let each reader find its units; units unchanged since the previous import are only reported.

        A file that one reader recognizes is not opened by the others.
        """
        found = [(reader, *self._known(reader)) for reader in readers]
        for reader, changed, unchanged in found:
            rest = [unit for unit in changed if not self._seen[unit.key]]
            planned = dict.fromkeys(reader.ordered(rest, unchanged))
            for unit in planned:
                self._seen[unit.key] = True
                self._planned.append((reader, unit))
            for unit, heads in unchanged.items():
                if unit not in planned:
                    self.writer.rows += [self._unchanged(reader, unit, head) for head in heads]

    def _known(self, reader: Reader) -> tuple[list[Unit], dict[Unit, list[Head]]]:
        """Return the units that may have to be read, and the unchanged ones with what was imported from them."""
        prefix = f"{self._reading.id_prefix}{reader.source}:"
        heads = self._store.list(prefix, sort_by="conversation_id", descending=False)
        self.writer.heads.update({head.conversation_id: head for head in heads})
        imported: dict[str, list[Head]] = {}
        for head in heads:
            imported.setdefault(str(_record_of(head).get("unit")), []).append(head)
        changed: list[Unit] = []
        unchanged: dict[Unit, list[Head]] = {}
        for unit in reader.units():
            known = imported.get(unit.key, [])
            if known and self._is_complete(unit, known):
                unchanged[unit] = known
                self._seen[unit.key] = True
            elif not self._seen.setdefault(unit.key, False):  # else it is unchanged for a reader before this one
                changed.append(unit)
        return changed, unchanged

    def run(self) -> None:
        """Read and write everything that was planned."""
        if not self._planned:
            return
        try:
            with _progress(sum(unit.size for _, unit in self._planned)) as (advance, show):
                for reader, unit in self._planned:
                    self._import_whole(reader, unit, advance)
                    show(len(self.writer.rows))
        finally:
            self.writer.flush()

    def unrecognized(self) -> list[ReportRow]:
        """Return a row for each file that has a matching name, but not a supported format."""
        return [
            ReportRow(outcome="skipped", place=place, detail="not in a supported format")
            for place, is_recognized in self._seen.items()
            if not (is_recognized or self._seen.get(place.rpartition("/")[0]))
        ]

    def _import_whole(self, reader: Reader, unit: Unit, advance: Callable[[int], object]) -> None:
        """Write a unit's conversations; if it breaks off, the report says where."""
        try:
            self._import_unit(reader, unit, advance)
        except BROKEN as error:
            detail = preview(f"{type(error).__name__}: {error}", 300)
            self.writer.rows.append(ReportRow(outcome="skipped", source=reader.source, place=unit.name, detail=detail))

    def _import_unit(self, reader: Reader, unit: Unit, advance: Callable[[int], object]) -> None:
        """Write a unit's conversations; the last one gets the stamp, which marks the unit as complete."""
        held: ConversationState | None = None
        since: datetime | None = None
        for state in reader.read(unit, advance):
            if self._since is not None and state.updated_at < self._since:
                self._reading.notes.add_omission("conversations before since=")
                since = self._since
                continue
            if held is not None:
                self._write(held, unit, None)
            held = state
        if held is not None:
            self._write(held, unit, self._stamp(unit, since))

    def _write(self, state: ConversationState, unit: Unit, stamp: str | None) -> None:
        self.writer.write(state, Origin(unit.key, unit.name, stamp))

    def _stamp(self, unit: Unit, since: datetime | None) -> str | None:
        """Return the stamp of a completely imported unit; it has ``since`` if older conversations were left out."""
        if unit.stamp is None:
            return None
        return f"{unit.stamp}-{self._options}{'' if since is None else f' since {since.isoformat()}'}"

    def _is_complete(self, unit: Unit, known: Sequence[Head]) -> bool:
        """Return whether a stored stamp says that this import would find nothing new in a unit."""
        expected = self._stamp(unit, None)
        if expected is None:
            return False
        stamps = [text_of(_record_of(head).get("stamp")) for head in known]
        if self._since is None or expected in stamps:
            return expected in stamps
        begins = f"{expected} since "
        sinces = (stamp.removeprefix(begins) for stamp in stamps if stamp.startswith(begins))
        return any(datetime.fromisoformat(since) <= self._since for since in sinces)

    @staticmethod
    def _unchanged(reader: Reader, unit: Unit, head: Head) -> ReportRow:
        return ReportRow(
            outcome="unchanged",
            source=reader.source,
            conversation_id=head.conversation_id,
            place=unit.name,
            turns=head.turn_count,
        )


def _record_of(head: Head) -> Mapping[str, object]:
    record = head.metadata.get(RECORD)
    return record if isinstance(record, dict) else {}


def _opened(name: str, source: Source, reading: Reading) -> Reader | None:
    open_reader: OpenReader = import_module(READERS[name]).open_reader
    return open_reader(source, reading)


def _since(since: Moment | None) -> datetime | None:
    if since is None:
        return None
    from promptkit_nb.views.filters import Filters  # noqa: PLC0415 - pandas, half a second

    return Filters.of(since=since).since


def _check_words(*, kind: object, tool_output: object, prefix: object, id_prefix: object) -> None:
    if kind not in (None, *READERS):
        raise errors.InvalidArgumentError(f"kind={kind!r:.80} is unknown: use one of {', '.join(READERS)}.")
    if tool_output not in get_args(ToolOutput):
        raise errors.InvalidArgumentError(f"tool_output={tool_output!r:.80} is unknown: use 'cut', 'keep' or 'drop'.")
    for name, value in (("prefix", prefix), ("id_prefix", id_prefix)):
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise errors.InvalidArgumentError(f"{name}={value!r:.80} is not text; leave it out, or give any text.")


@contextmanager
def _progress(size: int) -> Iterator[tuple[Callable[[int], object], Callable[[int], object]]]:
    """Show a progress bar of bytes and conversations after two seconds, except in a batch run, which would save it."""
    if is_batch():
        yield (lambda _: None), (lambda _: None)
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - a fifth of a second

    with tqdm(
        total=size or None, desc="Importing", unit="B", unit_scale=True, delay=PROGRESS_DELAY_S, leave=False
    ) as bar:
        yield bar.update, lambda count: bar.set_postfix_str(f"{count:,} conversations", refresh=False)
