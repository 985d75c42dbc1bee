"""The figures that openproto promises, each measured side by side with what it is compared with: `make bench`."""
