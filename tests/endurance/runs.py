"""All long runs by name; each takes a directory and the share of its full length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from endurance import clocks, cluster, copies, kills

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from endurance.report import Report


def _kills_on_disk(directory: Path, share: float) -> Report:
    return kills.run("disk", directory, _part(100, share))


def _kills_on_redis(directory: Path, share: float) -> Report:
    return kills.run("redis", directory, _part(100, share))


def _copies(directory: Path, share: float) -> Report:
    return copies.run(directory, _part(100, share))


def _clocks_on_disk(directory: Path, share: float) -> Report:
    return clocks.run("disk", directory, _part(100, share))


def _clocks_on_redis(directory: Path, share: float) -> Report:
    return clocks.run("redis", directory, _part(100, share))


def _cluster(directory: Path, share: float) -> Report:
    return cluster.run(directory, _part(30, share))


RUNS: dict[str, Callable[[Path, float], Report]] = {
    "kills-disk": _kills_on_disk,
    "kills-redis": _kills_on_redis,
    "copies": _copies,
    "clocks-disk": _clocks_on_disk,
    "clocks-redis": _clocks_on_redis,
    "cluster": _cluster,
}


def _part(whole: int, share: float) -> int:
    return max(1, round(whole * share))
