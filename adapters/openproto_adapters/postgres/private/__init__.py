"""A private PostgreSQL server, where there is no other: started on demand, ended with its last user."""
