"""Torch oracles: tiny random models whose weights are large enough to show errors."""
