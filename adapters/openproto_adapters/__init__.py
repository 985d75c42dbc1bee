"""The providers that come with openproto, one file or folder each."""
