"""LongVA, the models of the Vid-SME paper and LLaVA-Video, in their original format."""
