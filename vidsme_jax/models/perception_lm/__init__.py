"""PerceptionLM."""
