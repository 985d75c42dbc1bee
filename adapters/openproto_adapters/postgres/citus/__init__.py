"""PostgreSQL with Citus: the tables distributed by user, and each statement run on the worker that holds its user."""
