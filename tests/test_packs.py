"""Loading packs: nothing is lost or silently ignored, and every error has a position."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom import newsroom_with
from promptkit_nb.errors import PackError, PackNotFoundError, PackValidationError, PromptNotFoundError
from promptkit_nb.packs.pack import Prompt, load_pack
from promptkit_nb.packs.schema import definition, schema
from promptkit_nb.packs.validation import validate_pack

DATA = Path(__file__).parent / "data"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
MINIMAL: dict[str, Any] = {
    "id": "mine",
    "name": "Mine",
    "version": "1.0.0",
    "template_engine": {"version": "v1", "syntax": "{{variable}}"},
    "prompts": {"a": {"id": "a", "name": "A", "version": "1.0.0", "system_template": "You help."}},
}


def pack_with(**changes: object) -> dict[str, Any]:
    """Return the minimal pack with other keys at the top."""
    return {**MINIMAL, **changes}


def with_prompt(**changes: object) -> dict[str, Any]:
    """Return the minimal pack with other keys in its prompt."""
    return pack_with(prompts={"a": {**MINIMAL["prompts"]["a"], **changes}})


def written(folder: Path, content: str | bytes) -> Path:
    """Write a pack file with this content."""
    path = folder / "test.pack.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "path",
    [DATA / "support.pack.json", DATA / "translator.pack.json", NOTEBOOKS / "assistant.pack.json"],
    ids=lambda path: str(path.name),
)
def test_pack_is_written_back_equal(path: Path) -> None:
    """Every section, known or not, is returned unchanged."""
    assert load_pack(path).to_dict() == json.loads(path.read_text(encoding="utf-8"))


def test_pack_says_what_is_in_it() -> None:
    """Name, version, prompts in file order, fragments and tools are available."""
    pack = load_pack(DATA / "support.pack.json")
    assert (pack.id, pack.name, pack.version) == ("customer-support", "Customer support", "v2.3.1")
    assert pack.description.startswith("First line and escalation")
    assert list(pack.prompts) == ["first_line", "escalation"]
    assert list(pack.fragments) == ["signature", "policy", "unused"]
    assert pack.tools["order_status"]["parameters"]["required"] == ["order_id"]


def test_path_may_be_text() -> None:
    """A path may be a string or a path object."""
    assert load_pack(str(DATA / "support.pack.json")) == load_pack(DATA / "support.pack.json")


def test_loading_imports_no_checker() -> None:
    """A valid pack loads without importing the validation libraries."""
    script = (
        "import sys; from promptkit_nb import load_pack; load_pack(sys.argv[1]);"
        "print({'jsonschema_rs', 'rapidfuzz', 'pandas'} & set(sys.modules))"
    )
    path = DATA / "newsroom.pack.json"
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_missing_sections_are_empty() -> None:
    """Missing sections are empty, not None."""
    pack = load_pack(MINIMAL)
    assert (pack.fragments, pack.tools, pack.warnings) == ({}, {}, ())


@pytest.mark.parametrize("section", ["fragments", "tools", "metadata", "description"])
def test_null_is_absent(section: str) -> None:
    """A known section with the value null counts as absent, with a warning, and is written back as null."""
    pack = load_pack(pack_with(**{section: None}))
    assert pack.warnings == (f"/{section}: null, read as absent",)
    assert pack.to_dict()[section] is None


def test_dict_is_copied() -> None:
    """Later changes to the caller's dict or to the result of ``to_dict`` do not affect the pack."""
    mine = with_prompt()
    pack = load_pack(mine)
    mine["prompts"]["a"]["system_template"] = "changed"
    pack.to_dict()["prompts"]["a"]["system_template"] = "changed"
    assert pack.prompt().system_template == "You help."


def test_any_mapping_is_a_pack() -> None:
    """A read-only mapping works like a dict."""
    assert load_pack(MappingProxyType(MINIMAL)).id == "mine"


def test_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """The next load sees a changed file."""
    path = written(tmp_path, json.dumps(MINIMAL))
    assert load_pack(path).version == "1.0.0"
    written(tmp_path, json.dumps(pack_with(version="1.0.1")))
    assert load_pack(path).version == "1.0.1"


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """Windows editors write one."""
    assert load_pack(written(tmp_path, b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode())).id == "mine"


def test_missing_file_is_named_with_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the absolute path and similar names."""
    written(tmp_path, json.dumps(MINIMAL))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackNotFoundError) as caught:
        load_pack("tset.pack.json")
    assert str(caught.value) == (
        f"There is no pack file at {tmp_path / 'tset.pack.json'}. Similar names in {tmp_path}: test.pack.json."
    )


@pytest.mark.parametrize("name", ["no/such/folder.json", "test.pack.json/x", "nul\0byte", "~nobody-of-this-name/x"])
def test_impossible_paths_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Files used as folders and impossible names are not found."""
    written(tmp_path, json.dumps(MINIMAL))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackNotFoundError, match="There is no pack file at /"):
        load_pack(name)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_folders_are_refused_with_the_packs_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error says that it is a folder, and which packs it has."""
    written(tmp_path, json.dumps(MINIMAL))
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner" if name == ".." else tmp_path)
    with pytest.raises(PackNotFoundError) as caught:
        load_pack(name)
    assert str(caught.value) == f"{tmp_path} is a folder, not a pack file. Packs in {tmp_path}: test.pack.json."


@pytest.mark.parametrize("url", ["https://example.com/a.pack.json", "file:///tmp/a.pack.json", "s3://bucket/a.json"])
def test_urls_are_refused(url: str) -> None:
    """The error says what to do."""
    with pytest.raises(PackNotFoundError) as caught:
        load_pack(url)
    assert str(caught.value) == f"{url} is a URL, and load_pack reads files: download it, and give the file's path."


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin with ``~``, as a string or a path object."""
    written(tmp_path, json.dumps(MINIMAL))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_pack("~/test.pack.json").id == load_pack(Path("~/test.pack.json")).id == "mine"


def test_unreadable_file_says_why(tmp_path: Path) -> None:
    """Errors of the operating system become a PackError with the reason."""
    with pytest.raises(PackError, match="cannot be read: File name too long"):
        load_pack(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "line 1, column 1"),
        ('{\n  "id": "a"\n  "version": 1}', "line 3, column 3"),
        ('{"id": "a"} x', "line 1, column 13"),
        ("{\n 'id': 1}", "line 2, column 2"),
    ],
)
def test_error_for_invalid_json_has_its_position(tmp_path: Path, text: str, place: str) -> None:
    """Line and column point at the error."""
    with pytest.raises(PackValidationError, match=f"is not JSON: .*, at {place}"):
        load_pack(written(tmp_path, text))


def test_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    """The error names the first invalid byte and the remedy."""
    with pytest.raises(PackValidationError, match=r"is not UTF-8: byte 8 is 0xfc\. Save it as UTF-8\."):
        load_pack(written(tmp_path, '{"id": "ü"}'.encode("latin-1")))


def test_key_twice_in_one_object_is_named_with_both_places(tmp_path: Path) -> None:
    """The error has both positions, also for a key with escapes."""
    text = '{"prompts": {"a": {"system_template": "x:{}"},\n  "b": {"system_template": ["}"]},\n  "\\u0061": {}}}'
    with pytest.raises(
        PackValidationError, match=r"the key 'a' twice in one object, at line 1, column 14 and line 3, column 3\."
    ):
        load_pack(written(tmp_path, text))


def test_same_key_in_different_objects_is_fine(tmp_path: Path) -> None:
    """Keys are unique within one object only."""
    assert load_pack(written(tmp_path, json.dumps(pack_with(metadata={"id": {"id": [{"id": 1}, {"id": 2}]}}))))


def test_deep_nesting_is_refused_and_what_is_allowed_works(tmp_path: Path) -> None:
    """A hundred levels work throughout; one more is an error."""

    def nested(levels: int) -> Path:
        chain = '{"not": ' * (levels - 6) + "{}" + "}" * (levels - 6)
        steps = f'[{{"id": "a", "kind": "branch", "then": "a", "predicate": {chain}}}]'
        prompts = '{"a": {"system_template": "Hi"}}'
        return written(tmp_path, f'{{"compositions": {{"c": {{"steps": {steps}}}}}, "prompts": {prompts}}}')

    pack = load_pack(nested(100))
    assert load_pack(pack.upgrade(), strict=True)
    with pytest.raises(PackValidationError, match="nested more than 100 levels deep"):
        load_pack(nested(101))
    assert [finding.code for finding in validate_pack(nested(300))] == ["PP003"]


@pytest.mark.parametrize("literal", ["NaN", "-Infinity", "1e999", "123456789012345678901234", '"\\ud83c"'])
def test_values_beyond_json_in_a_file_are_refused(tmp_path: Path, literal: str) -> None:
    """Values that Python parses but JSON does not have are errors with their place; text that looks similar is fine."""
    with pytest.raises(PackValidationError, match=r"is not a valid pack: pack\['metadata'\]\['x'\]"):
        load_pack(written(tmp_path, json.dumps(pack_with(metadata={"x": 0})).replace("0}", f"{literal}}}")))
    assert load_pack(written(tmp_path, json.dumps(pack_with(metadata={"x": "NaN 1e999 🧀"})))).warnings == ()


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 5000 + "]" * 5000, '{"id": ' + "9" * 5000 + "}"])
def test_excessive_json_is_refused(tmp_path: Path, text: str) -> None:
    """Very deep nesting and very long numbers are errors, not crashes."""
    with pytest.raises(PackValidationError):
        load_pack(written(tmp_path, text))


def test_dict_that_contains_itself_is_refused() -> None:
    """A cyclic dict is an error."""
    endless = pack_with()
    endless["metadata"] = endless
    with pytest.raises(PackValidationError, match="contains itself"):
        load_pack(endless)


@pytest.mark.parametrize("value", [float("nan"), {1}, {1: 2}, "\ud83c", 2**70])
def test_values_that_json_cannot_hold_are_refused(value: object) -> None:
    """Values that JSON does not have are errors."""
    with pytest.raises(PackValidationError, match=r"The pack is not a valid pack: pack\['metadata'\]"):
        load_pack(pack_with(metadata={"x": value}))


@pytest.mark.parametrize("data", [[], None, 7, "[]", '"text"'])
def test_packs_must_be_objects(tmp_path: Path, data: Any) -> None:
    """Anything but an object, in a file or given directly, is an error."""
    source = written(tmp_path, data) if isinstance(data, str) else data
    with pytest.raises(PackValidationError, match="expected a JSON object"):
        load_pack(source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"id": "a"}, "at the top, it needs 'prompts', not empty"),
        (pack_with(prompts={}), "at /prompts, it needs at least one prompt"),
        (pack_with(prompts=["a"]), "at /prompts, expected an object, found an array"),
        (pack_with(prompts={"a": None}), "at /prompts/a, expected an object, found null"),
        (pack_with(prompts={"x/y~z": "text"}), "at /prompts/x~1y~0z, expected an object, found 'text'"),
        (with_prompt(system_template=""), "at /prompts/a/system_template, it is empty"),
        (
            pack_with(prompts={"a": {"system_tmplate": "You help."}}),
            "it needs 'system_template', not empty (found 'system_tmplate': rename it)",
        ),
        (with_prompt(system_template=["x"]), "at /prompts/a/system_template, expected a string, found an array"),
        (with_prompt(variables={"a": 1}), "at /prompts/a/variables, expected an array, found an object"),
        (with_prompt(variables=[{"type": "string"}]), "at /prompts/a/variables/0, it needs 'name'"),
        (with_prompt(tools=["t", 1]), "at /prompts/a/tools/1, expected a string, found 1"),
        (with_prompt(parameters={"temperature": "hot"}), "/parameters/temperature, expected a number, found 'hot'"),
        (with_prompt(parameters={"max_tokens": 1.5}), "/parameters/max_tokens, expected an integer, found 1.5"),
        (with_prompt(parameters={"max_tokens": True}), "/parameters/max_tokens, expected an integer, found true"),
        (with_prompt(model_overrides={"m": {"system_template_prefix": 1}}), "/m/system_template_prefix, expected"),
        (pack_with(fragments={"f": 1}), "at /fragments/f, expected a string, found 1"),
        (pack_with(version=True), "at /version, expected a string, found true"),
        (pack_with(tools=[]), "at /tools, expected an object, found an empty array"),
    ],
)
def test_wrong_shape_is_named_by_its_pointer(data: dict[str, Any], message: str) -> None:
    """The error has the pointer, the expected type and the value found."""
    with pytest.raises(PackValidationError) as caught:
        load_pack(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (pack_with(promts=1), "/promts: unknown key, kept but not applied; did you mean 'prompts'?"),
        (pack_with(zzz=1), "/zzz: unknown key, kept but not applied"),
        (
            with_prompt(temperature=1),
            "/prompts/a/temperature: unknown key, kept but not applied; it belongs under 'parameters'",
        ),
        (
            with_prompt(parameters={"temprature": 1}),
            "/prompts/a/parameters/temprature: unknown key, kept but not applied; did you mean 'temperature'?",
        ),
        (with_prompt(version=None), "/prompts/a/version: missing; read as '1.0.0'"),
        (with_prompt(id="b"), "/prompts/a/id: it is 'b', but the prompt is found by its key, 'a'"),
        (with_prompt(tools=["t"]), "/prompts/a/tools/0: there is no tool 't'"),
        (
            with_prompt(validators=[{"type": "max_length", "enabled": True}]),
            "/prompts/a/validators: kept, but not run",
        ),
        (
            with_prompt(variables=[{"name": "v", "type": "string", "required": True, "default": "d"}]),
            "/prompts/a/variables/0/default: 'v' is required and has a default, so it is never missing",
        ),
    ],
)
def test_unapplied_parts_have_one_warning_each(data: dict[str, Any], warning: str) -> None:
    """The pack loads, keeps everything, and warns once about each part without effect."""
    pack = load_pack(data)
    assert pack.warnings == (warning,)
    assert pack.to_dict() == data


def test_null_in_open_sections_is_a_value() -> None:
    """Tool schemas and metadata may contain null."""
    tool = {"name": "t", "description": "T", "parameters": {"type": "object", "properties": {"a": {"default": None}}}}
    pack = load_pack(pack_with(tools={"t": tool}, metadata={"default": None}))
    assert pack.warnings == ()
    assert pack.upgrade() == pack.to_dict()


def test_unknown_keys_in_open_sections_have_no_warnings() -> None:
    """Metadata may contain any keys."""
    assert load_pack(pack_with(metadata={"anything": {"at": "all"}})).warnings == ()


def test_prompt_without_a_name_is_the_only_one() -> None:
    """The name is optional if there is one prompt."""
    assert load_pack(MINIMAL).prompt().name == "a"
    assert load_pack(MINIMAL).prompt(None) == load_pack(MINIMAL).prompt("a")


def test_prompt_without_a_name_among_several_is_an_error() -> None:
    """The error lists the names, sorted."""
    with pytest.raises(PromptNotFoundError, match=r"has 2 prompts: give prompt_name=, one of escalation, first_line"):
        load_pack(DATA / "support.pack.json").prompt()


def test_unknown_prompt_lists_the_names_and_a_near_match() -> None:
    """The error lists the names, sorted, and a near match."""
    with pytest.raises(PromptNotFoundError) as caught:
        load_pack(DATA / "support.pack.json").prompt("frist_line")
    assert str(caught.value) == (
        "Pack 'customer-support' has no prompt 'frist_line', only escalation, first_line. Did you mean 'first_line'?"
    )


def test_tutorial_pack_renders() -> None:
    """The pack of the tutorials renders."""
    pack = load_pack(NOTEBOOKS / "assistant.pack.json")
    assert pack.warnings == ()
    assert pack.prompt("assistant").render({}) == (
        "You are a helpful assistant in a Jupyter notebook. Your tone is friendly and brief. "
        "Answer in Markdown. Say so when you do not know something."
    )
    assert pack.prompt("tutor").render({"subject": "algebra"}).startswith("You teach algebra to a beginner.")


def test_braces_of_other_languages_are_kept() -> None:
    """LaTeX and single braces in a template are kept, and an object is written as JSON."""
    prompt = load_pack(DATA / "translator.pack.json").prompt()
    assert prompt.render({"target": "Greek", "glossary": {"cell": "κελί"}}) == (
        'Translate into Greek. Keep {names} and $\\frac{a}{b}$ as they are. Glossary: {"cell":"κελί"}'
    )


def test_every_section_can_be_read() -> None:
    """All sections are available, unchanged."""
    pack = load_pack(DATA / "newsroom.pack.json")
    assert pack.to_dict() == json.loads((DATA / "newsroom.pack.json").read_text(encoding="utf-8")) == pack.upgrade()
    assert pack.template_engine["features"] == ["basic_substitution", "fragments"]
    assert pack.metadata["owner"] == {"since": 1996, "ratio": 1.0, "nothing": None}
    assert pack.compilation["source"] == "desk.yaml"
    assert pack.workflow is not None
    assert pack.workflow["entry"] == "writing"
    assert pack.agents is not None
    assert list(pack.agents["members"]) == ["draft", "check"]
    assert pack.skills[0] == "./skills"
    assert list(pack.compositions) == ["verify"]
    prompt = pack.prompt("draft")
    assert prompt.media["image"]["default_detail"] == "low"
    assert prompt.tested_models[0]["model"] == "gpt-4o-mini"
    assert [validator["type"] for validator in prompt.validators] == ["max_length", "regex"]
    assert prompt.variables[0].example == "The harbour"


def test_keys_that_only_promptkit_reads_are_kept() -> None:
    """``binding`` and ``control`` stay in place, with a warning; the upgrade moves them to the extras."""
    data = newsroom_with("/prompts/draft/variables/1/binding", {"kind": "session"})
    data["workflow"]["states"]["writing"]["control"] = "user"
    pack = load_pack(data)
    assert pack.prompt("draft").variables[1].binding["kind"] == "session"
    assert pack.warnings[:2] == (
        "/prompts/draft/variables/1/binding: not in the format; kept for other runtimes",
        "/workflow/states/writing/control: not in the format; kept for other runtimes",
    )
    assert pack.upgrade()["metadata"]["x_extras"] == {
        "/prompts/draft/variables/1/binding": {"kind": "session"},
        "/workflow/states/writing/control": "user",
    }


def test_sections_that_are_not_run_are_named() -> None:
    """Each unapplied section has one warning."""
    assert [warning.split(":")[0] for warning in load_pack(DATA / "newsroom.pack.json").warnings] == [
        "/evals",
        "/workflow",
        "/agents",
        "/skills",
        "/compositions",
        "/prompts/draft/pipeline",
        "/prompts/draft/validators",
        "/prompts/draft/evals",
        "/prompts/draft/media",
    ]


def test_evals_of_a_prompt_replace_the_packs_of_the_same_id() -> None:
    """A prompt's eval replaces the pack's with the same id."""
    pack = load_pack(DATA / "newsroom.pack.json")
    assert [(each["id"], each["type"]) for each in pack.evals_for("draft")] == [
        ("valid", "json_valid"),
        ("sober", "content_excludes"),
    ]
    assert [each["type"] for each in pack.evals_for("check")] == ["llm_judge", "json_valid"]


def test_repr_says_what_is_in_the_pack() -> None:
    """The repr has id, version, prompts and the number of warnings."""
    assert repr(load_pack(MINIMAL)) == "<Pack 'mine' 1.0.0, prompts: a>"
    assert repr(load_pack(DATA / "support.pack.json")) == (
        "<Pack 'customer-support' v2.3.1, prompts: first_line, escalation; 8 warnings>"
    )


def test_html_of_a_large_pack_is_cut() -> None:
    """Long lists are cut."""
    prompts = {f"prompt-{number:04}": {"system_template": "Hi"} for number in range(1052)}
    shown = load_pack(pack_with(prompts=prompts, fragments=dict.fromkeys(prompts, "x")))._repr_html_()
    assert "prompt-0049</strong>" in shown
    assert "prompt-0050</strong>" not in shown
    assert "… and 1,002 more in pack.prompts" in shown
    assert "prompt-0049 … and 1,002 more" in shown


def test_html_escapes_everything() -> None:
    """Names, descriptions, warnings and keys of a pack are escaped."""
    evil = "<script>alert(1)</script>"
    pack = load_pack(
        pack_with(id=evil, name=evil, version=evil, description=evil, prompts={evil: {"system_template": evil}})
        | {evil: 1}
    )
    shown = pack._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [*schema()["properties"], *definition("prompt")["properties"], "type", "default", "required", "validation", "a"]
)
PACK_LIKE = st.recursive(
    JSON | st.sampled_from(["{{a}}", "{{b}} {{#if}}", "string"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
PROMPTS = st.dictionaries(
    st.text(max_size=3),
    st.fixed_dictionaries(
        {"system_template": st.sampled_from(["{{a}}", "{{b}}{{a}}", "x"])},
        optional={
            "variables": st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["a", "b"])},
                    optional={"default": JSON, "required": st.booleans(), "validation": PACK_LIKE, "type": st.none()},
                ),
                max_size=2,
            ),
            "model_overrides": PACK_LIKE,
            "parameters": PACK_LIKE,
        },
    ),
    max_size=2,
)


@given(data=JSON | PACK_LIKE | st.fixed_dictionaries({"prompts": PROMPTS}, optional={"fragments": PACK_LIKE}))
def test_any_json_loads_or_raises_a_pack_error(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any JSON, in a file or given directly, loads as a pack or raises a PackError."""
    path = tmp_path_factory.getbasetemp() / "any.pack.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    for source in (path, data):
        if isinstance(source, str):
            continue  # given as it is, text is a path
        assert repr(validate_pack(source))
        try:
            pack = load_pack(source)
            assert pack.to_dict() == data
            upgraded = pack.upgrade()
            assert load_pack(upgraded).extras == upgraded.get("metadata", {}).get("x_extras", {})
            codes = {error.code for error in validate_pack(upgraded).errors}
            assert codes <= {"PP206", "PP304"}  # placeholders, which stay as they are
            assert codes or load_pack(upgraded, strict=True)
            assert repr(pack)
            assert pack._repr_html_()
            for prompt in pack.prompts.values():
                assert Prompt.from_snapshot(prompt.snapshot()) == prompt
                prompt.parameters_for("a")
                prompt.render({"a": "x"}, model="a")
        except PackError:
            pass


@given(text=st.text() | st.binary())
def test_any_file_raises_only_pack_errors(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random files raise a PackError."""
    path = tmp_path_factory.getbasetemp() / "any.pack.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    with pytest.raises(PackError):
        load_pack(path)


@pytest.mark.parametrize("strict", [False, True])
def test_limits_of_a_file(tmp_path: Path, strict: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Its size, its depth and its keys, which the checks would take long for; each error names the limit."""
    deep = "[" * 200 + "]" * 200
    for text, problem in (
        ('{"id": "' + "a" * 10_000_000 + '"}', "it has more than 10,000,000 bytes"),
        (f'{{"id": "a", "metadata": {deep}}}', "it is nested more than 100 levels deep"),
        ("[" * 200_000, "cannot be parsed: it is nested too deeply"),
        (f'{{"{"k" * 1001}": 1}}', "it has a key of more than 1,000 characters"),
    ):
        path = tmp_path / "strange.pack.json"
        path.write_text(text, "utf-8")
        with pytest.raises(PackError, match=problem):
            load_pack(path, strict=strict)
