"""Learning a model and an agent from each other, in turns."""
