"""``df.promptkit``: registered by importing this module, or by ``%load_ext promptkit_nb``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from promptkit_nb.text.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptkit_nb.manager import ConversationManager
    from promptkit_nb.rows.estimate import RowsEstimate


@pd.api.extensions.register_dataframe_accessor("promptkit")
class PromptKitAccessor:
    """What a DataFrame can be asked.

    >>> import pandas as pd
    >>> import promptkit_nb.frames
    >>> pd.DataFrame({"text": ["Hi"]}).promptkit
    <promptkit: ask a model about 1 row with .ask("… {{ text }} …", into="answer")>
    """

    def __init__(self, df: pd.DataFrame) -> None:
        """Ask about the rows of this frame."""
        self._df = df

    def ask(
        self,
        template: str,
        *,
        into: str | None = None,
        name: str | None = None,
        schema: object = None,
        max_workers: int = 4,
        estimate: bool = False,
        limit: int | None = None,
        manager: ConversationManager | None = None,
        model: str | None = None,
        parameters: Mapping[str, object] | None = None,
        max_output_tokens: int | None = None,
        system_prompt: str | None = None,
        fresh: bool = False,
    ) -> pd.DataFrame | RowsEstimate:
        """Ask a model about each row, and return a copy with the answers as columns; ``ask_rows`` explains all.

        One request is sent for each distinct question, and every answer is stored at once: the same call sends only
        what is missing. ``estimate=True`` returns what a run would send and cost; ``limit=20`` asks the first rows.

        >>> import pandas as pd
        >>> import promptkit_nb.frames
        >>> from promptkit_nb import ConversationManager, DemoProvider
        >>> df, manager = pd.DataFrame({"city": ["Porto", "Lisbon"]}), ConversationManager(DemoProvider())
        >>> df.promptkit.ask("My city is {{ city }}", into="a", estimate=True, manager=manager)
        a: 2 rows · 2 distinct texts · 2 to send · about 22 tokens in · $0.00
        """
        given = dict(locals())
        from promptkit_nb.rows.asking import ask_rows  # noqa: PLC0415 - pydantic, imported when used

        del given["self"]
        return ask_rows(self._df, **given)

    def __repr__(self) -> str:
        """Return how to ask."""
        rows = counted(len(self._df), "row", grouped=True)
        column = next(iter(self._df.columns), "text")
        return f'<promptkit: ask a model about {rows} with .ask("… {{{{ {column} }}}} …", into="answer")>'
