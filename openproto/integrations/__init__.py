"""Memory inside other libraries: LLM clients, frameworks, and tools."""
