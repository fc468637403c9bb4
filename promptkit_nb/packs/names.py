"""Names in packs: keys of older dialects, known checks, generated ids, and the types of a pack's sections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Container

# Keys of the older documentation and their current names, by definition of the schema.
OLDER_NAMES = {
    "prompt": {
        "system_prompt": "system_template",
        "system": "system_template",
        "model_config": "parameters",
        "available_tools": "tools",
        "template_vars": "variables",
    },
    "validator": {"config": "params"},
    "skill_path": {"dir": "path"},
}
# Keys that PromptKit reads and its schema refuses, by definition of the schema: tolerant loading keeps them in place.
KEYS_OF_RUNTIME = {"variable": "binding", "state": "control"}
# Keys of the older documentation that the format no longer has.
UNSUPPORTED_KEYS = ("variants", "environments", "extends", "examples", "user_template")
# Keys that older packs put on a validator itself instead of in its params.
PARAMS_OF_VALIDATOR = ("message", "monitor")

STOP_SEQUENCES = "stop_sequences"
EXTRAS = "x_extras"

# Other names of checks.
CHECK_ALIASES = {
    "banned_words": "content_excludes",
    "content_includes": "contains",
    "content_includes_any": "contains_any",
    "content_matches": "regex",
    "content_not_includes": "content_excludes",
    "is_valid_json": "json_valid",
    "length": "max_length",
    "llm_judge_conversation": "llm_judge_session",
    "max_sentences": "sentence_count",
    "regex_match": "regex",
    "required_fields": "field_presence",
    "tool_called": "tools_called",
    "tools_not_called_with_args": "tool_args_excluded_session",
    "valid_json": "json_valid",
}
OLDER_CHECKS = {"workflow_state_is": "state_is", "workflow_transitioned_to": "transitioned_to"}
# Every check that PromptKit or the specification names; the type of a validator or an eval is one of these.
CHECKS = frozenset(
    {
        *CHECK_ALIASES,
        *CHECK_ALIASES.values(),
        *"""
        a2a_eval a2a_eval_session agent_invoked agent_not_invoked agent_response_contains answer_relevancy
        assertion audio_duration audio_emotion audio_format bias composition_branch_taken composition_output
        composition_parallel_complete composition_step_output contextual_precision contextual_recall
        contextual_relevancy cosine_similarity cost_budget custom directional faithfulness guardrail
        guardrail_triggered hallucination image_dimensions image_format image_moderation
        invariant_fields_preserved json_path json_schema latency_budget llm_judge llm_judge_tool_calls
        min_length no_tool_errors outcome_equivalent pii_detection pii_leakage rest_eval rest_eval_session
        role_violation sentiment skill_activated skill_activation_order skill_not_activated spoke_in_state
        state_is text_sentiment text_toxicity tool_anti_pattern tool_args tool_args_session tool_call_chain
        tool_call_count tool_call_sequence tool_calls_with_args tool_efficiency tool_exec tool_no_repeat
        tool_result_has_media tool_result_includes tool_result_matches tool_result_media_type
        tools_called_session tools_not_called tools_not_called_session topic_policy toxicity transitioned_to
        video_duration video_resolution workflow_complete workflow_tool_access workflow_transition_order
        """.split(),  # noqa: SIM905 - read as words
    }
)

_SHORT_VERSION = re.compile(r"(v?)(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name, with a number if it is taken.

    >>> free_name("/a", {"/a"})
    '/a#2'
    """
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def full_version(written: object) -> str | None:
    """Return the full semantic version; ``None`` if it is not a version, or not a plain numeric one.

    >>> full_version("v1"), full_version(1.5), full_version("latest")
    ('v1.0.0', '1.5.0', None)
    """
    is_number = isinstance(written, (int, float)) and not isinstance(written, bool)
    found = _SHORT_VERSION.fullmatch(str(written)) if is_number or isinstance(written, str) else None
    return found and f"{found[1]}{int(found[2])}.{int(found[3] or 0)}.{int(found[4] or 0)}"


def slug_of(name: str, also: str = "") -> str:
    """Return an id for a name: lower-case letters, digits, hyphens and ``also``, starting with a letter.

    >>> slug_of("My 1st Pack!"), slug_of("42")
    ('my-1st-pack', 'pack-42')
    """
    slug = re.sub(rf"[^a-z0-9{also}]+", "-", name.lower()).strip(f"-{also}")[:90]
    return slug if slug[:1].isalpha() else f"pack-{slug}".rstrip("-")


def type_of(value: object) -> str:
    """Return the variable type of a default value; ``"string"`` for null."""
    types = {bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}
    return next((name for kind, name in types.items() if isinstance(value, kind)), "string")


class TemplateEngine(TypedDict, total=False):
    """The syntax of placeholders."""

    version: str
    syntax: str
    features: list[str]


class Parameters(TypedDict, total=False):
    """Model parameters, sent with the request."""

    temperature: float
    max_tokens: int
    top_p: float
    top_k: int | None
    frequency_penalty: float
    presence_penalty: float


class ModelOverride(TypedDict, total=False):
    """Changes for one model, or for all models that match a pattern with ``*``."""

    system_template: str
    system_template_prefix: str
    system_template_suffix: str
    parameters: Parameters


class ToolPolicy(TypedDict, total=False):
    """Rules for a prompt's tools."""

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
    """A check of input or output."""

    type: str
    enabled: bool
    fail_on_violation: bool
    params: dict[str, Any]


class Eval(TypedDict, total=False):
    """A measurement of responses."""

    id: str
    type: str
    trigger: str
    description: str
    enabled: bool
    sample_percentage: float
    params: dict[str, Any]
    metric: dict[str, Any]


class Workflow(TypedDict, total=False):
    """States with prompts, and the events that lead from one state to another."""

    version: int
    entry: str
    states: dict[str, dict[str, Any]]
    engine: dict[str, Any]


class Agents(TypedDict, total=False):
    """The prompts that act as agents."""

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
