"""What the LLaVA families share: the forward pass, tensor names, rows and cost."""
