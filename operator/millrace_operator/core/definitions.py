"""The schema -> CustomResourceDefinitions: structural OpenAPI v3, spelled out, with rules, columns and subresources.

What the API server wants is stricter than JSON Schema: no references, no alternatives, defaults only where the fields
below have theirs. An absent value is absent, never null, and an empty list or map has no default: absent means empty.
"""

import hashlib
from typing import Any, Final, cast

import msgspec
from msgspec import inspect as types

from millrace_operator.core.declare import Column, CustomResource, Rule, Schema
from millrace_operator.core.schema import CUSTOM_RESOURCES

GROUP: Final = "millrace.dev"
VERSION: Final = "v1alpha1"
CATEGORY: Final = "millrace"
DIGEST: Final = f"{GROUP}/schema-digest"  # annotation by which an operator sees that a cluster has other CRDs than it
INT32_MAX: Final = 2**31 - 1

_TYPE_META: Final = {
    "apiVersion": {
        "type": "string",
        "description": f"Version of the schema that this object is written in: {GROUP}/{VERSION}.",
    },
    "kind": {"type": "string", "description": "Kind of the object."},
}


def definitions() -> dict[str, dict[str, Any]]:
    """Each CRD by its name.

    >>> sorted(definitions())[-1]
    'workerpools.millrace.dev'
    """
    return {f"{kind.plural}.{GROUP}": definition(kind) for kind in CUSTOM_RESOURCES}


def digests() -> dict[str, str]:
    """What the annotation DIGEST says in the CRDs of this schema, by kind."""
    return {crd["spec"]["names"]["kind"]: crd["metadata"]["annotations"][DIGEST] for crd in definitions().values()}


def definition(kind: type[CustomResource]) -> dict[str, Any]:
    """The CRD of one kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.has_scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    spec = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "kind": kind.__name__,
            "listKind": f"{kind.__name__}List",
            "plural": kind.plural,
            "singular": kind.__name__.lower(),
            "shortNames": [kind.short_name],
            "categories": [CATEGORY],
        },
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "subresources": subresources,
                "additionalPrinterColumns": [_column(column) for column in kind.columns],
                "schema": {"openAPIV3Schema": _root(kind)},
            }
        ],
    }
    digest = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:16]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "annotations": {DIGEST: digest}},
        "spec": spec,
    }


def _root(kind: type[CustomResource]) -> dict[str, Any]:
    """Schema of a whole object: of its metadata only the name may be restricted, the rest is Kubernetes' own."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    parts = {field.encode_name: field for field in info.fields}
    metadata = _unwrapped(parts["metadata"].type)[0]
    assert isinstance(metadata, types.StructType)
    name = next(field for field in metadata.fields if field.encode_name == "name")
    return {
        "type": "object",
        "description": _docstring(kind),
        "required": ["metadata", "spec"],
        "properties": _TYPE_META
        | {
            "metadata": {"type": "object", "properties": {"name": _shape(name.type, defaults=False)}},
            "spec": _property(parts["spec"], defaults=True),
            "status": _property(parts["status"], defaults=False),
        },
        **_validations(kind.rules),
    }


def _property(field: types.Field, *, defaults: bool) -> dict[str, Any]:
    """One field with its description, to which range and default are added as words."""
    info, extra = _unwrapped(field.type)
    shape = _shape(field.type, defaults=defaults)
    described = extra.get("description")
    if not described:
        raise TypeError(f"the field {field.encode_name} has no doc(...)")
    facts = _facts(info)
    if defaults and (default := _default(field)) is not None:
        shape["default"] = default
        if not isinstance(default, dict):
            facts.append(f"default {_spelled(default)}")
    told = "; ".join(facts)
    return {"description": f"{described} {told[:1].upper()}{told[1:]}." if told else described} | shape


def _shape(annotated: types.Type, *, defaults: bool) -> dict[str, Any]:
    """The OpenAPI schema of a type, without the description of the field."""
    info, extra = _unwrapped(annotated)
    shape: dict[str, Any]
    match info:
        case types.StructType():
            shape = _object(info, defaults=defaults)
        case types.StrType():
            shape = {"type": "string"} | _given(
                minLength=info.min_length, maxLength=info.max_length, pattern=info.pattern
            )
        case types.DateTimeType():
            shape = {"type": "string", "format": "date-time"}
        case types.LiteralType():
            shape = {"type": "string", "enum": list(info.values)}
        case types.IntType():
            wide = info.le is None or info.le > INT32_MAX
            shape = {"type": "integer", "format": "int64" if wide else "int32"} | _range(info)
        case types.FloatType():
            shape = {"type": "number", "format": "double"} | _range(info)
        case types.VarTupleType():
            items = _shape(info.item_type, defaults=defaults)
            shape = {"type": "array", "items": items, "x-kubernetes-list-type": "atomic"}
            shape |= _given(minItems=info.min_length, maxItems=info.max_length)
        case types.DictType():
            values = _shape(info.value_type, defaults=defaults)
            shape = {"type": "object", "additionalProperties": values} | _given(maxProperties=info.max_length)
        case types.UnionType():
            text = next(member for member in map(_bare, info.types) if isinstance(member, types.StrType))
            shape = {"x-kubernetes-int-or-string": True} | _given(maxLength=text.max_length, pattern=text.pattern)
        case _:
            raise TypeError(f"no place in a CRD for {info}")
    return shape | {key: value for key, value in extra.items() if key.startswith("x-kubernetes-")}


def _object(info: types.StructType, *, defaults: bool) -> dict[str, Any]:
    cls = cast("type[Schema]", info.cls)
    required = [field.encode_name for field in info.fields if field.required]
    return {
        "type": "object",
        **_given(required=required or None),
        "properties": {field.encode_name: _property(field, defaults=defaults) for field in info.fields},
        **_validations(cls.rules),
    }


def _unwrapped(annotated: types.Type) -> tuple[types.Type, dict[str, Any]]:
    """The type below descriptions and `| None`, and all that was said on the way; the outer word wins."""
    if isinstance(annotated, types.Metadata):
        info, extra = _unwrapped(annotated.type)
        return info, extra | (annotated.extra_json_schema or {})
    if isinstance(annotated, types.UnionType):
        members = [member for member in annotated.types if not isinstance(member, types.NoneType)]
        if len(members) == 1:
            return _unwrapped(members[0])
        return types.UnionType(types=tuple(members)), {}
    return annotated, {}


def _bare(annotated: types.Type) -> types.Type:
    return _unwrapped(annotated)[0]


def _default(field: types.Field) -> Any:
    """The default as the API server fills it in; None for a field that is simply absent.

    Of an object with all its fields: the API server evaluates the rules on it before it fills in those.
    """
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if default is msgspec.NODEFAULT or default is None:
        return None
    if isinstance(default, msgspec.Struct):
        assert default == type(default)(), f"the default of {field.encode_name} must be that of its fields"
        info = types.type_info(type(default))
        assert isinstance(info, types.StructType)
        parts = {part.encode_name: _default(part) for part in info.fields}
        return {name: value for name, value in parts.items() if value is not None}
    if isinstance(default, tuple):
        return list(default) or None
    return _number(default) if default not in ("", {}) else None


def _facts(info: types.Type) -> list[str]:
    """Bounds of a value as words."""
    match info:
        case types.IntType(ge=int(least), le=int(most)) if most < INT32_MAX:
            return [f"from {least} to {most}"]
        case types.FloatType(ge=None, gt=float() | int() as above, le=float() | int() as most):
            return [f"above {_number(above)}" + (f", at most {_spelled(_number(most))}" if most < INT32_MAX else "")]
        case types.FloatType(ge=float() | int() as least, le=float() | int() as most):
            if most < INT32_MAX:
                return [f"from {_number(least)} to {_spelled(_number(most))}"]
            return [f"at least {_number(least)}"] if least else []
        case types.VarTupleType(max_length=int(most)):
            return [f"at most {most} entries"]
        case types.DictType(max_length=int(most)):
            return [f"at most {most} entries"]
        case _:
            return []


def _spelled(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _range(info: types.IntType | types.FloatType) -> dict[str, Any]:
    least = info.ge if info.gt is None else info.gt
    return _given(
        minimum=_number(least), exclusiveMinimum=True if info.gt is not None else None, maximum=_number(info.le)
    )


def _number(value: Any) -> Any:
    """5.0 as 5: the API server writes it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _given(**words: Any) -> dict[str, Any]:
    return {word: value for word, value in words.items() if value is not None}


def _validations(rules: tuple[Rule, ...]) -> dict[str, Any]:
    written = [
        {"rule": rule.cel, "message": rule.message}
        | _given(fieldPath=rule.field or None, optionalOldSelf=True if rule.first_too else None)
        for rule in rules
    ]
    return {"x-kubernetes-validations": written} if written else {}


def _column(column: Column) -> dict[str, Any]:
    return {"name": column.name, "jsonPath": column.path, "type": column.type, "description": column.description} | (
        {"priority": 1} if column.wide else {}
    )


def _docstring(kind: type) -> str:
    """The docstring as `kubectl explain` prints it: paragraphs, each on one line."""
    paragraphs = (kind.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
