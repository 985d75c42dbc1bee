"""What an embedder is."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # NumPy is imported only where there are vectors
    import numpy as np
    from numpy.typing import NDArray

Vector: TypeAlias = "NDArray[np.float32]"
"""A vector of unit length, or of zeros for a blank text."""

Floats: TypeAlias = "Sequence[float] | NDArray[np.floating[Any]]"
"""What an embedder may give for a text."""

DEFAULT_TEXT_WEIGHT = 0.2
DEFAULT_MAX_BATCH = 128


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Any object of this shape will do; it belongs to one client.

    A plain `embed` runs in a private thread, never on the event loop; an `async def embed` runs on the loop
    and must not block it; up to four calls may be under way. These members are optional:

    - `open()`, plain (then in the same thread) or async: loads weights or connects, before the first `embed`;
    - `close()`, likewise, at the end, also after an `open()` that failed;
    - `text_weight: float`: how much the share of the query's words that a memory holds counts next to the
      cosine; 0.2 if absent, which suits sentence transformers; static word vectors want about 1.6;
    - `center_query: bool`: whether a query is moved away from what the user's memories have in common before it is
      compared; off if absent; right for static word vectors, which crowd into one direction;
    - `max_batch: int`: the most texts in one call of `embed`; 128 if absent.
    """

    @property
    def model(self) -> str:
        """The name that is stored with each memory; vectors of different models are never compared."""
        ...

    @property
    def dim(self) -> int:
        """The length of each vector; may be 0 until `open()` has found it out."""
        ...

    def embed(self, texts: Sequence[str]) -> Sequence[Floats] | Awaitable[Sequence[Floats]]:
        """Return one vector per text, in order; they need not be of unit length."""
        ...
