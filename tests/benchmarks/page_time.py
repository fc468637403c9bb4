"""The CPU time of a page's thread, which depends little on what else runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page


def worked_ms(page: Page, work: Callable[[], object]) -> float:
    """Return the CPU time that the page's thread takes while something is done, in milliseconds."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    before_s = worked_s()
    work()
    return (worked_s() - before_s) * 1000
