"""Where the packages are: `configs/`, at the top, is `vidsme_jax.configs` in a wheel.

All else is in `pyproject.toml`, which can name a folder for a package, but not beside
packages that are found.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["vidsme_jax*"]), "vidsme_jax.configs"],
    package_dir={"vidsme_jax.configs": "configs"},
    # A path, as a finder of setuptools comes after Python's own, which takes a clone of
    # this name in the present folder for a package without modules.
    options={"editable_wheel": {"mode": "compat"}},
)
