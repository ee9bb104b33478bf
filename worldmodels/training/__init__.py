"""From a configuration and a buffer to a run folder."""
