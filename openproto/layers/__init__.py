"""Providers that wrap a provider and add one thing to it."""
