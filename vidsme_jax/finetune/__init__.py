"""Training models whose members are known by construction."""
