"""Membership-inference audits of video-understanding language models, in JAX."""

__version__ = "0.1.0"
