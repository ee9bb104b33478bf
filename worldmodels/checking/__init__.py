"""Whether a world model keeps what its interface promises: a check for structures and models of your own."""
