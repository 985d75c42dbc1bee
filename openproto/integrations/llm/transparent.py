"""An object that stands before another and is, to every question Python lets it answer, that other object."""

from __future__ import annotations

from typing import Any


class Transparent:
    """Passes everything on to `wrapped`; a subclass adds what it does differently."""

    _wrapped: Any = None  # also before __init__ has run, as when a copy is made

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "_wrapped", wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._wrapped, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._wrapped, name)

    def __dir__(self) -> list[str]:
        return dir(self._wrapped)

    def __repr__(self) -> str:
        return repr(self._wrapped)

    # isinstance() asks this, and frameworks ask isinstance(). Nobody sets it, so it needs no setter.
    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self._wrapped)
