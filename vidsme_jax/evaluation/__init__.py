"""Scores to metrics, verdicts and lists of suspects."""
