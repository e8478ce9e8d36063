"""What is computed once and kept."""
