"""Checkpoints on disk: finding, checking, reading onto devices and writing."""
