"""LangGraph's long-term memory (`BaseStore`) over any provider that keeps keys.

`with OpenProtoStore(Memory("sqlite", path="agent.db")) as store:` opens one for `builder.compile(store=store)`.
"""

from openproto.integrations.extras import needs

with needs("langgraph"):
    from openproto.integrations.langgraph.embedder import IndexEmbedder
    from openproto.integrations.langgraph.store import OpenProtoStore

__all__ = ["IndexEmbedder", "OpenProtoStore"]
