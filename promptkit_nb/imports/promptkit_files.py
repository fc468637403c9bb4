"""PromptKit's file store: a directory ``conv-ID`` for each conversation, nested if the id has slashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from promptkit_nb.imports.lines import check_length, lines_of, open_counted
from promptkit_nb.imports.promptkit_messages import SOURCE, StoredConversation, messages_of, object_of, summaries_of
from promptkit_nb.imports.reader import Unit
from promptkit_nb.imports.records import DamagedRecordError, mapping_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from promptkit_nb.imports.building import Reading
    from promptkit_nb.imports.reader import Source
    from promptkit_nb.state import ConversationState, Head

STATE, MESSAGES, SUMMARIES = "state.json", "messages.jsonl", "summaries.jsonl"


class PromptKitFiles:
    """Reads the conversations below a directory."""

    source: ClassVar[str] = SOURCE

    def __init__(self, source: Source, reading: Reading) -> None:
        """Read from these files."""
        self._source = source
        self._reading = reading

    def units(self) -> list[Unit]:
        """Return a unit for each directory of a conversation; its stamp covers all of its files."""
        files: dict[str, list[Unit]] = {}
        for file in self._source.files:
            directory, _, name = file.location.rpartition("/")
            if name in (STATE, MESSAGES, SUMMARIES) and "/conv-" in directory:
                files.setdefault(directory, []).append(file)
        return [
            Unit.at(
                directory,
                str(self._source.root),
                sum(file.size for file in found),
                " ".join(str(file.stamp) for file in found),
            )
            for directory, found in files.items()
            if any(file.location.endswith(f"/{STATE}") for file in found)
        ]

    def ordered(self, changed: Sequence[Unit], unchanged: Mapping[Unit, Sequence[Head]]) -> list[Unit]:
        """Return the conversations in the order of their directories."""
        del unchanged
        return list(changed)

    def read(self, unit: Unit, advance: Callable[[int], object]) -> Iterator[ConversationState]:
        """Yield the conversation of a directory."""
        notes = self._reading.notes
        with open_counted(unit.path / STATE, advance) as file:
            state = object_of(file.read(), f"{unit.name}/{STATE}", notes)
        conversation_id = text_of(state.get("id"))
        if not conversation_id:
            raise DamagedRecordError(f"{STATE} names no conversation")
        for name in ("lists", "media"):
            if (unit.path / name).is_dir():
                notes.add_omission(f"folders {name!r}")
        stored = StoredConversation(
            conversation_id,
            state,
            messages_of(self._lines(unit, MESSAGES, advance), f"{unit.name}/{MESSAGES}", notes),
            summaries_of(self._lines(unit, SUMMARIES, advance), f"{unit.name}/{SUMMARIES}", notes),
            mapping_of(state.get("metadata")),
        )
        conversation = stored.conversation(self._reading)
        if conversation is None:
            notes.add_omission("conversations without messages")
        else:
            yield conversation

    def _lines(self, unit: Unit, name: str, advance: Callable[[int], object]) -> Iterator[bytes]:
        path = unit.path / name
        if not path.exists():
            return
        with open_counted(path, advance) as file:
            for number, line in lines_of(file):
                try:
                    check_length(line)
                except DamagedRecordError as error:
                    self._reading.notes.add_damaged(f"{unit.name}/{name}:{number}", str(error))
                else:
                    yield line


def open_reader(source: Source, reading: Reading) -> PromptKitFiles | None:
    """Return a reader if there is a state file of a conversation."""
    found = any(file.location.endswith(f"/{STATE}") for file in source.files)
    return PromptKitFiles(source, reading) if found else None
