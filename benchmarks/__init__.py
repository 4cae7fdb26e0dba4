"""What is fast here, how fast, and beside what. `make bench` runs it."""
