"""LLaVA-NeXT-Video: CLIP tower, pooling before the projector, Llama decoder."""
