"""Describes a Python function for a model, from its signature, type hints, and docstring."""

from __future__ import annotations

import functools
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import pydantic

from promptkit_nb.errors import InvalidArgumentError
from promptkit_nb.text.plain_text import one_line
from promptkit_nb.tools.arguments import ArgumentsRejectedError

_PREFIX = "f_"  # parameters may be called json, copy or model_…, which are names of pydantic's models
_TAKES = "A tool can take text, numbers, lists, models; let it read a DataFrame from the notebook instead."


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """The parts of a tool that come from a function; ``parse`` turns a JSON object into arguments."""

    name: str
    description: str
    schema: dict[str, Any]
    call: Callable[..., object]
    parse: Callable[[Mapping[str, object]], dict[str, object]]


def read_function(function: Callable[..., object], name: str | None = None) -> FunctionTool:
    """Return the description of a function as a tool; ``name`` replaces the function's name.

    Raises ``InvalidArgumentError``, which says what to change, for a function that a model cannot call.
    """
    if not callable(function):
        raise InvalidArgumentError(f"{function!r:.80} is not a function: give functions as tools.")
    own_name = getattr(_plain_function(function), "__name__", "") if name is None else name
    if not own_name or own_name == "<lambda>":
        raise InvalidArgumentError(f'{function!r:.80} has no name that a model can use: give one, with name="…".')
    parameters = _parameters(function, own_name)
    model = _model_of(function, own_name, parameters)
    schema = _schema_of(model, own_name)
    return FunctionTool(
        own_name, _description(function), schema, function, functools.partial(_parsed, model, tuple(parameters))
    )


def _plain_function(function: Any) -> Any:
    """Return the function inside partials, decorators, and callable objects."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return inspect.unwrap(type(function).__call__)


def _description(function: Callable[..., object]) -> str:
    """Return the docstring: for a callable object its own, for a partial that of its function."""
    within = function
    while isinstance(within, functools.partial):
        within = within.func
    return inspect.getdoc(within) or ""


def _parameters(function: Callable[..., object], name: str) -> dict[str, inspect.Parameter]:
    try:
        signature = _signature(function)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(
            f"The parameters of {name!r} are unknown ({error}): wrap it in your own function with type hints."
        ) from error
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InvalidArgumentError(
                f"Tool {name!r} has the positional-only parameter {parameter.name!r}, which a model cannot name: "
                "remove the slash."
            )
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise InvalidArgumentError(
                f"Tool {name!r} takes {stars}{parameter.name}: a model has to know each parameter, so name them, or "
                "take a list."
            )
    return dict(signature.parameters)


def _signature(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature; an undefined name in the return annotation is ignored."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415 - of Python 3.14

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _model_of(
    function: Callable[..., object], name: str, parameters: Mapping[str, inspect.Parameter]
) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in parameters.values():
        hint = _hint(function, name, parameter)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"{_PREFIX}{parameter.name}"] = (hint, pydantic.Field(default, alias=parameter.name))
    try:
        return pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    except (pydantic.errors.PydanticUserError, TypeError) as error:
        said = one_line(str(error).partition("\n")[0])
        raise InvalidArgumentError(f"A parameter of tool {name!r} cannot come from a model: {said} {_TAKES}") from error


def _hint(function: Callable[..., object], name: str, parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter; annotations that are text are evaluated where the function was defined."""
    if parameter.annotation is parameter.empty:
        return Any

    def probe() -> None:
        """Hold one annotation: that of the result may be undefined."""

    probe.__annotations__ = {"value": parameter.annotation}
    names = getattr(_plain_function(function), "__globals__", {})
    try:
        return get_type_hints(probe, globalns=names, include_extras=True)["value"]
    except (NameError, SyntaxError, TypeError) as error:
        raise InvalidArgumentError(
            f"The type of parameter {parameter.name!r} of tool {name!r} is unknown ({error}): define or import it, or "
            "remove the hint."
        ) from error


def _schema_of(model: type[pydantic.BaseModel], name: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a default that is not JSON is left out
            schema = model.model_json_schema(by_alias=True)
    except pydantic.errors.PydanticUserError as error:
        said = one_line(str(error).partition("\n")[0])
        raise InvalidArgumentError(f"A parameter of tool {name!r} cannot come from a model: {said} {_TAKES}") from error
    found: dict[str, Any] = without_titles(schema)
    return found


def without_titles(schema: Any, *, are_names: bool = False) -> Any:
    """Return the schema without pydantic's titles; ``are_names`` if its keys are names, such as those of properties."""
    if isinstance(schema, list):
        return [without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_titles(value, are_names=key in {"properties", "$defs"} and not are_names)
        for key, value in schema.items()
        if are_names or key != "title"
    }


def _parsed(model: type[pydantic.BaseModel], names: tuple[str, ...], given: Mapping[str, object]) -> dict[str, object]:
    """Return the given arguments converted to the hinted types, such as models, enums, and dates."""
    try:
        read = model.model_validate_json(json.dumps(dict(given)))
    except pydantic.ValidationError as error:
        raise ArgumentsRejectedError("; ".join(map(_said, error.errors()[:5]))) from None
    return {name: getattr(read, f"{_PREFIX}{name}") for name in names if f"{_PREFIX}{name}" in read.model_fields_set}


def _said(error: Mapping[str, Any]) -> str:
    where = ".".join(map(str, error["loc"])) or "arguments"
    return f"{where}: {one_line(str(error['msg']))}"
