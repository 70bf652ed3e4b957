"""The JSON schema of a dataclass, as `validation.typed_json` spells it."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Mapping[object, dict[str, object]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]},
}


def schema_of(kind: type, *, name: str, schema: int) -> dict[str, object]:
    """The schema of what `typed_json.render_json(value, schema=schema)` writes.

    Args:
        kind: the dataclass.
        name: of the schema.
        schema: the version that stands in the document.
    """
    definitions: dict[str, object] = {}
    _collect(kind, definitions)
    root = definitions.pop(kind.__name__)
    assert isinstance(root, dict)
    return {
        "$schema": _DRAFT,
        "$id": f"urn:{name}:{schema}",
        **root,
        "properties": {"schema": {"const": schema}, **root["properties"]},
        "required": ["schema", *root["required"]],
        "$defs": dict(sorted(definitions.items())),
    }


def _collect(kind: Any, definitions: dict[str, object]) -> None:
    """An object with exactly the fields of a dataclass."""
    if kind.__name__ in definitions:
        return
    entry: dict[str, object] = {"type": "object"}
    definitions[kind.__name__] = entry
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    entry["description"] = (kind.__doc__ or "").strip().partition("\n")[0]
    entry["properties"] = {name: _schema(hints[name], definitions) for name in names}
    entry["required"] = names
    entry["additionalProperties"] = False


def _schema(hint: Any, definitions: dict[str, object]) -> dict[str, object]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return {"anyOf": [_schema(inner, definitions), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if dataclasses.is_dataclass(hint):
        _collect(hint, definitions)
        assert isinstance(hint, type)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    return dict(_SCALARS[hint])
