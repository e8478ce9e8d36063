"""Canaries: variants of a clip, one of which is published, and the test of its rank."""
