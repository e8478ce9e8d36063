"""The configurations that come with the package: found by name, listed.

They are in `configs/`: inside the package in a wheel, next to it in a clone. A
bare name, such as `llava` or `llava:7b`, is one of them; whatever has a separator or
ends in `.py` is a path.
"""

import importlib.util
import inspect
import pathlib
import textwrap
from types import ModuleType
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.wording import nearest, printable

LIST = "list"  # In place of a name: all are printed.
_PACKAGE = pathlib.Path(__file__).parents[1]
_WIDTH = 88
_LONGEST = 200  # Characters of a name that are shown.


def folder() -> pathlib.Path:
    """Returns the folder of the configurations: the package's, else the clone's."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Returns the names of the configurations, sorted."""
    return sorted(path.stem for path in folder().glob("*.py"))


def resolve(given: str) -> str:
    """Returns the path, with the variant, that a value of `--config` names.

    Args:
      given: NAME or NAME:VARIANT of a configuration that is shipped, or a path.

    Returns:
      PATH or PATH:VARIANT; the file exists.

    Raises:
      AuditError: There is no such file; or a bare name is that of a shipped
        configuration and of another file in the current folder or in its `configs`,
        whose content is not the same.

    Example:
      >>> resolve("llava:7b").endswith("/configs/llava.py:7b")
      True
    """
    name, colon, variant = given.partition(":")
    path = pathlib.Path(name)
    if _is_path(name):
        if not _is_file(path):
            raise AuditError([_no_file(name, colon + variant)])
        return given
    own = folder() / f"{name}.py"
    others = [x for x in _candidates(name) if _is_file(x) and _differs(x, own)]
    if name not in names():
        near = nearest(name, [*names(), *map(str, others)])
        if others:
            near = f"; did you mean {str(others[0])!r}?"
        shown = printable(name, _LONGEST)
        raise AuditError(
            [
                f"--config={shown}: no configuration of that name is shipped{near}; "
                "--config list prints all; one of your own is given by its path, such "
                "as ./mine.py"
            ]
        )
    if others:
        several = " and ".join(str(path) for path in (own, *others))
        variant = printable(variant, _LONGEST)
        raise AuditError(
            [
                f"--config={name} is the name of {several}, which are not the same: "
                f"give the path of one, such as --config={others[0]}{colon}{variant} "
                f"or --config={own}{colon}{variant}"
            ]
        )
    return f"{own}{colon}{variant}"


def listing() -> str:
    """Returns what each shipped configuration is, and its variants, as lines."""
    lines, width = [], max(map(len, names()), default=0)
    for name in names():
        module = _module(folder() / f"{name}.py")
        what = (module.__doc__ or "").strip().partition("\n")[0]
        first = True
        for text in (what, ", ".join(_variants(module))):
            lines += textwrap.wrap(
                text,
                _WIDTH,
                initial_indent=f"{name * first:<{width}}  ",
                subsequent_indent=" " * (width + 2),
                break_on_hyphens=False,
            )
            first = False
    lines.append(
        f"\n--config NAME or NAME:VARIANT; the files are in {folder()}, and say what "
        "each needs.\nOne of your own is given by its path: --config ./mine.py"
    )
    return "\n".join(lines)


def variants(name: str) -> tuple[str, ...]:
    """Returns the variants of a shipped configuration."""
    return _named(_module(folder() / f"{name}.py"))


def _named(module: ModuleType) -> tuple[str, ...]:
    """Returns VARIANTS of a file, or the names of its CHECKPOINTS."""
    found: Any = getattr(module, "VARIANTS", None) or vars(module)["CHECKPOINTS"]
    return tuple(found)


def _variants(module: ModuleType) -> list[str]:
    """Returns the variants as they are given, the default marked."""
    default = inspect.signature(module.get_config).parameters["variant"].default
    return [f":{x}{' (default)' * (x == default)}" for x in _named(module)]


def _module(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"configs_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(".py")


def _candidates(name: str) -> list[pathlib.Path]:
    """Returns the files that a bare name may mean, except the shipped ones."""
    here = pathlib.Path("configs")
    return [pathlib.Path(name), pathlib.Path(f"{name}.py"), here / f"{name}.py"]


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # Too long a name, or one with a zero.
        return False


def _differs(path: pathlib.Path, own: pathlib.Path) -> bool:
    """Returns whether a file is not the shipped one and has another content."""
    try:
        return path.read_bytes() != own.read_bytes()
    except OSError:
        return True


def _no_file(name: str, variant: str) -> str:
    """Returns the sentence about a path that leads nowhere."""
    path, shown = pathlib.Path(name), printable(name, _LONGEST)
    own = path.name.removesuffix(".py")
    if own in names() and str(path.parent) in (".", "configs"):
        variant = printable(variant, _LONGEST)
        return (
            f"--config={shown}: no such config file; the one that is shipped is "
            f"--config={own}{variant}"
        )
    known = {x.stem: x for at in (folder(), path.parent) for x in _python_files(at)}
    close = nearest(own, list(known))
    for stem, there in known.items():
        if f"{stem!r}?" in close and there.parent != folder():
            close = close.replace(stem, str(there))
    return f"--config={shown}: no such config file{close}; --config list prints all"


def _python_files(at: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(at.glob("*.py"))
    except (OSError, ValueError):
        return []
