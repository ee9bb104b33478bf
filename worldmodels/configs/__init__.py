"""Configs of models and trainings: frozen dataclasses, saved as JSON. No torch, and nothing that builds a model."""
