"""Corpora that are decoded once."""
