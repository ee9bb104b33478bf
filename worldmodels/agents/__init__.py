"""Agents that act in true and in learned envs."""
