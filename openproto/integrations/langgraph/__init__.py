"""LangGraph's long-term memory (`BaseStore`) over any provider that keeps keys.

from openproto import Memory
from openproto.integrations.langgraph import OpenProtoStore

with OpenProtoStore(Memory("sqlite", path="agent.db")) as store:
    graph = builder.compile(store=store)
"""

from openproto.integrations.langgraph.embedder import IndexEmbedder
from openproto.integrations.langgraph.store import OpenProtoStore

__all__ = ["IndexEmbedder", "OpenProtoStore"]
