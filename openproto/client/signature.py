"""The signature of a client as consoles and notebooks complete it: with the options of the installed providers."""

from __future__ import annotations

import inspect
from contextlib import suppress

from openproto.registry import provider_class, provider_names, provider_options


class WithProviderOptions:
    """What `inspect.signature` returns of a client: its own parameters, then every option of an installed provider.

    Which provider a call names is nothing that a signature knows, so the options of all stand there, and the client
    itself refuses those of another one.
    """

    def __get__(self, client: object, owner: type) -> inspect.Signature:
        of_client = inspect.signature(owner.__init__)  # type: ignore[misc]  # a class, of which nothing is called
        _, *own, options = of_client.parameters.values()
        known = {parameter.name for parameter in own}
        more: dict[str, inspect.Parameter] = {}
        for name in provider_names():
            with suppress(Exception):  # what is not installed whole, or broken, has nothing to complete
                found = provider_options(provider_class(name))
                more |= {each: found[each] for each in found if each not in known}
        # What one provider requires is optional to the others.
        named = [parameter.replace(kind=parameter.KEYWORD_ONLY, default=...) for parameter in more.values()]
        return of_client.replace(parameters=[*own, *sorted(named, key=lambda parameter: parameter.name), options])
