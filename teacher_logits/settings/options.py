"""What options are made of: the kinds of values they take and how they are named."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import tyro

RESULT = "changes the result"
"""Marks the fields that decide what is stored for a given conversation."""


def _counts_from_json(text: str) -> dict[str, int]:
    """Read `{"name": number}` as an option is given on the command line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON ({error}); expected something like '{{\"name\": 10}}'") from error
    if not is_counts(value):
        raise ValueError(f"{text!r} is not a JSON object of names and whole numbers such as '{{\"name\": 10}}'")
    return value


def is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(count, int) and not isinstance(count, bool) and count >= 0
        for key, count in value.items()
    )


def _optional(metavar: str, read: Callable[[str], Any], kind: type | tuple[type, ...]) -> Any:
    """How a value that may be missing is written on the command line; 'None' takes it back."""
    return tyro.constructors.PrimitiveConstructorSpec[Any](
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: None if words[0] == "None" else read(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [json.dumps(value) if isinstance(value, dict) else str(value)],
    )


def _default_unless_none(default: str) -> str:
    return "" if default == "None" else f"(default: {default})"


def option(name: str | None = None, metavar: str | None = None) -> Any:
    """A field's name and value on the command line, where they aren't those that its type gives."""
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=_default_unless_none)


JsonCounts = Annotated[dict[str, int] | None, option(), _optional("JSON", _counts_from_json, dict)]
Text = Annotated[str | None, option(), _optional("TEXT", str, str)]
Number = Annotated[int | None, option(), _optional("N", int, int)]
Fraction = Annotated[float | None, option(), _optional("X", float, (int, float))]


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value from a file has the type a field is annotated with (the few kinds fields have)."""
    choices = get_args(annotation)
    if annotation in (str, int, float, bool):
        return type(value) is annotation
    if annotation is type(None):
        return value is None
    if getattr(annotation, "__origin__", None) is dict:
        return is_counts(value)
    if getattr(annotation, "__origin__", None) is Literal:
        return value in choices
    if float in choices and type(value) is int:
        return True
    return any(fits(value, choice) for choice in choices)


def option_name(field: str) -> str:
    """The option a field is given by, with its dashes: 'top_p_max_elements' -> '--top-p-max'."""
    return "--top-p-max" if field == "top_p_max_elements" else "--" + field.replace("_", "-")
