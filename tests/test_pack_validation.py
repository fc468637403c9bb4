"""Strict validation: all findings at once, with positions, expectations and near matches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from newsroom import LEFT_OUT, NEWSROOM, newsroom, newsroom_with
from promptkit_nb import PackError, PackNotFoundError, PackValidationError, load_pack, validate_pack
from promptkit_nb.packs.schema import pointer_to, schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAFT = "/prompts/draft"
SMALL = f"{DRAFT}/model_overrides/small"
STATES = "/workflow/states"
STEPS = "/compositions/verify/steps"


def only_error(pack: dict[str, Any]) -> str:
    """Return the only error of a pack as text."""
    (error,) = validate_pack(pack).errors
    return str(error)


def only_warning(pack: dict[str, Any]) -> str:
    """Return the only warning of a pack without errors as text."""
    (warning,) = validate_pack(pack)
    return str(warning)


def test_pack_with_every_section_has_no_findings() -> None:
    """A valid pack has no findings and loads strictly."""
    assert list(validate_pack(NEWSROOM)) == []
    assert load_pack(NEWSROOM, strict=True).to_dict() == newsroom()


@pytest.mark.parametrize("key", ["id", "name", "version", "template_engine", "prompts"])
def test_missing_keys_are_named_at_their_parent(key: str) -> None:
    """Each missing key is one error at the object that lacks it."""
    errors = validate_pack(newsroom(**{key: LEFT_OUT})).errors
    assert str(errors[0]) == f"PP101 error /: it needs {key!r}"


@pytest.mark.parametrize(
    ("pointer", "value", "error"),
    [
        ("/id", "My Pack", "PP105 error /id: expected lower-case letters, digits and hyphens, a letter first"),
        ("/id", "x" * 101, "PP107 error /id: expected text of at most 100 characters"),
        ("/version", "1.0", "found '1.0'; did you mean '1.0.0'?"),
        ("/version", "01.0.0", "PP105 error /version: expected a semantic version such as '1.0.0', found '01.0.0'"),
        ("/promts", {}, "PP104 error /promts: unknown key; did you mean 'prompts'?"),
        ("/template_engine/features/0", "fragment", "found 'fragment'; did you mean 'fragments'?"),
        (f"{DRAFT}/parameters/temperature", 2.5, "expected at most 2, found 2.5"),
        (f"{DRAFT}/parameters/top_p", -0.1, "expected at least 0, found -0.1"),
        (f"{DRAFT}/parameters/max_tokens", 0, "expected at least 1, found 0"),
        (
            f"{DRAFT}/parameters/max_tokens",
            1.5,
            "PP102 error /prompts/draft/parameters/max_tokens: expected an integer",
        ),
        (f"{DRAFT}/parameters/top_k", 0, "expected at least 1, found 0"),
        (f"{DRAFT}/parameters/Temperature", 1, "unknown key; did you mean 'temperature'?"),
        (f"{DRAFT}/temperature", 1, "/prompts/draft/temperature: unknown key; it belongs under 'parameters'"),
        ("/entry", "draft", "PP104 error /entry: unknown key; it belongs under 'workflow' or 'agents'"),
        (f"{DRAFT}/max_rounds", 1, "unknown key; it belongs under 'tool_policy'"),
        (f"{DRAFT}/xyzzy", 1, "PP104 error /prompts/draft/xyzzy: unknown key"),
        (
            f"{DRAFT}/system_prompt",
            "Hi",
            "unknown key; a name from older documentation; did you mean 'system_template'?",
        ),
        (f"{DRAFT}/variables/0/name", "1st", "expected letters, digits and underscores, no digit first, found '1st'"),
        (f"{DRAFT}/variables/0/type", "strng", "found 'strng'; did you mean 'string'?"),
        (f"{DRAFT}/variables/0/pattern", "x", "unknown key; it belongs under 'validation'"),
        (f"{DRAFT}/validators/0/fail_on_violaton", True, "unknown key; did you mean 'fail_on_violation'?"),
        (f"{DRAFT}/validators/0/message", "No.", "unknown key; it belongs under 'params'"),
        (f"{DRAFT}/validators/0/monitor", True, "unknown key; it belongs under 'params'"),
        (f"{DRAFT}/validators/0/config", {}, "a name from older documentation; did you mean 'params'?"),
        (
            f"{DRAFT}/validators/0",
            "length",
            'a name from older documentation: write {"type": "length", "enabled": true}',
        ),
        (f"{DRAFT}/validators/0/enabled", LEFT_OUT, "PP101 error /prompts/draft/validators/0: it needs 'enabled'"),
        (f"{DRAFT}/tool_policy/max_rounds", 0, "expected at least 1, found 0"),
        (f"{DRAFT}/tool_policy/tool_choice", "allways", "expected one of auto, required, none, found 'allways'"),
        (f"{DRAFT}/media/enabled", LEFT_OUT, "PP101 error /prompts/draft/media: it needs 'enabled'"),
        (f"{DRAFT}/media/image/default_detail", "hi", "expected one of low, high, auto, found 'hi'"),
        (f"{DRAFT}/media/image/max_size_mb", -1, "expected at least 1, found -1"),
        (f"{DRAFT}/media/model3d/max_size_mb", "big", "expected an integer, found 'big'"),
        (
            f"{DRAFT}/media/examples/0/parts",
            [],
            "PP107 error /prompts/draft/media/examples/0/parts: expected at least 1",
        ),
        ("/tools/archive/description", LEFT_OUT, "PP101 error /tools/archive: it needs 'description'"),
        ("/tools/archive/parameters/type", "array", "expected 'object', found 'array'"),
        ("/tools/archive/parameters/properties", LEFT_OUT, "/tools/archive/parameters: it needs 'properties'"),
        ("/tools/archive/parameters/properties/query", "text", "query: expected an object, found 'text'"),
        ("/evals/0/trigger", "every_trun", "found 'every_trun'; did you mean 'every_turn'?"),
        ("/metadata/language", "english", "expected two lower-case letters, such as 'en', found 'english'"),
        (
            f"{STATES}/writing/on_event",
            LEFT_OUT,
            "PP101 error /workflow/states/writing: it needs 'on_event'; or set 'terminal' to true",
        ),
        (f"{STATES}/filed/terminal", False, "PP101 error /workflow/states/filed: it needs 'on_event'; or set"),
        (f"{STATES}/writing/control", "user", "unknown key; PromptKit reads it, but the format does not have it"),
        (
            f"{DRAFT}/variables/1/binding",
            {},
            "unknown key; PromptKit reads it, but the format does not have it: remove",
        ),
        (f"{DRAFT}/validators/1", "profanty", "PP102 error /prompts/draft/validators/1: expected an object, found"),
        ("/skills/1/prelod", True, "PP104 error /skills/1/prelod: unknown key; did you mean 'preload'?"),
        ("/skills/3/instuctions", "x", "PP104 error /skills/3/instuctions: unknown key; did you mean 'instructions'?"),
        ("/skills/-", 5, "PP102 error /skills/4: expected a string or an object, found 5"),
        (f"{STATES}/filed/persistence", "for ever", "expected one of transient, persistent, found 'for ever'"),
        (f"{STATES}/filed/orchestration", "intern", "expected one of internal, external, hybrid, composition"),
        (f"{STATES}/filed/prompt_task", LEFT_OUT, "PP101 error /workflow/states/filed: it needs 'prompt_task'"),
        (f"{STATES}/checking/composition", LEFT_OUT, "PP101 error /workflow/states/checking: it needs 'composition'"),
        ("/agents/entry", LEFT_OUT, "PP101 error /agents: it needs 'entry'"),
        ("/agents/members/draft/tag", [], "unknown key; did you mean 'tags'?"),
        ("/compositions/verify/version", 2, "expected 1, found 2"),
        (f"{STEPS}/2/termination", LEFT_OUT, "PP101 error /compositions/verify/steps/2: it needs 'termination'"),
        (f"{STEPS}/2/termination", {}, "PP108 error /compositions/verify/steps/2/termination: expected 'max_steps'"),
        (f"{STEPS}/3/branches/1", LEFT_OUT, "expected at least 2 items, found an array"),
        (f"{STEPS}/1/predicate/any_of", [], "PP108 error /compositions/verify/steps/1/predicate: expected exactly one"),
        (f"{STEPS}/0/kind", "tol", "found 'tol'; did you mean 'tool'?"),
    ],
)
def test_each_violation_of_the_schema_is_one_error(pointer: str, value: object, error: str) -> None:
    """Each violation is one error with pointer, expectation, value and near match."""
    assert error in only_error(newsroom_with(pointer, value))


@pytest.mark.parametrize(
    ("pointer", "value", "error"),
    [
        (f"{DRAFT}/tools/0", "archve", "there is no tool 'archve'; did you mean 'archive'?"),
        (f"{DRAFT}/validators/0/type", "max_lenth", "there is no validator 'max_lenth'; did you mean 'max_length'"),
        (f"{DRAFT}/validators/0/params", {"direction": "output"}, "'max_length' needs one of these params: 'max'"),
        (f"{DRAFT}/validators/0/params", {}, f"PP303 error {DRAFT}/validators/0/params: 'max_length' needs one of"),
        (f"{DRAFT}/validators/0/params/max_characters", 0, "expected a number of at least 1, found 0"),
        (f"{DRAFT}/validators/1/params/pattern", "(", "PP301 error /prompts/draft/validators/1/params/pattern"),
        (f"{DRAFT}/variables/0/validation/pattern", "[", "'[' is not a regular expression: unterminated character set"),
        (f"{DRAFT}/variables/1/default", "dogs", "PP302 error /prompts/draft/variables/1/default: the default breaks"),
        (f"{DRAFT}/variables/2/default", "many", "cannot be 'many': its type is number"),
        ("/workflow/version", 3, "PP103 error /workflow/version: expected 1 or 2, found 3"),
        ("/workflow/entry", "writting", "there is no state 'writting'; did you mean 'writing'?"),
        (f"{STATES}/writing/prompt_task", "draught", "state 'writing': there is no prompt 'draught'"),
        (f"{STATES}/writing/on_event/Written", "chekcing", "'writing', event 'Written': there is no state"),
        (f"{STATES}/writing/on_max_visits", "gone", "on_max_visits: state 'writing': there is no state"),
        (f"{STATES}/checking/composition", "verfy", "there is no composition 'verfy'; did you mean 'verify'?"),
        (f"{STATES}/filed/composition", "verify", "PP109 error /workflow/states/filed/composition"),
        ("/agents/entry", "editor", "PP201 error /agents/entry: there is no member 'editor'"),
        ("/agents/members/editor", {}, "PP201 error /agents/members/editor: there is no prompt 'editor'"),
        ("/agents/members/draft/state", "sleep", "PP201 error /agents/members/draft/state: there is no state 'sleep'"),
        *(
            (f"/agents/members/draft/{modes}/0", mode, f"expected a MIME type such as 'text/plain', found {mode!r}")
            for modes in ("input_modes", "output_modes")
            for mode in ("text", "/x", "x/", "a/b/c", "")
        ),
        ("/fragments/house_style", "{{#if x}}",
         "PP304 error /fragments/house_style: {{#if x}} at line 1, column 1, but blocks are unsupported: only"),
        ("/fragments/house_style", "{{#if x}}",
         "{{fragments.NAME}} are replaced; write the text out, or declare a variable for it"),
        (f"{DRAFT}/system_template", "{{topic}} {{audience}} {{words}}\n{{topic | upper}}",
         f"PP304 error {DRAFT}/system_template: {{{{topic | upper}}}} at line 2, column 1, but filters are"),
        (f"{DRAFT}/variables/1/default", "{{1}}", f"PP304 error {DRAFT}/variables/1/default: {{{{1}}}} at line 1"),
        (f"{SMALL}/system_template", "{{fragments.house_stlye}}",
         f"PP206 error {SMALL}/system_template: {{{{fragments.house_stlye}}}} at line 1, column 1 is not among the"),
        (f"{SMALL}/system_template", "{{fragment:house_stlye}}", "the pack's fragments; did you mean 'house_style'?"),
        ("/template_engine/syntax", "jinja2", "PP305 error /template_engine/syntax: expected '{{variable}}', '${"),
        ("/evals/1/type", "json_vaild", "PP202 error /evals/1/type: there is no eval 'json_vaild'; did you mean"),
        ("/evals/1/type", "workflow_transitioned_to", "'workflow_transitioned_to'; did you mean 'transitioned_to'?"),
        ("/evals/1/id", "sober", "PP203 error /evals/1/id: duplicate eval 'sober'"),
        (f"{DRAFT}/tool_policy/blocklist/0", "file_stroy", "blocklist/0: there is no tool 'file_stroy'; did you mean"),
        (f"{DRAFT}/media/examples/0/parts/1/type", "imgae", "no supported type 'imgae'; did you mean 'image'?"),
        ("/tools/archive/parameters/required/0", "qurey",
         "PP201 error /tools/archive/parameters/required/0: there is no property 'qurey'; did you mean 'query'?"),
        (f"{STEPS}/0/modifiers/eval/0", "sobre", "modifiers/eval/0: there is no eval 'sobre'; did you mean 'sober'?"),
        (f"{STEPS}/0/tool", "archiv", "there is no tool 'archiv'; did you mean 'archive'?"),
        (f"{STEPS}/0/args/query", "${inputs.topic}", "there is no step or input 'inputs'; did you mean 'input'?"),
        (f"{STEPS}/1/then", "aks", "there is no step 'aks'; did you mean 'ask'?"),
        (f"{STEPS}/2/depends_on/0", "dubtful", "there is no step 'dubtful'; did you mean 'doubtful'?"),
        (f"{STEPS}/3/branches/0/prompt_task", "chek", "there is no prompt 'chek'; did you mean 'check'?"),
        (f"{STEPS}/3/branches/0/id", "tone", "PP203 error /compositions/verify/steps/3/branches/1/id: duplicate step"),
        (f"{STEPS}/3/reduce/strategy", "apend", "found 'apend'; did you mean 'append'?"),
        (f"{STEPS}/0/depends_on", ["ask"], "PP204 error /compositions/verify/steps/0: steps depend on each other"),
        ("/compositions/verify/output", "end", "PP201 error /compositions/verify/output: there is no step 'end'"),
        ("/compositions/workflow__transition",
         {"version": 1, "steps": [{"id": "a", "kind": "tool", "tool": "archive"}]},
         "PP205 error /compositions/workflow__transition: 'workflow__transition' is reserved"),
    ],
)  # fmt: skip
def test_each_semantic_mistake_is_one_error(pointer: str, value: object, error: str) -> None:
    """Dangling references and semantic errors are one error each."""
    assert error in only_error(newsroom_with(pointer, value))


@pytest.mark.parametrize(
    ("pointer", "value", "warning"),
    [
        (f"{DRAFT}/id", "drafts", "it is 'drafts', but the prompt is found by its key"),
        (f"{DRAFT}/variables/0/default", "Harbour", "'topic' is required and has a default, so it is never missing"),
        (f"{DRAFT}/variables/-", {"name": "mood", "type": "string", "required": False},
         f"PP401 warning {DRAFT}/variables/3: variable 'mood' is not used in any template"),
        (f"{DRAFT}/system_template", "{{topic}} {{audince}} {{audience}} {{words}} {{house_style}}",
         "{{audince}} at line 1, column 11 is not declared; did you mean 'audience'?"),
        (f"{SMALL}/system_template", "{{topc}}",
         f"PP400 warning {SMALL}/system_template: {{{{topc}}}} at line 1, column 1 is not declared"),
        (f"{DRAFT}/validators/0/enabled", False, "the validator 'max_length' is disabled"),
        (f"{DRAFT}/validators/0/params", LEFT_OUT, "'max_length' has no effect without params"),
        (f"{DRAFT}/validators/1/params/direction", "inptu", "found 'inptu'; read as 'output'; did you mean 'input'"),
        (f"{DRAFT}/validators/0", {"type": "toxicity", "enabled": True, "params": {"direction": 1}},
         "expected one of input, output, both, found 1; read as 'output'"),
        (f"{DRAFT}/variables/2/validation/minimum", 3000, "PP407"),
        ("/fragments/house_style", "On {{curent_date}}.",
         "PP400 warning /fragments/house_style: {{curent_date}} at line 1, column 4 is not declared; did you mean"),
        (f"{DRAFT}/variables/1/default", "{{reders}}", "PP400 warning /prompts/draft/variables/1/default: {{reders}}"),
        ("/template_engine/features/1", "loops", "'loops' is not supported"),
        ("/evals/1/type", "house_tone", "PP410 warning /evals/1/type: there is no eval 'house_tone'"),
        (f"{STATES}/writing/on_event", {"written": "checking"}, "names are written like 'OrderShipped'; did you mean"),
        (f"{STATES}/checking/on_event", {"Again": "writing"},
         "PP405 warning /workflow/states/writing: events form a cycle: 'writing → checking → writing'"),
        (f"{STATES}/filed/on_event", {"Reopen": "filed"}, "PP405"),
        (f"{STATES}/filed", {"prompt_task": "draft", "on_event": {}}, "'filed' has no events and is not terminal"),
        (f"{STATES}/filed/max_visits", 2, "state 'writing' leads to 'filed', which limits visits too"),
    ],
)  # fmt: skip
def test_packs_with_warnings_load(pointer: str, value: object, warning: str) -> None:
    """Warnings are in ``validate_pack`` and in the pack's warnings."""
    pack = newsroom_with(pointer, value)
    findings = [finding for finding in validate_pack(pack) if finding.code != "PP302"]
    assert any(warning in str(finding) for finding in findings)
    if not validate_pack(pack).errors:
        assert any(findings[0].text in told for told in load_pack(pack, strict=True).warnings)


def test_disabled_validators_may_be_of_any_type() -> None:
    """A disabled validator may have an unknown type."""
    pack = newsroom_with(f"{DRAFT}/validators/0", {"type": "of_the_future", "enabled": False})
    assert validate_pack(pack).errors == ()


def test_well_known_names_need_no_declaration() -> None:
    """The runtime sets these."""
    text = "{{input}} {{workflow_context}} {{current_time}} {{artifacts.text}} {{topic}} {{audience}} {{words}}"
    assert list(validate_pack(newsroom_with(f"{DRAFT}/system_template", text))) == []


def test_rules_of_a_variable_apply_to_the_rendered_default() -> None:
    """The rules of a variable do not apply to a default with placeholders."""
    pack = newsroom_with(f"{DRAFT}/variables/1/default", "{{topic}}")
    assert list(validate_pack(pack)) == []


def test_agents_are_tools_of_other_agents() -> None:
    """A prompt may list the names of agents as tools."""
    assert list(validate_pack(newsroom_with(f"{DRAFT}/tools/-", "check"))) == []


@pytest.mark.parametrize(
    ("pointer", "value", "error"),
    [
        ("/prompts", {}, "PP107 error /prompts: expected at least 1 entry, found an empty object"),
        ("/agents/members", {}, "PP107 error /agents/members: expected at least 1 entry, found an empty object"),
        (
            "/compositions/verify/steps",
            [],
            "PP107 error /compositions/verify/steps: expected at least 1 item, found",
        ),
        (f"{STEPS}/1/id", "look_up", "PP203 error /compositions/verify/steps/1/id: duplicate step 'look_up'"),
    ],
)
def test_empty_lists_and_duplicates_have_no_follow_up_errors(pointer: str, value: object, error: str) -> None:
    """One mistake is one error, at the key that has it."""
    assert error in only_error(newsroom_with(pointer, value))


def test_workflow_without_states_is_one_error() -> None:
    """Empty states are one error, without follow-up errors."""
    pack = newsroom(agents=LEFT_OUT, workflow={"version": 1, "entry": "writing", "states": {}})
    assert only_error(pack) == "PP107 error /workflow/states: expected at least 1 entry, found an empty object"


def test_all_errors_are_listed_in_file_order() -> None:
    """The exception lists all errors in file order."""
    pack = newsroom()
    validators = pack["prompts"]["draft"]["validators"]
    validators[0]["type"], validators[1]["params"] = "max_lenth", {}
    pack["agents"] = {"entry": "nobody", "members": {"draft": {"input_modes": ["text"]}, "ghost": {}}}
    with pytest.raises(PackValidationError) as caught:
        load_pack(pack, strict=True)
    assert [finding.pointer for finding in caught.value.findings] == [
        f"{DRAFT}/validators/0/type",
        f"{DRAFT}/validators/1/params",
        "/agents/entry",
        "/agents/members/draft/input_modes/0",
        "/agents/members/ghost",
    ]
    assert str(caught.value).splitlines()[0] == "The pack is not a valid pack: 5 errors, no warnings."
    assert all(str(finding) in str(caught.value) for finding in caught.value.findings)


def test_line_and_column_point_at_the_key(tmp_path: Path) -> None:
    """The position is that of the key, also deep in an array."""
    path = tmp_path / "long.pack.json"
    pack = newsroom_with(f"{DRAFT}/validators/0/fail_on_violaton", 1)
    path.write_text(json.dumps(pack, indent=2, ensure_ascii=False), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    (finding,) = validate_pack(path)
    assert len(lines) > 300
    assert finding.pointer == f"{DRAFT}/validators/0/fail_on_violaton"
    assert finding.line is not None
    assert finding.column is not None
    assert lines[finding.line - 1][finding.column - 1 :].startswith('"fail_on_violaton"')
    assert f"({finding.line}:{finding.column}): unknown key; did you mean 'fail_on_violation'?" in str(finding)


def test_invalid_json_is_a_finding(tmp_path: Path) -> None:
    """Invalid JSON and repeated keys are findings with positions."""
    path = tmp_path / "broken.pack.json"
    path.write_text('{\n  "id": }', encoding="utf-8")
    (finding,) = validate_pack(path)
    assert (finding.code, finding.line, finding.column) == ("PP001", 2, 9)
    path.write_text('{"id": 1,\n "name": "x",\n "id": 2}', encoding="utf-8")
    (finding,) = validate_pack(path)
    assert (finding.code, finding.pointer, finding.line, finding.column) == ("PP002", "/id", 3, 2)
    assert validate_pack([])[0].code == "PP003"  # type: ignore[arg-type]  # no mapping


def test_missing_file_is_an_error_and_not_a_finding(tmp_path: Path) -> None:
    """A missing file raises."""
    with pytest.raises(PackNotFoundError):
        validate_pack(tmp_path / "none.pack.json")


def test_error_for_the_older_dialect_names_the_upgrade() -> None:
    """The error for the older dialect names the upgrade."""
    older = {"version": "1.0", "prompts": {"chat": {"system_prompt": "Hi", "model_config": {"temperature": 1}}}}
    with pytest.raises(PackValidationError, match=r"dialect of older documentation: load_pack\(path\)\.upgrade\(\)"):
        load_pack(older, strict=True)


def test_strict_after_tolerant_is_checked_anew(tmp_path: Path) -> None:
    """Tolerant loading has no effect on later strict loading."""
    path = tmp_path / "a.pack.json"
    path.write_text(json.dumps(newsroom_with("/id", "No Id")), encoding="utf-8")
    assert load_pack(path).id == "No Id"
    with pytest.raises(PackValidationError):
        load_pack(path, strict=True)
    path.write_text(json.dumps(newsroom()), encoding="utf-8")
    assert load_pack(path, strict=True).id == "newsroom"


PLACES = [
    (pointer, key)
    for pointer, keys in [
        ("", ["description", "fragments", "tools", "evals", "metadata", "compilation", "workflow", "skills"]),
        (DRAFT, ["description", "variables", "tools", "parameters", "validators", "media", "model_overrides"]),
        (f"{DRAFT}/variables/0", ["name", "type", "required", "validation", "description"]),
        (f"{DRAFT}/tool_policy", ["tool_choice", "max_rounds", "blocklist"]),
        (f"{DRAFT}/media/image", ["max_size_mb", "allowed_formats", "require_caption"]),
        (f"{STATES}/writing", ["on_event", "max_visits", "artifacts"]),
        ("/agents/members/draft", ["tags", "input_modes"]),
        ("/skills/3", ["name", "instructions"]),
        ("/skills/1", ["path", "preload"]),
        ("/evals/0", ["id", "trigger", "metric"]),
    ]
    for key in keys
]


@given(place=st.sampled_from(PLACES), index=st.integers(0, 30))
def test_any_misspelled_key_is_found_with_its_right_spelling(place: tuple[str, str], index: int) -> None:
    """A doubled letter in a known key gives one error with the right spelling."""
    pointer, key = place
    at = index % len(key)
    wrong = key[: at + 1] + key[at] + key[at + 1 :]
    pack = newsroom_with(f"{pointer}/{wrong}", 1)
    found = [finding for finding in validate_pack(pack) if finding.pointer == f"{pointer}/{wrong}"]
    assert [(finding.code, finding.severity) for finding in found] == [("PP104", "error")]
    assert key in found[0].suggestions


@given(place=st.sampled_from(PLACES), value=st.sampled_from([None, True, 3.5, [[]], {"a": {}}]))
def test_any_wrong_value_is_an_error_at_or_below_its_place(place: tuple[str, str], value: object) -> None:
    """A value of the wrong type is an error at or below its pointer."""
    pointer, key = place
    right = type(_value_at(newsroom(), f"{pointer}/{key}"))
    pack = newsroom_with(f"{pointer}/{key}", value)
    errors = validate_pack(pack).errors
    if not isinstance(value, right):
        assert any(error.pointer.startswith(f"{pointer}/{key}") for error in errors)


def _value_at(value: Any, pointer: str) -> Any:
    for key in pointer.split("/")[1:]:
        value = value[int(key) if isinstance(value, list) else key]
    return value


OPTIONAL = [
    f"{pointer}/{key}"
    for pointer, keys in [
        ("", ["$schema", "description", "evals", "metadata", "compilation", "skills"]),
        (DRAFT, ["description", "tool_policy", "pipeline", "parameters", "evals", "tested_models", "media"]),
        (f"{DRAFT}/variables/0", ["description", "example", "validation"]),
        (f"{DRAFT}/variables/1", ["default"]),
        (f"{DRAFT}/parameters", ["temperature", "top_k"]),
        (f"{DRAFT}/validators/0", ["fail_on_violation"]),
        (f"{DRAFT}/media", ["image", "audio", "supported_types", "examples"]),
        (f"{STATES}/writing", ["persistence", "orchestration", "skills", "max_visits", "artifacts"]),
        ("/agents/members/draft", ["tags", "state", "input_modes"]),
        ("/tools/archive", ["parameters"]),
        (f"{STEPS}/1", ["else"]),
        (f"{STEPS}/2", ["input", "tools", "depends_on"]),
    ]
    for key in keys
]


@given(pointer=st.sampled_from(OPTIONAL))
def test_optional_keys_may_be_left_out(pointer: str) -> None:
    """Optional keys may be missing, and the rest is unchanged."""
    pack = newsroom_with(pointer, LEFT_OUT)
    assert validate_pack(pack).errors == ()
    assert load_pack(pack, strict=True).to_dict() == pack == load_pack(pack).upgrade()


def _pointers_in(value: Any, pointer: str = "") -> Iterator[str]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield pointer_to(pointer, key)
        yield from _pointers_in(item, pointer_to(pointer, key))


VALUES = [None, True, 0, 1, -1, 3.5, "", "a", "A b", "1.0", "none", "{{x | y}}", [], ["a"], [1], {}, {"dir": "x"}]


@given(
    pointer=st.sampled_from(list(_pointers_in(newsroom()))),
    added=st.sampled_from(["", "", "/x", "/type", "/dir", "/binding", "/control", "/terminal", "/on_event", "/-"]),
    value=st.sampled_from([LEFT_OUT, *VALUES]),
)
def test_strict_is_the_schema_and_upgrades_pass_it(pointer: str, added: str, value: object) -> None:
    """Any single change: schema errors are findings of the schema's codes, and what loads upgrades to the schema."""
    try:
        pack = newsroom_with(pointer + added, value)
    except (AttributeError, KeyError, TypeError, ValueError):
        return  # there is nothing to change
    checker = Draft202012Validator(schema())
    codes = {error.code for error in validate_pack(pack).errors}
    if checker.is_valid(pack):
        assert codes.isdisjoint({"PP101", "PP102", "PP104", "PP106", "PP107", "PP108"})
    else:
        assert codes
    try:
        upgraded = load_pack(pack).upgrade()
    except PackError:
        return
    assert checker.is_valid(upgraded)


def test_schema_is_valid_itself() -> None:
    """Our schema is valid JSON Schema, draft 2020-12, and closed."""
    from jsonschema_rs import meta  # noqa: PLC0415 - heavy, and used here only

    meta.validate(schema())
    assert schema()["additionalProperties"] is False
