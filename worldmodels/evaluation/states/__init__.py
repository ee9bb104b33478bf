"""Evaluation over states."""
