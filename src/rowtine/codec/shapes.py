"""How an instance of a registered class is taken apart and rebuilt.

A *shape* knows one class. It gives the fields of an instance, and makes an instance from fields
without calling the class: no ``__init__``, ``__new__``, ``__post_init__`` or validator runs, so
what comes out is what went in, also when its constructor would say something else today.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from rowtine.codec.names import native_base
from rowtine.codec.text import is_plain_key
from rowtine.core.names import class_name
from rowtine.errors import DecodeError


class Shape(Protocol):
    """One registered class. `body` is what stands in the row: {field: value}."""

    cls: type[Any]
    name: str
    tag: str

    def take(self, value: Any) -> dict[str, Any]:
        """The fields of an instance. Raises TypeError if they are not all there is to it."""
        ...

    def build(self, body: dict[str, Any]) -> Any:
        """The instance with these fields, or DecodeError naming class and field."""
        ...


class _Record:
    """What dataclasses, named tuples and pydantic models have in common: named fields."""

    def __init__(self, cls: type[Any], fields: Iterable[str]) -> None:
        self.cls = cls
        self.name = class_name(cls)
        self.fields = tuple(fields)
        self._known = frozenset(self.fields)
        odd = [field for field in self.fields if not is_plain_key(field)]
        if odd:
            raise TypeError(f"{self.name} cannot be registered: a field is named {odd[0]!r}")

    def default(self, field: str, values: dict[str, Any]) -> Any:
        """What a row older than the field gets; `values` are those that it has.

        Raises LookupError if the field has no default.
        """
        raise NotImplementedError

    def refuse_extra_state(self, value: Any) -> None:
        """Raise TypeError if something hangs on the instance that is no field."""
        attributes = getattr(value, "__dict__", {})
        if attributes.keys() <= self._known:
            return
        for name in attributes:
            if name not in self._known and not self._is_cache(name):
                raise TypeError(f"attribute {name!r} of {self.name} is not a field")

    def _is_cache(self, name: str) -> bool:
        """Of a cached_property, say, which is computed again on demand."""
        lazy: object = getattr(self.cls, name, None)
        return hasattr(type(lazy), "__get__") and not hasattr(type(lazy), "__set__")

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of exactly today's fields, in their order."""
        unknown = values.keys() - self._known
        if unknown:
            raise DecodeError(f"{self.name} has no field {min(unknown)!r}, but the row has one")
        return {f: values[f] if f in values else self._missing(f, values) for f in self.fields}

    def _missing(self, field: str, values: dict[str, Any]) -> Any:
        try:
            return self.default(field, values)
        except LookupError:
            raise DecodeError(
                f"{self.name} needs the field {field!r}, but the row has none and no default"
            ) from None


class DataclassShape(_Record):
    """A dataclass, also frozen or with slots. An InitVar is no field: what it led to is."""

    tag = "$dataclass"

    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls, (field.name for field in dataclasses.fields(cls)))
        if native_base(cls) is not object:
            raise TypeError(f"{self.name} cannot be registered: it derives from a builtin type")

    def take(self, value: Any) -> dict[str, Any]:
        self.refuse_extra_state(value)
        try:
            return {field: getattr(value, field) for field in self.fields}
        except AttributeError as error:
            raise TypeError(f"a field of {self.name} has no value: {error}") from error

    def default(self, field: str, values: dict[str, Any]) -> Any:  # noqa: ARG002
        spec = self.cls.__dataclass_fields__[field]
        if spec.default_factory is not dataclasses.MISSING:
            return spec.default_factory()
        if spec.default is dataclasses.MISSING:
            raise LookupError(field)
        return spec.default

    def build(self, body: dict[str, Any]) -> Any:
        made = object.__new__(self.cls)
        for field, value in self.complete(body).items():
            object.__setattr__(made, field, value)  # a frozen one refuses the ordinary way
        return made


class NamedTupleShape(_Record):
    """A `typing.NamedTuple` or `collections.namedtuple`."""

    tag = "$namedtuple"

    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls, cls._fields)

    def take(self, value: Any) -> dict[str, Any]:
        self.refuse_extra_state(value)
        return dict(zip(self.fields, tuple(value), strict=True))

    def default(self, field: str, values: dict[str, Any]) -> Any:  # noqa: ARG002
        return self.cls._field_defaults[field]

    def build(self, body: dict[str, Any]) -> Any:
        return cast(Any, tuple).__new__(self.cls, self.complete(body).values())


class PydanticShape(_Record):
    """A pydantic model, through the state that pydantic itself pickles: nothing is validated again.

    Beside the fields, and only when there is something to say: `$unset` (fields that were never
    given), `$extra` (``extra="allow"``), `$private` (private attributes).
    """

    tag = "$pydantic"

    def __init__(self, cls: type[Any]) -> None:
        super().__init__(cls, cls.model_fields)

    def take(self, value: Any) -> dict[str, Any]:
        self.refuse_extra_state(value)
        given = value.__pydantic_fields_set__
        beside = {
            "$unset": [field for field in self.fields if field not in given],
            "$extra": value.__pydantic_extra__,
            "$private": value.__pydantic_private__,
        }
        try:
            fields = {field: value.__dict__[field] for field in self.fields}
        except KeyError as error:
            raise TypeError(f"the field {error} of {self.name} has no value") from None
        return fields | {key: held for key, held in beside.items() if held}

    def default(self, field: str, values: dict[str, Any]) -> Any:
        spec = self.cls.model_fields[field]
        if spec.is_required():
            raise LookupError(field)
        if spec.default_factory is None:
            return copy.deepcopy(spec.default)
        takes_data = getattr(spec, "default_factory_takes_validated_data", False)
        return spec.default_factory(dict(values)) if takes_data else spec.default_factory()

    def build(self, body: dict[str, Any]) -> Any:
        unset, extra = body.pop("$unset", ()), body.pop("$extra", {})
        private = self._private(body.pop("$private", {}))
        given = (self._known & body.keys()).difference(unset).union(extra)
        takes_extra = self.cls.model_config.get("extra") == "allow"
        state = {
            "__dict__": self.complete(body if takes_extra else body | extra),
            "__pydantic_fields_set__": given,
            "__pydantic_extra__": extra if takes_extra else None,
            "__pydantic_private__": private,
        }
        made = object.__new__(self.cls)
        cast(Any, pydantic_base()).__setstate__(made, state)
        return made

    def _private(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """Completed with defaults; None, as pydantic has it, if the class declares none."""
        declared = self.cls.__private_attributes__
        defaults = {name: attribute.get_default() for name, attribute in declared.items()}
        undefined = sys.modules["pydantic_core"].PydanticUndefined
        known = {name: value for name, value in defaults.items() if value is not undefined}
        return known | values if declared or values else None


class EnumShape:
    """An Enum, by the name of the member; a union of flags as ``A|B``."""

    tag = "$enum"

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        self.name = class_name(cls)

    def take(self, value: Any) -> dict[str, Any]:
        name = value._name_ or ""
        if self._member(name) is not value:
            raise TypeError(f"a value of {self.name} that no names of its members make up")
        return {"name": name}

    def build(self, body: dict[str, Any]) -> Any:
        member = self._member(body["name"])
        if member is None:
            raise DecodeError(f"{self.name} has no member {body['name']!r:.100}")
        return member

    def _member(self, name: str) -> Any:
        """None if there is none."""
        members = self.cls.__members__
        if name in members or not issubclass(self.cls, enum.Flag):
            return members.get(name)
        names = name.split("|") if name else []
        if not members.keys() >= set(names):
            return None
        member: Any = self.cls(0)
        for part in names:
            member |= members[part]
        return member


def _is_named_tuple(cls: type[Any]) -> bool:
    fields: Any = getattr(cls, "_fields", None)
    return issubclass(cls, tuple) and isinstance(fields, tuple)


def is_pydantic(cls: type[Any]) -> bool:
    base = pydantic_base()
    return base is not None and issubclass(cls, base) and cls is not base


def pydantic_base() -> type[Any] | None:
    """Pydantic's BaseModel if somebody has imported it: rowtine itself never does."""
    return getattr(sys.modules.get("pydantic"), "BaseModel", None)


_KINDS: tuple[tuple[Callable[[type[Any]], bool], Callable[[type[Any]], Shape]], ...] = (
    (lambda cls: issubclass(cls, enum.Enum) and bool(cls.__members__), EnumShape),
    (is_pydantic, PydanticShape),
    (_is_named_tuple, NamedTupleShape),
    (dataclasses.is_dataclass, DataclassShape),
)


def kind_of(cls: type[Any]) -> Callable[[type[Any]], Shape] | None:
    """The kind of shape that fits a class, or None if it is of no kind that can be registered."""
    return next((shape for fits, shape in _KINDS if fits(cls)), None)
