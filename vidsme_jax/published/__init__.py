"""Published training lists: looks up videos in them."""
