"""A call that breaks several rules at once may be refused with the error of any of them."""

from __future__ import annotations

from collections.abc import Callable

from openproto.errors import OpenProtoError


class EitherError(OpenProtoError):
    """The errors of which a store may raise any: the protocol does not say which rule it checks first."""

    def __init__(self, errors: list[OpenProtoError]) -> None:
        super().__init__(" or ".join(map(str, errors)))
        self.errors = errors

    @property
    def codes(self) -> set[str]:
        """Return the codes of the errors that are right."""
        return {error.code for error in self.errors}


def refuse_any(*checks: Callable[[], object]) -> None:
    """Make every check and raise what it raised; of several, an EitherError."""
    errors: list[OpenProtoError] = []
    for check in checks:
        try:
            check()
        except OpenProtoError as error:
            errors.append(error)
    if len(errors) > 1:
        raise EitherError(errors)
    if errors:
        raise errors[0]
