"""Records on the move: between files and stores."""
