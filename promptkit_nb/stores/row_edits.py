"""Changes of stored conversations, except appends: turns, branches, summaries, settings, metadata, forks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from promptkit_nb.codec import checked, format_of, turn_and_line
from promptkit_nb.context_hash import chain_of
from promptkit_nb.ids import check_conversation_id
from promptkit_nb.json_values import json_copy
from promptkit_nb.stores import checks
from promptkit_nb.stores.branching import archived, forked, restored_branch, restored_version, with_answer
from promptkit_nb.stores.index import notebook_entries, turn_entries
from promptkit_nb.stores.layout import head_of
from promptkit_nb.stores.row_access import writing
from promptkit_nb.stores.row_erasure import RowErasure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.state import Branch, Head, NotebookNote, Settings, Summary
    from promptkit_nb.stores.base import Charge
    from promptkit_nb.stores.layout import Record
    from promptkit_nb.turns import Turn


class RowEdits(RowErasure):
    """Changes conversations; the docstrings of ``StateStore`` apply."""

    @writing
    def replace(self, conversation_id: str, turn_id: str, turn: Turn, *, charge: Charge | None = None) -> Head:
        """Replace a turn; the previous one is kept as a version."""
        return self._add_answer(conversation_id, turn_id, turn, charge, is_current=True)

    @writing
    def add_version(self, conversation_id: str, turn_id: str, turn: Turn, *, charge: Charge | None = None) -> Head:
        """Add a turn to the versions of another, which stays current."""
        return self._add_answer(conversation_id, turn_id, turn, charge, is_current=False)

    def _add_answer(
        self, conversation_id: str, turn_id: str, turn: Turn, charge: Charge | None, *, is_current: bool
    ) -> Head:
        """Add a turn to the answers at the place of another."""
        conversation_id = self._stored_id(check_conversation_id(conversation_id))
        record, frame = self._visible_with_frame(conversation_id)
        self._check_charge(charge)
        turn, line = turn_and_line(turn)
        place = self._place_of(conversation_id, record, turn_id)
        if self.backend.place_of(record.cid, turn.id) is not None:
            return self._save(conversation_id, record)
        record, frame, new_place = with_answer(record, frame, place, turn, is_current=is_current)
        self._put_turn(conversation_id, record, new_place, turn, line)
        self._enter(charge)
        self._count_turn_again(record.user_id, turn)
        return self._save(conversation_id, self._counted(record), frame)

    @writing
    def archive(self, conversation_id: str, start: int, stop: int, *, as_branch: str) -> Head:
        """Move the turns from position ``start`` up to ``stop`` (excluded) to a branch with this id."""
        conversation_id = self._stored_id(check_conversation_id(conversation_id))
        record, frame = self._visible_with_frame(conversation_id)
        checks.check_range(start, stop, record.turn_count)
        checks.check_branch_id(as_branch, [branch.id for branch in frame.branches])
        if start == stop:
            return self._save(conversation_id, record)
        record = self._counted(record)
        chain = None
        if start == 0 and stop < record.turn_count:  # turns leave at the front, so read them for their hash
            chain = chain_of(self._state(conversation_id, record).turns[:stop], frame.context_hash)
        now = record.updated_at
        record, frame = archived(record, frame, start, stop, branch_id=as_branch, chain=chain, now=now)
        return self._save(conversation_id, record, frame)

    @writing
    def restore(self, conversation_id: str, version_or_branch: Turn | Branch | str) -> Head:
        """Restore a previous version or a branch, given as a value or by its id; what it replaces is kept."""
        conversation_id = self._stored_id(check_conversation_id(conversation_id))
        record, frame = self._visible_with_frame(conversation_id)
        wanted = getattr(version_or_branch, "id", version_or_branch)
        branch = next((each for each in frame.branches if each.id == wanted), None)
        if branch is not None:
            record, frame = restored_branch(record, frame, branch, self._clock())
            return self._save(conversation_id, self._counted(record), frame)
        restored = restored_version(frame, self._place_of(conversation_id, record, wanted))
        if restored is frame:
            return self._save(conversation_id, record)
        return self._save(conversation_id, self._counted(record), restored)

    @writing
    def add_summary(self, conversation_id: str, summary: Summary, *, charge: Charge | None = None) -> Head:
        """Add a summary and its cost to the totals."""
        conversation_id = self._stored_id(check_conversation_id(conversation_id))
        record, frame = self._visible_with_frame(conversation_id)
        summary = checks.checked_summary(summary)
        self._check_charge(charge)
        self._enter(charge)
        record = structs.replace(
            record, totals=record.totals.plus_paid([summary]), format=max(record.format, format_of([summary]))
        )
        return self._save(conversation_id, self._counted(record), replace(frame, summaries=(*frame.summaries, summary)))

    def update_metadata(self, conversation_id: str, /, **changes: object) -> Head:
        """Merge JSON values into the metadata."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        return self._update_metadata(conversation_id, json_copy(changes, "metadata"))

    @writing
    def _update_metadata(self, conversation_id: str, changes: Mapping[str, object]) -> Head:
        record, frame = self._visible_with_frame(conversation_id)
        if not changes:
            return self._save(conversation_id, record)
        frame = replace(frame, metadata={**frame.metadata, **changes})
        return self._save(conversation_id, self._counted(record), frame)

    def update_settings(
        self,
        conversation_id: str,
        settings: Settings,
        *,
        system_prompt: str | None,
        expected_revision: int | None = None,
    ) -> Head:
        """Replace the settings and the system prompt, without reading or writing the turns."""
        conversation_id = self.stored_id(check_conversation_id(conversation_id))
        settings = checks.checked_settings(settings)
        return self._update_settings(conversation_id, settings, system_prompt, expected_revision)

    @writing
    def _update_settings(
        self, conversation_id: str, settings: Settings, system_prompt: str | None, expected_revision: int | None
    ) -> Head:
        record, frame = self._visible_with_frame(conversation_id)
        checks.check_revision(conversation_id, record.revision, expected_revision)
        changed = checked(replace(frame, settings=settings, system_prompt=system_prompt))
        return self._save(conversation_id, self._counted(record), changed)

    def fork(self, conversation_id: str, new_id: str) -> Head:
        """Copy a conversation; the copy's turns are inherited. ``ConversationExistsError`` if the id is taken."""
        return self._fork(conversation_id, new_id, {})

    def fork_with_metadata(self, conversation_id: str, new_id: str, /, **changes: object) -> Head:
        """Copy a conversation, and merge JSON values into the metadata of the copy, in one transaction."""
        return self._fork(conversation_id, new_id, json_copy(changes, "metadata"))

    @writing
    def _fork(self, conversation_id: str, new_id: str, changes: Mapping[str, object]) -> Head:
        conversation_id, new_id = (self._stored_id(check_conversation_id(each)) for each in (conversation_id, new_id))
        record, frame = self._visible_with_frame(conversation_id)
        if self._find(new_id, erase_expired=True) is not None:
            raise checks.exists_already(new_id)
        copy, inherited = forked(record, frame, cid=self.backend.next_cid(), now=self._clock())
        self.backend.copy_turns(record.cid, copy.cid)
        if self.ttl_s is not None:
            self._put_used(conversation_id, record)
        return self._save(new_id, copy, replace(inherited, metadata={**inherited.metadata, **changes}))

    @writing
    def set_notebook(self, conversation_id: str, notebook: NotebookNote | None) -> Head:
        """Record the notebook of the conversation; its revision and times do not change."""
        conversation_id = self._stored_id(check_conversation_id(conversation_id))
        record, frame = self._visible_with_frame(conversation_id)
        noted = structs.replace(record, notebook=notebook)
        for entry in notebook_entries(conversation_id, record):
            self.backend.drop_entry(entry)
        for entry in notebook_entries(conversation_id, noted):
            self.backend.put_entry(entry, None)  # never expires: reading extends the conversation's expiry
        if (record.notebook is None) != (notebook is None):
            self._enter_turns(conversation_id, record if notebook is None else noted, drop=notebook is None)
        self._put_used(conversation_id, noted)
        return head_of(conversation_id, noted, frame.settings, frame.metadata)

    def _enter_turns(self, conversation_id: str, record: Record, *, drop: bool) -> None:
        """Write the entries of all turns of a notebook, or drop them."""
        lifetime_s = self._lifetime_s(record)
        for entry in turn_entries(conversation_id, record, self.backend.turns(record.cid).items()):
            if drop:
                self.backend.drop_entry(entry)
            else:
                self.backend.put_entry(entry, lifetime_s)
