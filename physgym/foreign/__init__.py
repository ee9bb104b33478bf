"""Gymnasium envs that are not of this package: what can be known of one, and its task."""
