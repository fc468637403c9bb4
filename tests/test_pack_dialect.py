"""Tolerant loading: older dialects are converted and missing keys filled in, with a warning for each change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom import LEFT_OUT, newsroom, newsroom_with
from promptkit_nb import Pack, PackError, PackValidationError, load_pack, validate_pack
from promptkit_nb.packs.names import slug_of

if TYPE_CHECKING:
    from pathlib import Path

OLDER: dict[str, Any] = {
    "version": "1.0",
    "metadata": {"name": "Help Desk", "author": "Ann", "pack_version": "0.9", "tags": ["desk"]},
    "variants": {"a": {}},
    "prompts": {
        "chat": {
            "system_prompt": "You are {{tone}} to {{name}}.",
            "model_config": {"temperature": 0.2, "stop_sequences": ["END"], "model": "gpt-4"},
            "available_tools": ["search"],
            "validators": ["length", "profanity"],
            "template_vars": {"tone": "warm"},
            "examples": [{"user": "Hi"}],
        }
    },
    "tools": {"search": {"name": "search", "description": "Search."}},
}


REMEDY = "only {{name}} and {{fragments.NAME}} are replaced"


def prompt_in(**keys: object) -> dict[str, Any]:
    """Return a complete pack with one prompt that has these keys."""
    prompt = {"id": "a", "name": "A", "version": "1.0.0", "system_template": "Hi", **keys}
    engine = {"version": "v1", "syntax": "{{variable}}"}
    return {"id": "p", "name": "P", "version": "1.0.0", "template_engine": engine, "prompts": {"a": prompt}}


def changes_of(pack: Pack) -> list[str]:
    """Return the warnings about conversions."""
    return [warning for warning in pack.warnings if not warning.endswith("kept, but not run")]


def test_each_conversion_of_the_older_dialect_has_a_warning() -> None:
    """Each change has one warning, which begins with the pointer in the file."""
    pack = load_pack(OLDER)
    assert changes_of(pack) == [
        "/metadata/pack_version: read as 'version' '0.9.0', instead of '1.0'",
        "/id: missing; read as 'help-desk'",
        "/name: missing; read as 'Help Desk'",
        '/template_engine: missing; read as {"version": "v1", "syntax": "{{variable}}"}',
        "/variants: kept, but not applied",
        "/prompts/chat/system_prompt: read as 'system_template'",
        "/prompts/chat/available_tools: read as 'tools'",
        "/prompts/chat/model_config/stop_sequences: not in the format; kept, and sent with the request as 'stop'",
        "/prompts/chat/model_config: read as 'parameters'",
        "/prompts/chat/model_config/model: kept, but not applied",
        "/prompts/chat/template_vars: read as 'variables' with these defaults",
        "/prompts/chat/validators/0: 'length' read as an enabled validator of this type",
        "/prompts/chat/validators/1: there is no validator 'profanity': kept, but not applied",
        "/prompts/chat/examples: kept, but not applied",
        "/prompts/chat/id: missing; read as 'chat'",
        "/prompts/chat/name: missing; read as 'chat'",
        "/prompts/chat/version: missing; read as '0.9.0'",
    ]
    assert pack.to_dict() == OLDER


def test_older_dialect_works() -> None:
    """System prompt, defaults, parameters, tools and stop sequences work."""
    prompt = load_pack(OLDER).prompt("chat")
    assert prompt.render({"name": "Ann"}) == "You are warm to Ann."
    assert prompt.render({"name": "Ann", "tone": "cool"}) == "You are cool to Ann."
    assert prompt.parameters_for("gpt-4") == {"temperature": 0.2, "stop": ["END"]}
    assert prompt.tools == ("search",)
    assert prompt.validators == [{"type": "length", "enabled": True}]
    assert prompt.variables[0].type == "string"


def test_stop_sequences_survive_snapshot_and_upgrade() -> None:
    """Stop sequences survive in snapshots and upgraded packs."""
    pack = load_pack(OLDER)
    assert type(pack.prompt()).from_snapshot(pack.prompt().snapshot()) == pack.prompt()
    assert load_pack(pack.upgrade()).prompt().parameters_for(None)["stop"] == ["END"]


def test_unsupported_values_are_kept_by_their_pointers() -> None:
    """Extras, and the metadata of the upgraded pack, keep the rest."""
    pack = load_pack(OLDER)
    assert pack.extras == {
        "/variants": {"a": {}},
        "/prompts/chat/model_config/stop_sequences": ["END"],
        "/prompts/chat/model_config/model": "gpt-4",
        "/prompts/chat/validators/1": "profanity",
        "/prompts/chat/examples": [{"user": "Hi"}],
    }
    assert pack.upgrade()["metadata"]["x_extras"] == pack.extras
    assert pack.upgrade()["metadata"]["author"] == "Ann"


def test_upgraded_pack_is_valid_and_stable() -> None:
    """The upgraded pack is valid, and upgrading twice changes nothing."""
    upgraded = load_pack(OLDER).upgrade()
    again = load_pack(upgraded, strict=True)
    assert again.upgrade() == upgraded
    assert again.prompt().render({"name": "Ann"}) == "You are warm to Ann."


@pytest.mark.parametrize(
    ("version", "read"), [("1.0", "1.0.0"), ("1", "1.0.0"), (1, "1.0.0"), (1.5, "1.5.0"), ("v2", "v2.0.0")]
)
def test_short_versions_are_completed(version: object, read: str) -> None:
    """Numbers and short texts become semantic versions."""
    pack = load_pack({**prompt_in(), "version": version})
    assert pack.version == read
    assert len(changes_of(pack)) == 1


@pytest.mark.parametrize(
    ("version", "pack_version", "read"),
    [("1.0", "0.9", "0.9.0"), (1, "2.1.0", "2.1.0"), ("2.0.0", "0.9", "2.0.0"), ("1.0", "latest", "1.0.0")],
)
def test_pack_version_of_the_older_dialect_is_the_version(version: object, pack_version: str, read: str) -> None:
    """If ``version`` is that of the dialect; a semantic version is the pack's own."""
    data = {"version": version, "metadata": {"pack_version": pack_version}, "prompts": {"a": {"system_prompt": "Hi"}}}
    pack = load_pack(data)
    assert pack.version == read
    assert pack.to_dict() == data


@pytest.mark.parametrize(
    ("syntax", "template", "default"),
    [
        ("${variable}", "${fragments.hello} $5, {x} and ${tone}", "as ${name} likes"),
        ("{variable}", '{fragment:hello} {"json": {}}, {1} and {tone}', "as {name} likes"),
        ("{{ name }}", "{{fragments.hello}} and {{tone}}", "as {{name}} likes"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_placeholders_in_another_syntax_of_the_schema_are_rendered(
    syntax: str, template: str, default: str, *, strict: bool
) -> None:
    """Templates, defaults, fragments and overrides are read in the pack's syntax and upgraded to double braces."""
    hello = {"${variable}": "Hello ${name}!", "{variable}": "Hello {name}!"}.get(syntax, "Hello {{name}}!")
    variables = [
        {"name": "name", "type": "string", "required": True},
        {"name": "tone", "type": "string", "required": False, "default": default},
    ]
    data = prompt_in(system_template=template, variables=variables, model_overrides={"m": {"system_template": hello}})
    data["fragments"] = {"hello": hello}
    data["template_engine"]["syntax"] = syntax
    pack = load_pack(data, strict=strict)
    rendered = pack.prompt().render({"name": "Ann"})
    assert rendered.startswith("Hello Ann!")
    assert rendered.endswith("and as Ann likes")
    assert pack.prompt().render({"name": "Ann"}, model="m") == "Hello Ann!"
    assert pack.to_dict() == data
    upgraded = load_pack(pack.upgrade(), strict=True)
    assert upgraded.prompt().render({"name": "Ann"}) == rendered
    assert upgraded.warnings == ()


@pytest.mark.parametrize("syntax", ["jinja2", "<%= variable %>", "{{variable}", "%s", ""])
@pytest.mark.parametrize("strict", [False, True])
def test_other_syntaxes_are_refused(syntax: str, *, strict: bool) -> None:
    """A pack whose placeholders cannot be found does not load."""
    data = prompt_in()
    data["template_engine"]["syntax"] = syntax
    with pytest.raises(PackValidationError, match=r"/template_engine/syntax.*expected '\{\{variable\}\}'"):
        load_pack(data, strict=strict)


def test_dollar_braces_that_are_not_a_name_are_refused() -> None:
    """As double braces are."""
    data = prompt_in(system_template="${name | upper} ${persona_${region}}")
    data["template_engine"]["syntax"] = "${variable}"
    assert [error.code for error in validate_pack(data).errors] == ["PP304", "PP304"]
    with pytest.raises(PackValidationError, match="filters are unsupported"):
        load_pack(data).prompt().render({"region": "eu"})


def test_upgrade_writes_the_canonical_syntax_of_fragments() -> None:
    """``{{fragments.NAME}}``; names that are a variable too keep their meaning."""
    variables = [{"name": "tone", "type": "string", "required": False, "default": "warm"}]
    data = prompt_in(system_template="{{a}} {{fragment:b}} {{ fragments.c }} {{tone}} {{x}}", variables=variables)
    data["fragments"] = {"a": "{{b}}", "b": "B", "c": "C", "tone": "T"}
    upgraded = load_pack(data).upgrade()
    template = upgraded["prompts"]["a"]["system_template"]
    assert template == "{{fragments.a}} {{fragments.b}} {{fragments.c}} {{tone}} {{x}}"
    assert upgraded["fragments"]["a"] == "{{fragments.b}}"
    assert load_pack(upgraded, strict=True).prompt().render({"x": "X"}) == "B B C T X"
    assert load_pack(data).prompt().render({"x": "X"}) == "B B C T X"


def test_placeholders_that_cannot_be_rendered_are_warnings_and_stay_in_the_upgrade() -> None:
    """Tolerant loading names them, the upgrade keeps them, and strict loading refuses them."""
    data = prompt_in(system_template="{{1}} {{fragments.sig}}")
    data["fragments"] = {"sign": "Yours"}
    pack = load_pack(data)
    assert [warning.split(";")[0] for warning in pack.warnings] == [
        "/prompts/a/system_template: {{fragments.sig}} at line 1, column 7 is not among the pack's fragments",
        f"/prompts/a/system_template: {{{{1}}}} at line 1, column 1, but this is not a name: {REMEDY}",
    ]
    assert pack.upgrade() == data
    with pytest.raises(PackValidationError, match="2 errors"):
        load_pack(pack.upgrade(), strict=True)


def test_upgrade_moves_media_kinds_that_the_published_schema_cannot_tell_apart() -> None:
    """Settings of another kind that a known kind may have too are refused there, and accepted here."""
    data = newsroom_with("/prompts/draft/media/hologram", {"max_size_mb": 5})
    assert validate_pack(data).errors == ()
    upgraded = load_pack(data).upgrade()
    assert upgraded["metadata"].pop("x_extras") == {"/prompts/draft/media/hologram": {"max_size_mb": 5}}
    assert upgraded == newsroom()


def test_folders_of_skills_are_read_as_paths() -> None:
    """PromptKit reads ``dir``, and its schema has ``path``."""
    pack = load_pack(newsroom_with("/skills/2", {"dir": "./skills/facts"}))
    assert pack.skills[2] == {"path": "./skills/facts"}
    assert "/skills/2/dir: read as 'path'" in pack.warnings
    assert pack.upgrade() == newsroom()


def test_unknown_checks_are_named() -> None:
    """Validators and evals of unknown types load tolerantly, with a warning and a near match."""
    pack = load_pack(newsroom_with("/evals/0/type", "workflow_state_is"))
    assert changes_of(pack) == ["/evals/0/type: there is no eval 'workflow_state_is'; did you mean 'state_is'?"]
    pack = load_pack(newsroom_with("/evals/0/type", "house_tone"))
    assert changes_of(pack) == ["/evals/0/type: there is no eval 'house_tone'"]
    pack = load_pack(newsroom_with("/prompts/draft/validators/0/type", "max_lenth"))
    assert changes_of(pack)[0].endswith("there is no validator 'max_lenth'; did you mean 'max_length'?")


def test_minimal_pack_loads() -> None:
    """An id and a system prompt are enough; the rest is generated."""
    pack = load_pack({"id": "tiny", "prompts": {"hello_world": {"system_template": "Hi"}}})
    assert (pack.id, pack.name, pack.version) == ("tiny", "tiny", "1.0.0")
    assert pack.template_engine == {"version": "v1", "syntax": "{{variable}}"}
    assert pack.prompt().id == "hello_world"


def test_name_may_come_from_the_file(tmp_path: Path) -> None:
    """Without id and name, both come from the file name."""
    path = tmp_path / "My Desk.pack.json"
    path.write_text(json.dumps({"prompts": {"a": {"system_template": "Hi"}}}), encoding="utf-8")
    pack = load_pack(path)
    assert (pack.id, pack.name) == ("my-desk", "My Desk")


@pytest.mark.parametrize(
    ("name", "slug"), [("My Pack", "my-pack"), ("42", "pack-42"), ("", "pack"), ("Käse!", "k-se"), ("--a--", "a")]
)
def test_slugs_follow_the_format(name: str, slug: str) -> None:
    """Generated ids follow the format."""
    assert slug_of(name) == slug


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        ({"system_prompt": "Hi"}, "/prompts/a/system_prompt: same as 'system_template', dropped"),
        ({"model_config": {"top_p": 1}, "parameters": {"top_p": 0.5}},
         "/prompts/a/model_config: kept, but not applied, because 'parameters' is present"),
        ({"validators": [{"type": "length", "enabled": True, "config": {"max": 9}}]},
         "/prompts/a/validators/0/config: read as 'params'"),
        ({"validators": [{"type": "length", "params": {"max": 9}}]},
         "/prompts/a/validators/0/enabled: missing; read as true"),
        ({"validators": [{"type": "length", "enabled": True, "message": "Too long.", "params": {"max": 9}}]},
         "/prompts/a/validators/0/message: moved into 'params'"),
        ({"validators": ["lenght"]},
         "/prompts/a/validators/0: there is no validator 'lenght': kept, but not applied; did you mean 'length'?"),
        ({"variables": [{"name": "x", "required": False}]}, "/prompts/a/variables/0/type: missing; read as 'string'"),
        ({"variables": [{"name": "x", "type": "number"}]}, "/prompts/a/variables/0/required: missing; read as false"),
        ({"temperature": 1},
         "/prompts/a/temperature: unknown key, kept but not applied; it belongs under 'parameters'"),
        ({"paramters": {}}, "/prompts/a/paramters: unknown key, kept but not applied; did you mean 'parameters'?"),
        ({"user_template": "{{q}}"}, "/prompts/a/user_template: kept, but not applied"),
        ({"tools": None}, "/prompts/a/tools: null, read as absent"),
    ],
)  # fmt: skip
def test_each_change_is_one_warning(keys: dict[str, Any], warning: str) -> None:
    """Each small deviation is converted with one warning."""
    pack = load_pack(prompt_in(**keys))
    assert changes_of(pack) == [warning]
    assert load_pack(pack.upgrade(), strict=True).prompt().render({}) == "Hi"


def test_extras_of_an_earlier_upgrade_are_kept() -> None:
    """A second upgrade keeps both values with the same pointer."""
    first = load_pack(prompt_in(notes=1)).upgrade()
    first["prompts"]["a"]["notes"] = 2
    assert load_pack(first).upgrade()["metadata"]["x_extras"] == {"/prompts/a/notes": 1, "/prompts/a/notes#2": 2}


def test_variables_by_name_are_read_as_a_list() -> None:
    """An object of variables becomes an array."""
    variables = {"tone": {"type": "string", "required": True, "default": "warm"}}
    pack = load_pack(prompt_in(variables=variables, system_template="{{tone}}"))
    assert pack.prompt().render({}) == "warm"
    assert changes_of(pack) == [
        "/prompts/a/variables: an object, read as an array of named variables",
        "/prompts/a/variables/0/default: 'tone' is required and has a default, so it is never missing",
    ]


def test_unknown_type_of_a_variable_becomes_that_of_its_default() -> None:
    """An unknown type moves to the extras, and the type of the default applies."""
    pack = load_pack(prompt_in(variables=[{"name": "n", "type": "nubmer", "required": False, "default": 3}]))
    assert pack.prompt().variables[0].type == "number"
    assert changes_of(pack)[0].endswith("array; did you mean 'number'?")


def test_declared_variables_win_over_template_vars() -> None:
    """Declared variables win; the other default moves to the extras."""
    variables = [{"name": "tone", "type": "string", "required": False, "default": "cool"}]
    pack = load_pack(
        prompt_in(variables=variables, template_vars={"tone": "warm", "n": 2}, system_template="{{tone}} {{n}}")
    )
    assert pack.prompt().render({}) == "cool 2"
    assert pack.extras == {"/prompts/a/template_vars": {"tone": "warm"}}


@pytest.mark.parametrize("older", ["system_prompt", "system"])
def test_two_different_system_prompts_are_refused(older: str) -> None:
    """Two different system prompts are an error."""
    with pytest.raises(PackValidationError, match=rf"at /prompts/a, '{older}' and 'system_template' differ"):
        load_pack(prompt_in(**{older: "Bye"}))


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/workflow/entry", "nowhere"),
        ("/workflow/states/writing/prompt_task", "nobody"),
        ("/workflow/states/writing/on_event/Written", "nowhere"),
        ("/agents/entry", "nobody"),
        ("/agents/members/ghost", {}),
    ],
)
def test_dangling_references_of_workflows_and_agents_are_refused(pointer: str, value: object) -> None:
    """Dangling references of workflows and agents are errors, also in tolerant loading."""
    with pytest.raises(PackValidationError, match=f"is not a valid pack: at {pointer}, .*there is no"):
        load_pack(newsroom_with(pointer, value))


def test_null_removes_a_parameter() -> None:
    """Null in an override removes a parameter; the upgraded pack keeps it in the extras."""
    pack = load_pack(
        prompt_in(
            parameters={"temperature": 1, "top_k": None}, model_overrides={"m": {"parameters": {"temperature": None}}}
        )
    )
    assert pack.warnings == ()
    assert pack.prompt().parameters_for("m") == {}
    assert pack.prompt().parameters_for(None) == {"temperature": 1}
    assert pack.upgrade()["metadata"]["x_extras"] == {"/prompts/a/model_overrides/m/parameters/temperature": None}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/id", "No Id"),
        ("/version", "latest"),
        ("/prompts/draft/id", "1"),
        ("/prompts/draft/name", ""),
        ("/prompts/draft/version", "?"),
        ("/prompts/draft/parameters/temperature", 9),
        ("/prompts/draft/tools/0", "unknown"),
        ("/prompts/draft/variables/0/name", "not a name"),
        ("/prompts/draft/variables/1/default", "dogs"),
        ("/prompts/draft/validators/0", {"type": "pii_leakge"}),
        ("/prompts/draft/validators/0/params", {}),
        ("/prompts/draft/media/enabled", LEFT_OUT),
        ("/evals/0/trigger", "sometimes"),
        ("/metadata/x_extras", "mine"),
        ("/metadata/language", "English"),
        ("/tools/archive/description", ""),
        ("/workflow/engine/budget/max_tool_calls", 0),
        ("/workflow/version", 7),
        ("/agents/members/draft/input_modes/0", "text"),
        ("/compositions/verify/steps/2/kind", "other"),
        ("/compositions/verify/steps/0/depends_on", ["ask"]),
        ("/skills/1", {"nothing": 1}),
        ("/template_engine/syntax", LEFT_OUT),
        ("/workflow/states/filed/terminal", False),
        ("/workflow/states/writing/on_event", LEFT_OUT),
        ("/workflow/states/writing/control", "user"),
        ("/prompts/draft/variables/1/binding", {"kind": "session"}),
        ("/prompts/draft/tool_policy/blocklist/0", "file_stroy"),
        ("/prompts/draft/media/examples/0/parts/1/type", "smell"),
        ("/evals/0/type", "workflow_state_is"),
        ("/evals/1/id", "sober"),
        ("/tools/archive/parameters/required/0", "qurey"),
        ("/compositions/verify/steps/0/modifiers", {"eval": ["polite", "vaild"]}),
        ("/skills/2", {"dir": "./skills/facts"}),
    ],
)
def test_upgrade_repairs_any_pack_that_loads(pointer: str, value: object) -> None:
    """Invalid values move to the extras, and missing keys are generated."""
    pack = load_pack(newsroom_with(pointer, value))
    upgraded = pack.upgrade()
    assert validate_pack(upgraded).errors == ()
    assert load_pack(upgraded, strict=True).prompt("draft").system_template == pack.prompt("draft").system_template


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["", "a", "draft", "text/plain", "1.0", "${x.y}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "type", "kind", "steps", "prompt_task", "default", "entry", "path", "a/b~"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
POINTERS = st.sampled_from(
    [
        *(f"/{key}" for key in newsroom()),
        *(f"/prompts/draft/{key}" for key in newsroom()["prompts"]["draft"]),
        *(f"/prompts/draft/variables/0/{key}" for key in ("name", "type", "default", "validation", "enum")),
        "/prompts/draft/validators/0",
        "/prompts/draft/validators/-",
        "/prompts/draft/media/image",
        "/prompts/draft/media/hologram",
        "/prompts/1 odd~0~1key",
        "/tools/archive/parameters",
        "/workflow/states/writing",
        "/agents/members/draft",
        "/skills/-",
        "/compositions/verify/steps/0",
        "/compositions/verify/steps/1/predicate",
        "/compositions/verify/steps/3/branches",
        "/metadata/x_extras",
    ]
)


@given(pointer=POINTERS, value=ANY)
def test_any_pack_that_loads_upgrades_to_a_valid_pack(pointer: str, value: object) -> None:
    """Any pack that loads tolerantly upgrades to a valid pack, and ``to_dict`` equals the input."""
    data = newsroom_with(pointer, value)
    try:
        pack = load_pack(data)
    except PackError:
        return
    assert pack.to_dict() == data
    upgraded = pack.upgrade()
    errors = validate_pack(upgraded).errors
    assert {error.code for error in errors} <= {"PP206", "PP304"}  # placeholders, which stay as they are
    assert load_pack(upgraded, strict=not errors).upgrade() == upgraded
