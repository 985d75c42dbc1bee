"""Memory around an LLM client: what was said is captured, what was remembered is recalled, the calls stay the same.

`wrap(client, memory, user_id=...)` returns a proxy that looks like the client and is used like it.
"""

from openproto.integrations.llm.capture import CaptureQueue
from openproto.integrations.llm.facts import FactExtractor, facts
from openproto.integrations.llm.stats import CaptureStats
from openproto.integrations.llm.turns import Turn
from openproto.integrations.llm.wrap import wrap

__all__ = ["CaptureQueue", "CaptureStats", "FactExtractor", "Turn", "facts", "wrap"]
