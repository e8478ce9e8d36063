"""Metrics of scores, verdicts with their tests, and lists of suspects."""
