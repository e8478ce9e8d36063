"""What families share whose tower sees each frame by itself."""
