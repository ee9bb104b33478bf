"""Evaluation over pixels."""
