"""Who speaks the protocol: the clients, and what stands between a call and its provider."""
