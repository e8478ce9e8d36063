"""Runs a benchmark at its smallest size, and looks at the lines that it prints."""

import json
import pathlib

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
KEYS = {"name", "value", "unit", "ratio", "peer", "device", "versions", "commit"}
SHORT = ["--size", "tiny", "--repeats", "2"]


def run_script(module, capsys, *flags, status=0):
    """Returns the lines of a script by name, as JSON."""
    assert module.main([*SHORT, *flags]) == status
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert lines
    for line in lines:
        assert set(line) >= KEYS
        assert (line["value"] or 1) > 0
        if line["value"] is None:
            assert not line["decided"] and "value" in line["undecided"]
        assert line["versions"].keys() >= {"jax", "jaxlib", "numpy"}
        assert line.get("equal", True) == (status == 0)
    return {line["name"]: line for line in lines}


def arguments(models, *flags):
    """Returns the parsed flags of a script that draws models."""
    parser = models.argparse.ArgumentParser()
    models.add_arguments(parser)
    return parser.parse_args([*SHORT, *flags])
