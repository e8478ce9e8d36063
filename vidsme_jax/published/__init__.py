"""Published training lists: which of some videos they name."""
