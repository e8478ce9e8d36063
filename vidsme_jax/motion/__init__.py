"""How much a clip moves and flickers, and the entropy orders that follow."""
