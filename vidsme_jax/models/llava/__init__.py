"""LLaVA-OneVision: SigLIP tower, bilinear pooling, Qwen2 decoder."""
