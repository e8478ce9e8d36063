"""Entropies of next-token distributions: definitions and the streaming head."""
