"""One run over a corpus: from clips to stored signals."""
