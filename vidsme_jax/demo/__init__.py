"""The demo: a tiny model trained here, its clips, and how they were drawn."""
