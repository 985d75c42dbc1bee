"""The contract in executable form: what one store must answer, over lists and dictionaries.

`Model` does what the protocol says of each verb, in plain Python and without haste, so that it can be read as the
contract. It imports nothing from openproto but the models of the answers and the errors; the limits are stated again
in `limits`, the rules of scope, tags, and time in `selection`, supersession in `handovers`, the answers of `search` and
`context` in `ranking`.
"""

from openproto_conformance.model.store import Model

__all__ = ["Model"]
