"""The usage dashboard, from Python: filters apply to everything, and a conversation can be opened."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from promptkit_nb import ConversationManager, DemoProvider, InvalidArgumentError, MemoryStore, usage_dashboard
from promptkit_nb.errors import StoreUnavailableError
from storing import Foreign, said

if TYPE_CHECKING:
    from promptkit_nb.views.dashboard import UsageDashboard

PNG = b"\x89PNG"


@pytest.fixture
def store() -> MemoryStore:
    """A memory store of three users; one model has no price, and bob's conversation is the most expensive."""
    store = MemoryStore()
    for day, user, model, cost in (
        (1, "alice", "small", "0.5"),
        (2, "bob", "<b>large</b>", "2"),
        (3, "carol", "mine", None),
    ):
        turn = said(
            f"I am {user}",
            created_at=datetime(2026, 3, day, 12, tzinfo=UTC),
            model=model,
            cost=None if cost is None else Decimal(cost),
        )
        store.append(f"{user}'s", turn, user_id=user)
    return store


def table(dashboard: UsageDashboard, name: str) -> list[tuple[str, ...]]:
    """Return the rows of a table."""
    (rows,) = (each["rows"] for each in dashboard.tables if each["name"] == name)
    return list(rows)


def shown(dashboard: UsageDashboard) -> list[str]:
    """Return the selected conversations, the most expensive first."""
    return [row[0] for row in table(dashboard, "Most expensive conversations")]


def ask(dashboard: UsageDashboard, **filters: str) -> None:
    """Change filters like the page does."""
    dashboard.filters = {**dashboard.filters, **filters}
    dashboard.asked += 1
    assert dashboard.answered == dashboard.asked


class TestWhatIsShown:
    """Totals, charts and tables."""

    def test_total_counts_turns_without_a_price(self, store: MemoryStore) -> None:
        """Turns without a price are counted, not added as zero."""
        assert usage_dashboard(store).total == "3 turns · 30 tokens · $2.50 + 1 turn without a price"

    def test_tables_are_by_model_user_and_conversation(self, store: MemoryStore) -> None:
        """The most expensive row is first; unknown prices are shown as such."""
        dashboard = usage_dashboard(store)
        assert table(dashboard, "Models") == [
            ("<b>large</b>", "1", "8", "2", "$2.00"),
            ("small", "1", "8", "2", "$0.5000"),
            ("mine", "1", "8", "2", "price unknown"),
        ]
        assert [(row[0], row[-1]) for row in table(dashboard, "Users")] == [
            ("bob", "$2.00"),
            ("alice", "$0.5000"),
            ("carol", "price unknown"),
        ]
        assert table(dashboard, "Most expensive conversations") == [
            ("bob's", "bob", "1", "10", "$2.00"),
            ("alice's", "alice", "1", "10", "$0.5000"),
            ("carol's", "carol", "1", "10", "price unknown"),
        ]

    def test_three_charts_are_drawn(self, store: MemoryStore) -> None:
        """Cost over time, tokens over time, and the most expensive conversations."""
        dashboard = usage_dashboard(store)
        cost, tokens, conversations = dashboard.charts
        assert cost["title"] == "Cost: $2.5000, and 1 turn without a price"
        assert [(each["name"], each["bars"]) for each in cost["series"]] == [
            ("<b>large</b>", [[6, 0.0, 1.0, "$2.00", 0.0]]),
            ("small", [[5, 0.0, 0.25, "$0.5000", 0.0]]),
        ]
        assert (cost["names"]["6"], cost["labels"][0], cost["ticks"][-1]) == ("2 Mar 2026", [6, "2 Mar"], [1.0, "$2"])
        assert tokens["title"] == "Tokens: 30"
        assert [each["name"] for each in tokens["series"]] == ["input", "output"]
        assert conversations == {
            "title": "Most expensive conversations",
            "rows": [["bob's", 1.0, "$2.00"], ["alice's", 0.25, "$0.5000"]],
        }

    def test_figures_come_first(self, store: MemoryStore) -> None:
        """What was spent, turns and tokens; unpriced turns apart."""
        assert usage_dashboard(store).tiles == [
            ["spent", "$2.50"],
            ["turns", "3"],
            ["tokens", "30"],
            ["turns without a price", "1"],
        ]

    def test_deleted_conversations_are_shown_apart(self, store: MemoryStore) -> None:
        """If there are any."""
        store.delete("bob's")
        dashboard = usage_dashboard(store)
        assert dashboard.tiles[:2] == [["spent", "$2.50"], ["of it on deleted conversations", "$2.00"]]
        assert table(dashboard, "Most expensive conversations")[0][0] == "(no longer stored)"

    def test_one_user_has_no_table_of_users(self, store: MemoryStore) -> None:
        """And no column."""
        dashboard = usage_dashboard(store, user_id="bob")
        assert [each["name"] for each in dashboard.tables] == ["Models", "Most expensive conversations"]
        assert table(dashboard, "Most expensive conversations") == [("bob's", "1", "10", "$2.00")]

    def test_conversations_have_their_titles(self) -> None:
        """That of a notebook is its file."""
        store = MemoryStore()
        store.append("nb:analysis:1c9353f9", said("Hi"))
        dashboard = usage_dashboard(store)
        assert shown(dashboard) == ["analysis.ipynb"]
        dashboard.chosen = "nb:analysis:1c9353f9"
        assert (dashboard.opened["title"], dashboard.opened["id"]) == ("analysis.ipynb", "nb:analysis:1c9353f9")

    def test_empty_store_has_a_dashboard(self) -> None:
        """An empty store shows zeros."""
        dashboard = usage_dashboard(MemoryStore())
        assert dashboard.total == "0 turns · 0 tokens · $0.00"
        assert shown(dashboard) == []


class TestFilters:
    """Filters from the page and from the call."""

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ({"user_id": "alice"}, ["alice's"]),
            ({"model": "<b>large</b>"}, ["bob's"]),
            ({"prefix": "car"}, ["carol's"]),
            ({"since": "2026-03-02"}, ["bob's", "carol's"]),
            ({"until": "2026-03-02"}, ["bob's", "alice's"]),
            ({"since": "2026-03-02", "until": "2026-03-02"}, ["bob's"]),
        ],
    )
    def test_each_filter_narrows_everything(
        self, store: MemoryStore, filters: dict[str, Any], found: list[str]
    ) -> None:
        """Tables and totals show the selected rows, however the filters were given."""
        dashboard = usage_dashboard(store)
        ask(dashboard, **filters)
        first = usage_dashboard(store, **filters)
        assert shown(dashboard) == shown(first) == found
        assert dashboard.total == first.total
        assert dashboard.total.startswith(f"{len(found)} turn")
        assert [each["name"] for each in dashboard.tables].count("Users") == (len(found) > 1)

    def test_moments_can_be_dates(self, store: MemoryStore) -> None:
        """Moments may be dates or datetimes; the page shows their day."""
        dashboard = usage_dashboard(store, since=date(2026, 3, 2), until=datetime(2026, 3, 3, tzinfo=UTC))
        assert shown(dashboard) == ["bob's"]
        assert dashboard.filters["since"] == "2026-03-02"
        ask(dashboard, user_id="alice")
        assert shown(dashboard) == []

    def test_conversation_filter_cannot_be_widened(self, store: MemoryStore) -> None:
        """The page cannot widen a filter by conversation given in the call."""
        dashboard = usage_dashboard(store, conversation_id="bob's")
        ask(dashboard, user_id="")
        assert shown(dashboard) == ["bob's"]

    def test_bars_are_by_any_period_and_series(self, store: MemoryStore) -> None:
        """The cost chart changes with period and series."""
        dashboard = usage_dashboard(store)
        for series, names in (("user", ["bob", "alice"]), ("conversation", ["bob's", "alice's"])):
            ask(dashboard, series=series, by="week")
            assert [each["name"] for each in dashboard.charts[0]["series"]] == names
            assert dashboard.charts[0]["labels"][0][1] == "2 Mar"

    def test_invalid_filter_is_shown_and_changes_nothing(self, store: MemoryStore) -> None:
        """The error is shown, and disappears with the next valid filter."""
        dashboard = usage_dashboard(store, since="2026-03-02")
        ask(dashboard, until="2026-03-01")
        assert "since='2026-03-02' is after until='2026-03-01'; swap them" in dashboard.problem
        assert shown(dashboard) == ["bob's", "carol's"]
        ask(dashboard, until="")
        assert dashboard.problem == ""

    def test_invalid_initial_filter_is_an_error(self, store: MemoryStore) -> None:
        """The call raises like every view."""
        with pytest.raises(InvalidArgumentError, match="since='soon' is not a time"):
            usage_dashboard(store, since="soon")

    def test_choices_are_users_and_models_of_the_store(self, store: MemoryStore) -> None:
        """The choices are the users and models of the whole store."""
        dashboard = usage_dashboard(store, user_id="bob")
        assert dashboard.choices["user_id"] == ["alice", "bob", "carol"]
        assert dashboard.choices["model"] == ["<b>large</b>", "mine", "small"]

    def test_dashboard_of_a_narrowed_store_shows_one_user(self, store: MemoryStore) -> None:
        """Other users are not in tables or choices, and their conversations do not open."""
        dashboard = usage_dashboard(ConversationManager(DemoProvider(), store).for_user("bob").store)
        assert dashboard.choices["user_id"] == ["bob"]
        assert shown(dashboard) == ["bob's"]
        dashboard.chosen = "alice's"
        assert "There is no conversation" in dashboard.opened["note"]

    def test_error_of_the_store_is_shown(self, store: MemoryStore) -> None:
        """The previous content stays, and the next refresh shows the current one."""

        class Failing(Foreign):
            fails = False

            def list(self, *args: Any, **kwargs: Any) -> Any:
                if self.fails:
                    raise StoreUnavailableError("The store is away.")
                return self.store.list(*args, **kwargs)

        failing: Any = Failing(store)
        dashboard = usage_dashboard(failing)
        failing.fails = True
        dashboard.refresh()
        assert dashboard.problem == "The store is away."
        assert len(shown(dashboard)) == 3
        failing.fails = False
        store.delete("bob's", keep_spending=False)
        dashboard.refresh()
        assert (dashboard.problem, shown(dashboard)) == ("", ["alice's", "carol's"])


class TestOpening:
    """Opening a conversation of the table."""

    def test_choosing_a_conversation_opens_it(self, store: MemoryStore) -> None:
        """Its history is shown; choosing none closes it."""
        dashboard = usage_dashboard(store)
        dashboard.chosen = "alice's"
        assert "I am alice" in dashboard.opened["html"]
        dashboard.chosen = ""
        assert dashboard.opened == {}

    def test_id_with_control_characters_is_opened(self, store: MemoryStore) -> None:
        """The table shows them as marks, and the conversation itself opens."""
        name = "red\x1b[31m\u202edesrever"
        store.append(name, said("Is this red?", cost=Decimal(9)))
        dashboard = usage_dashboard(store)
        (row,) = [each for each in dashboard.tables[-1]["opens"] if each.startswith("red␛[31m")]
        dashboard.chosen = row
        assert "Is this red?" in dashboard.opened["html"]
        assert dashboard.opened["id"] == row

    def test_deleted_conversation_shows_the_error(self, store: MemoryStore) -> None:
        """A deleted conversation shows the error."""
        dashboard = usage_dashboard(store)
        store.delete("bob's", keep_spending=False)
        dashboard.chosen = "bob's"
        assert "There is no conversation" in dashboard.opened["note"]
        assert dashboard.opened["html"] == ""

    def test_long_conversation_shows_its_end(self) -> None:
        """The newest 50 turns are shown, with the total number."""
        store = MemoryStore()
        for number in range(52):
            store.append("a", said(f"number {number:02}"))
        dashboard = usage_dashboard(store)
        dashboard.chosen = "a"
        assert dashboard.opened["note"] == "The newest 50 turns of 52."
        assert "number 51" in dashboard.opened["html"]
        assert "number 02" in dashboard.opened["html"]
        assert "number 01" not in dashboard.opened["html"]


class TestSavedNotebook:
    """The output without a running widget."""

    def test_batch_run_outputs_an_image_and_text(self, store: MemoryStore) -> None:
        """The output is one image and its text, without HTML."""
        bundle, _ = usage_dashboard(store)._repr_mimebundle_()
        assert sorted(bundle) == ["image/png", "text/plain"]
        assert b64decode(str(bundle["image/png"])).startswith(PNG)
        assert bundle["text/plain"] == "3 turns · 30 tokens · $2.50 + 1 turn without a price"

    def test_same_store_gives_the_same_image(self, store: MemoryStore) -> None:
        """The images are equal, byte for byte."""
        assert usage_dashboard(store)._repr_mimebundle_() == usage_dashboard(store)._repr_mimebundle_()

    def test_repr_shows_the_totals(self, store: MemoryStore) -> None:
        """The repr shows the totals."""
        assert repr(usage_dashboard(store, user_id="bob")) == "UsageDashboard('1 turn · 10 tokens · $2.00')"
