"""Sight: pictures read as few points, what the points can do, and pictures drawn of them."""
