"""Writers and Redis servers, killed while they write: nothing that was paid is lost or counted twice."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from signal import SIGKILL
from typing import TYPE_CHECKING

from endurance.report import Report
from endurance.verbs import OLD, SHARED, VERBS, Entry, Writer, read_journal, repeat
from promptkit_nb import usage_df
from promptkit_nb.stores.disk import DiskStore
from promptkit_nb.stores.redis import RedisStore
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from promptkit_nb.stores.base import StateStore

FORK = multiprocessing.get_context("fork")  # the libraries are imported already
WRITERS = 4
NANO_USD = 1e-9
DIES_WITHIN_S = 60
TTL_S = 7 * 86400
DELETING = {"delete", "delete_prefix", "cleanup"}
TOKENS = 10
"""Of each turn."""


def write(open_store: Callable[[], StateStore], journal: Path, name: str, verb: str, seed: int) -> None:
    """Call a verb of a store until killed."""
    Writer(open_store(), journal, name, seed).run(verb)


@dataclass(slots=True)
class Paid:
    """All payments of one conversation, by turn and by summary, and the turns that may have been dropped."""

    turns: dict[str, Decimal] = field(default_factory=dict)
    summaries: dict[str, Decimal] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


class Checker:
    """Recomputes what a store must hold from the journals of all writers."""

    def __init__(self, report: Report) -> None:
        """Start with an empty store."""
        self._report = report
        self.alive: dict[str, Paid] = {}
        self.spent: Counter[str] = Counter()
        self.paid = Decimal(0)
        self.open = 0
        self.maybe_open = 0

    def enter(self, store: StateStore, name: str, journal: Path) -> Entry | None:
        """Record what a writer did; return the call in which it died, after repeating it or checking its outcome."""
        done, begun = read_journal(journal)
        for entry in done:
            self._enter(entry, name)
        if begun is not None and self._happened(store, begun, name):
            self._enter(begun, name)
        return begun

    def check(self, store: StateStore, names: set[str]) -> None:
        """Compare the store with what was entered; of conversations, read those with these names."""
        listed = {head.conversation_id for head in store.list()}
        self.alive = {name: paid for name, paid in self.alive.items() if name in listed or OLD not in name}
        self._expect(listed == self.alive.keys(), f"listed {listed ^ self.alive.keys()}")
        for name in sorted(names & self.alive.keys() & listed):
            self._check(store, name, self.alive[name])
        for scope, spent in self.spent.items():
            found = store.spending(scope)
            expected = Decimal(spent)
            self._expect(found.spent == expected, f"{scope}: {found.spent} spent, {expected} paid")
        reserved = store.spending("total").reserved
        most = self.open + self.maybe_open
        self._expect(self.open <= reserved <= most, f"{reserved} reserved, not {self.open} to {most}")

    def check_usage(self, store: StateStore) -> None:
        """Compare the usage by user with all turns and summaries ever paid, including deleted conversations."""
        found = float(usage_df(store).cost_usd.sum())
        self._expect(abs(found - float(self.paid)) < NANO_USD, f"usage_df says {found}, {self.paid} was paid")

    def _check(self, store: StateStore, name: str, paid: Paid) -> None:
        head, state = store.head(name), store.get(name)
        stored = {turn.id for turn in state.stored_turns if not turn.inherited}
        missing = paid.turns.keys() - paid.dropped - stored
        self._expect(not missing, f"{name}: lost {missing}")
        self._expect(stored <= paid.turns.keys(), f"{name}: {stored - paid.turns.keys()} was not paid")
        cost = sum([*paid.turns.values(), *paid.summaries.values()], Decimal(0))
        self._expect(head.total_cost == state.total_cost == cost, f"{name}: {head.total_cost} in total, {cost} paid")
        tokens = TOKENS * len(paid.turns)
        self._expect(head.token_count == tokens, f"{name}: {head.token_count} tokens, {tokens} paid")
        self._expect(head.turn_count == len(state.turns), f"{name}: {head.turn_count} turns, {len(state.turns)} shown")

    def _expect(self, true: bool, otherwise: str) -> None:  # noqa: FBT001 - as in ``assert``
        self._report.expect(true=true, otherwise=otherwise)

    def _happened(self, store: StateStore, begun: Entry, name: str) -> bool:
        """Repeat the calls that can be repeated; for the others, check whether they took effect."""
        there = {each: each in store.conversation_ids() for each in begun.names}  # type: ignore[attr-defined]  # of ours
        if begun.verb in {"append", "replace", "settle"}:
            repeat(store, begun, name)
            return True
        if begun.verb == "add_summary":
            return begun.key in [summary.text for summary in store.get(begun.names[0]).summaries]
        if begun.verb == "reserve":
            self.maybe_open += 1
            return False
        if begun.verb in DELETING:
            for each in begun.names:
                if not there[each]:
                    self.alive.pop(each, None)
            return False
        return begun.verb == "set" or there.get(begun.names[0], False)

    def _enter(self, entry: Entry, name: str) -> None:
        first = entry.names[0] if entry.names else ""
        usd = Decimal(entry.usd)
        self.paid += usd * (entry.verb != "settle")  # which leaves neither a turn nor a summary
        if entry.verb in {"append", "replace"}:
            self.alive.setdefault(first, Paid()).turns[entry.key] = usd
        elif entry.verb == "add_summary":
            self.alive[first].summaries[entry.key] = usd
        elif entry.verb == "set":
            self.alive[first].dropped.add(entry.key)
        elif entry.verb in {"reserve", "settle"}:
            self.open += 1 if entry.verb == "reserve" else -1
        elif entry.verb in {"create", "fork"}:
            self.alive[first] = Paid()
        elif entry.verb in DELETING:
            for each in entry.names:
                self.alive.pop(each, None)
        if usd:
            for scope in ("total", f"user:{name}"):
                self.spent[scope] += usd  # type: ignore[assignment]  # a counter adds any numbers


def run(kind: str, directory: Path, kills: int, seed: int = 1) -> Report:
    """Kill this many writers of a store, four at a time, spread over all verbs; check it after each time."""
    report, chance = Report(f"kills, {kind}"), random.Random(seed)  # noqa: S311 - no secret
    checker, in_flight, server_kills = Checker(report), Counter[str](), 0
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(directory, durable=True)) if kind == "redis" else None
        open_store: Callable[[], StateStore]
        open_store = (
            partial(RedisStore, server.url, ttl=TTL_S) if server else partial(DiskStore, directory / "s", TTL_S)
        )
        verbs = [verb for _ in range(kills) for verb in VERBS][:kills]
        for start in range(0, kills, WRITERS):
            names = [f"w{start + number}" for number, _ in enumerate(verbs[start : start + WRITERS])]
            victims = []
            for number, name in enumerate(names):
                journal = directory / f"{name}.journal"
                args = (open_store, journal, name, verbs[start + number], chance.random())
                victims.append(FORK.Process(target=write, args=args))
            for victim in victims:
                victim.start()
            for name, victim in zip(names, victims, strict=True):
                victim.join(DIES_WITHIN_S)
                report.expect(true=victim.exitcode == -SIGKILL, otherwise=f"{name} ended with {victim.exitcode}")
                victim.kill()
            if server and start % (5 * WRITERS) == 0:
                server.kill()
                server.start()
                server_kills += 1
            with open_store() as store:
                for name in names:
                    begun = checker.enter(store, name, directory / f"{name}.journal")
                    in_flight[begun.verb if begun else "between two"] += 1
                checker.check(store, {each for each in checker.alive if each.startswith(tuple(names))} | {SHARED})
        with open_store() as store:
            checker.check(store, set(checker.alive))
            checker.check_usage(store)
    shutil.rmtree(directory / "s", ignore_errors=True)
    turns = sum(len(paid.turns) for paid in checker.alive.values())
    report.figures = {"writers killed": kills, "servers killed": server_kills, "turns kept": turns}
    report.figures |= {"conversations": len(checker.alive), "killed during": dict(in_flight.most_common())}
    return report
