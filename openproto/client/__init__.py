"""The clients, and what lies between a call and its provider."""
