"""What tests of training share: other values of a configuration, and a stop."""

import pathlib

from vidsme_jax.run.stopping import Stop


def changed(config, **changes):
    """Returns a copy with other values, named as {"train__epochs": 2}."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return copy


def weights(folder: pathlib.Path) -> bytes:
    """Returns the bytes of a whole model."""
    return (folder / "model.safetensors").read_bytes()


class Stopping(Stop):
    """Asks to stop behind a step."""

    def __init__(self, after: int = 1):
        super().__init__()
        self.left = after

    def between(self, batches):
        def counted():
            for batch in batches:
                self.left -= 1
                self.asked = self.left <= 0
                yield batch

        return super().between(counted())
