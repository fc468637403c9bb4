"""Generates the conversations of the tutorial on cost: ``python tests/desk_conversations.py``.

Four weeks at the desk of a small museum: three people, three models with a listed price and a local one without,
cached input, reasoning, answers that were cut or stopped, one rerun, replays, a fork and a summary. No model is asked;
times and tokens are drawn from one seed, prices are those of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

from promptkit_nb import ConversationState, MemoryStore, Message, OpenAIProvider, Summary, Turn, Usage, export_store
from promptkit_nb.turns import INTERRUPTED

PATH = Path(__file__).parents[1] / "notebooks" / "data" / "museum_desk.jsonl"

SEED = 5
FIRST_MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
CACHED_FROM_TOKENS = 1024
CACHE_STEP_TOKENS = 128
CACHED_FOR = timedelta(minutes=10)

TOKENS_PER_SECOND = {"gpt-5.4": 55, "gpt-5.4-mini": 110, "o4-mini": 75, "museum-llama": 28}

# Question and answer, about one subject a day.
LABELS = (
    ("Write a label for the {0}.", "Look closely: the {0} was made for people who trusted the sky more than a clock."),
    ("Shorter, for children.", "The {0}: take it in your hands, and guess what it is for!"),
    ("And in Spanish?", "Míralo de cerca: se hizo para quien confiaba en el cielo más que en un reloj."),
    ("Is 'trusted the sky' too much?", "A little. 'Who read the sky' says the same, and is plainer."),
    ("Use the plainer one.", "Look closely: the {0} was made for people who read the sky before they read a clock."),
    ("What would a visitor ask about it?", "How exact it was: to a quarter of an hour, on a clear night."),
)
LETTERS = (
    ("A letter about {0}: draft an answer.", "Thank you for your letter about {0}; we are glad that you wrote."),
    ("Add that tickets are refunded until the day before.", "Tickets are refunded in full until the day before."),
    ("They cannot come on any other day.", "Then please keep your tickets: they are valid until the end of the year."),
    ("Make it warmer.", "Thank you for telling us of {0}. Do come again, and ask for us at the desk."),
)
FIGURES = (
    (
        "Visitors of {0} fell by 8 % in February. Why?",
        "Three reasons stand out: the weather, the closed wing, and Easter.",
    ),
    ("Compare with the year before.", "Then Easter fell earlier; without it {0} lost 2 %."),
    ("Which day should it stay open longer?", "Thursday: its last hour is the fullest of the week."),
    ("Check that against the takings.", "The takings agree: Thursday evenings bring 14 % of the week."),
)
GRANT = (
    ("Draft {0} of the application.", "The project opens the tide room to everybody, by touch and by sound."),
    ("Half as long.", "A tide room for everybody, by touch and by sound, open from the equinox on."),
    ("Check it against the call.", "The call wants figures: 4,100 visitors a year, of whom 600 come with a school."),
    ("Where would a reader doubt {0}?", "At the dates: the models may come late, so order them in April."),
    ("Write the final version of {0}.", "From the equinox on the tide room is open to all 4,100 visitors a year."),
)
OBJECTS = ("astrolabe", "sundial", "star globe", "sextant", "moon clock", "armillary sphere", "brass telescope")
LETTER_SUBJECTS = (
    *("a class of 31", "a closed wing", "a lost umbrella", "a birthday", "a guided tour", "a wheelchair", "a choir"),
    *("a rainy day", "a photograph"),
)
SECTIONS = ("the summary", "the budget", "the timetable", "the risks", "the partners", "the team", "the outlook")


@dataclass(slots=True)
class ConversationPlan:
    """One conversation: its user, model, days, subject, and length of the prompt."""

    conversation_id: str
    user_id: str
    model: str
    days: Sequence[int]
    topics: Sequence[tuple[str, str]]
    subjects: Sequence[str]
    prompt_tokens: int
    endings: dict[int, str] = field(default_factory=dict)


PLANS = (
    ConversationPlan("labels:spring", "ines", "gpt-5.4-mini", (0, 1, 7, 8, 14, 21, 22), LABELS, OBJECTS, 1400),
    ConversationPlan(
        "labels:tides",
        "ines",
        "museum-llama",
        (3, 10, 17, 24),
        LABELS,
        ("tide clock", "tide table", "buoy", "bell"),
        400,
    ),
    ConversationPlan(
        *("letters:schools", "tom", "gpt-5.4-mini", (0, 2, 4, 8, 11, 15, 18, 22, 25), LETTERS, LETTER_SUBJECTS, 900),
        endings={13: INTERRUPTED},
    ),
    ConversationPlan(
        *("letters:refunds", "tom", "museum-llama", (9, 16, 23), LETTERS, ("rain", "a strike", "a missed train"), 300),
        endings={5: "length"},
    ),
    ConversationPlan(
        *("figures:february", "amara", "o4-mini", (1, 2, 9), FIGURES, ("the museum", "the shop", "the café"), 2600),
        endings={4: "length"},
    ),
    ConversationPlan(
        *(
            "figures:march",
            "amara",
            "o4-mini",
            (21, 22, 23),
            FIGURES,
            ("the tide room", "the garden", "the roof"),
            2600,
        ),
        endings={9: INTERRUPTED},
    ),
    ConversationPlan(
        *("grant:tide-room", "amara", "gpt-5.4", (14, 15, 16, 21, 23, 24, 25), GRANT, SECTIONS, 9200),
        endings={17: "length", 31: "length"},
    ),
    ConversationPlan("grant:roof", "tom", "gpt-5.4", (4, 7), GRANT, SECTIONS, 7600),
)


class Clock:
    """The time at the desk, also used by the store."""

    now = FIRST_MONDAY

    def __call__(self) -> datetime:
        """Return the current time."""
        return self.now


class Desk:
    """Generates the conversations."""

    def __init__(self) -> None:
        """Start with an empty store."""
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self._chance = Random(SEED)  # noqa: S311 - no secret
        self._prices = OpenAIProvider("gpt-5.4-mini", api_key="unused")
        self._turns = 0

    def work(self) -> None:
        """Generate four weeks."""
        for plan in PLANS:
            self._create(plan)
        for day in range(28):
            for plan in PLANS:
                if day in plan.days:
                    self._ask_questions(plan, day)
        self._last_day()

    def _create(self, plan: ConversationPlan) -> None:
        self.clock.now = FIRST_MONDAY + timedelta(days=plan.days[0], hours=8)
        prompt = "You help at the desk of the Museum of Tides and Stars."
        state = ConversationState(
            plan.conversation_id,
            plan.user_id,
            system_prompt=prompt,
            created_at=self.clock.now,
            updated_at=self.clock.now,
        )
        self.store.create(state)

    def _ask_questions(self, plan: ConversationPlan, day: int) -> None:
        """Ask all questions of a topic, some minutes apart."""
        self.clock.now = FIRST_MONDAY + timedelta(days=day, hours=8 + self._below(8), minutes=self._below(60))
        subject = plan.subjects[plan.days.index(day)]
        for number, (question, answer) in enumerate(plan.topics):
            turn = self._turn(plan, question.format(subject), answer.format(subject), goes_on=number > 0)
            self.store.append(plan.conversation_id, turn)
            self.clock.now += timedelta(seconds=45 + self._below(500))

    def _turn(self, plan: ConversationPlan, question: str, answer: str, *, goes_on: bool) -> Turn:
        place = self.store.head(plan.conversation_id).turn_count
        ending = plan.endings.get(place, "stop")
        said = answer[: len(answer) // 2].rstrip() if ending != "stop" else answer
        usage = self._usage(plan, place, goes_on=goes_on, is_stopped=ending == INTERRUPTED)
        price = self._prices.price(plan.model, usage, self.clock.now)
        self._turns += 1
        return Turn(
            id=f"{self._turns:032x}",
            messages=(Message("user", question), Message("assistant", said)),
            usage=usage,
            cost=price.usd,
            price_source=price.source,
            price_list=price.price_list,
            model=plan.model,
            requested_model=plan.model,
            provider="openai",
            latency_ms=float(350 + self._below(900) + 1000 * usage.output_tokens // TOKENS_PER_SECOND[plan.model]),
            finish_reason=ending,
            created_at=self.clock.now,
        )

    def _usage(self, plan: ConversationPlan, place: int, *, goes_on: bool, is_stopped: bool) -> Usage:
        """Return tokens that grow with the conversation; recently sent ones are cached, if the model does that."""
        before = plan.prompt_tokens + 260 * min(place, 20)
        has_cache = plan.model in ("gpt-5.4", "gpt-5.4-mini", "o4-mini")
        cached = before // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS
        if not (goes_on and has_cache and before >= CACHED_FROM_TOKENS and self._below(10) > 1):
            cached = 0
        reasoning = 300 + self._below(1200) if plan.model == "o4-mini" else 0
        answered = (60 if is_stopped else 150) + self._below(500) + reasoning
        return Usage(before + 30 + self._below(160), answered, cached, reasoning, estimated=is_stopped)

    def _last_day(self) -> None:
        """On the last day: rerun one answer, replay four, fork one conversation, and summarize another."""
        self.clock.now = FIRST_MONDAY + timedelta(days=25, hours=15)
        grant = next(plan for plan in PLANS if plan.conversation_id == "grant:tide-room")
        previous = self.store.recent("grant:tide-room", 1)[0]
        again = self._turn(grant, previous.user_text, "Open to all 4,100 visitors, from April on.", goes_on=True)
        self.store.replace("grant:tide-room", previous.id, again)
        for turn in self.store.recent("labels:spring", 4):
            self._turns += 1
            self.store.append("labels:spring", self._replayed(turn))
        self.store.fork("letters:schools", "letters:camps")
        turns = self.store.get("figures:february").turns
        usage = Usage(5200, 180)
        cost = self._prices.price("o4-mini", usage, self.clock.now).usd
        text = "Visitors fell by 8 %, mostly for Easter; Thursday evenings should stay open."
        summary = Summary(turns[0].id, turns[7].id, text, usage, cost, "o4-mini", self.clock.now)
        self.store.add_summary("figures:february", summary)

    def _replayed(self, turn: Turn) -> Turn:
        return Turn(
            id=f"{self._turns:032x}",
            messages=turn.messages,
            usage=turn.usage,
            cost=Decimal(0),
            saved=turn.cost,
            model=turn.model,
            requested_model=turn.requested_model,
            provider=turn.provider,
            latency_ms=turn.latency_ms,
            finish_reason=turn.finish_reason,
            created_at=self.clock.now,
            replayed=True,
        )

    def _below(self, stop: int) -> int:
        return int(self._chance.random() * stop)


def write(path: Path) -> int:
    """Write the conversations as JSON Lines, and return their number."""
    desk = Desk()
    desk.work()
    path.parent.mkdir(exist_ok=True)
    return export_store(desk.store, path)


if __name__ == "__main__":
    print(f"{write(PATH)} conversations in {PATH.name}")
