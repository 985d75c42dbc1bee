"""A PostgreSQL server of the project's own, for whoever has none: started on demand, ended with its last user."""
