"""From manifests to sampled frames: corpora, decoding, loading ahead."""
