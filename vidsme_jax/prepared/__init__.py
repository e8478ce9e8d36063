"""Prepared corpora: clips decoded once and stored."""
