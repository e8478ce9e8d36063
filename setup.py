"""Where the packages are: `configs/`, at the top, is `vidsme_jax.configs` in a wheel.

All else is in `pyproject.toml`, which can name a folder for a package, but not beside
packages that are found.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["vidsme_jax*"]), "vidsme_jax.configs"],
    package_dir={"vidsme_jax.configs": "configs"},
)
