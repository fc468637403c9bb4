"""The sections of a pack as they are in JSON, for those who read them: mappings with known keys.

Nothing here runs: evals, media, workflow, agents, skills and compositions are kept for others.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class TemplateEngine(TypedDict, total=False):
    """How placeholders are written."""

    version: str
    syntax: str
    features: list[str]


class Parameters(TypedDict, total=False):
    """What goes to the model with the request."""

    temperature: float
    max_tokens: int
    top_p: float
    top_k: int | None
    frequency_penalty: float
    presence_penalty: float


class ModelOverride(TypedDict, total=False):
    """What differs for one model, or for all whose name matches a pattern with ``*``."""

    system_template: str
    system_template_prefix: str
    system_template_suffix: str
    parameters: Parameters


class ToolPolicy(TypedDict, total=False):
    """How a prompt's tools may be used."""

    tool_choice: Literal["auto", "required", "none"]
    max_rounds: int
    max_tool_calls_per_turn: int
    blocklist: list[str]


class Tool(TypedDict, total=False):
    """A tool; ``parameters`` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class Validator(TypedDict, total=False):
    """A check of what the model says or is told."""

    type: str
    enabled: bool
    fail_on_violation: bool
    params: dict[str, Any]


class Eval(TypedDict, total=False):
    """A measurement of answers."""

    id: str
    type: str
    trigger: str
    description: str
    enabled: bool
    sample_percentage: float
    params: dict[str, Any]
    metric: dict[str, Any]


class Workflow(TypedDict, total=False):
    """States, each with a prompt, and the events that lead from one to another."""

    version: int
    entry: str
    states: dict[str, dict[str, Any]]
    engine: dict[str, Any]


class Agents(TypedDict, total=False):
    """Which prompts are agents to others."""

    entry: str
    members: dict[str, dict[str, Any]]


class Composition(TypedDict, total=False):
    """Steps that run prompts and tools."""

    version: int
    description: str
    input_schema: str
    output_schema: str
    output: str
    steps: list[dict[str, Any]]
    engine: dict[str, Any]
