"""Which functions and coroutines an app knows, by name. An app has one; there is no global one."""

from __future__ import annotations

from typing import Any

from rowtine.core.directives import Body
from rowtine.errors import NotFound, RegistrationError
from rowtine.functions import CoroutineFunction, Function

__all__ = ["Registry"]

Registered = Function[..., Any] | CoroutineFunction[..., Any]


class Registry:
    """Functions and coroutines share one space of names, as they share one history."""

    def __init__(self) -> None:
        self._by_name: dict[str, Registered] = {}

    def add(self, registered: Registered) -> None:
        """Register. The same source (a reload, a notebook cell run again) replaces the old one;
        the same name from elsewhere raises RegistrationError."""
        known = self._by_name.get(registered.name)
        if known is not None and known.source != registered.source:
            raise RegistrationError(
                f"{registered.name!r} is already registered, from {known.source}; "
                f"give {registered.source} another name with name=..."
            )
        self._by_name[registered.name] = registered

    def function(self, name: str) -> Function[..., Any]:
        """The function of this name; NotFound if there is none here."""
        found = self._by_name.get(name)
        if not isinstance(found, Function):
            raise NotFound(f"no function {name!r} is registered here; known: {self._known()}")
        return found

    def runs(self, name: str) -> bool:
        """Whether there is a function of this name, which a worker can claim calls of."""
        return isinstance(self._by_name.get(name), Function)

    def find(self, name: str) -> Registered | None:
        return self._by_name.get(name)

    def body(self, name: str) -> Body | None:
        """The async body of this name, of a function or a coroutine."""
        found = self._by_name.get(name)
        return None if found is None else found.body

    def functions(self) -> list[str]:
        """The names of all functions, which is what a worker can claim."""
        return sorted(filter(self.runs, self._by_name))

    def _known(self) -> str:
        names = self.functions()
        return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "none"
