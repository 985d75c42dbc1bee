"""Memory inside other libraries: LLM clients, and whatever else asks for it by name."""
