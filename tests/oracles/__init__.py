"""Torch oracles: tiny random models whose weights are large enough to show errors."""

import torch


def randomise(model: torch.nn.Module) -> None:
    """Scales weights up and takes norms and biases off their neutral values."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))
