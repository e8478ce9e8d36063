r"""Does the step of a large model fit? Compiled ahead of time, without the devices.

    python benchmarks/aot.py [--only REGEX [--store]] [--list]

The real step, of an audit or of training, is compiled for slices of TPUs (`pip install
libtpu`) and for GPUs (`pip install jax[cuda13]`) that need not be there. Parameters are
shapes only. Each line gives the peak of memory on one device, as the compiler plans it,
the collectives of the compiled program, the seconds of compiling, and for a GPU its
launches, the bytes that pass through memory, and what of both only moves data (copies
of weights, for one). Of training it is the larger of the peaks of gradients and update,
moments included; products are in bfloat16 and layers computed twice
(`train.rematerialise`), low-rank updates have rank 64, in all dense layers of the
decoder. Without --only, or with --store, the cases' lines of results/aot.json are
replaced.
Exit status 1 if a device's memory is exceeded or a case does not compile, 2 if a
compiler is missing.
"""

import argparse
import collections
import dataclasses
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # It only compiles.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_WORKER_ID", "0")

import _hlo
import _models
import _report
import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from vidsme_jax.base import SLICES, Asked, Item
from vidsme_jax.checkpoints import trees
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.data import similar
from vidsme_jax.finetune import examples, steps
from vidsme_jax.finetune.options import Train
from vidsme_jax.finetune.parameters import Trainee
from vidsme_jax.finetune.source import Source
from vidsme_jax.models import layers, random
from vidsme_jax.models.batches import Batch
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.parallel import Devices
from vidsme_jax.run import stacking
from vidsme_jax.run.step import head_memory, make_step

GIB = 2**30
BEFORE = 60  # Text tokens in front of the video; one more follows it.


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of accelerator: the memory of one, and what describes it to XLA."""

    memory: float  # GiB that a program may use.
    gpu: dict[str, int | float] | None = None


_HOPPER = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "shared_memory_per_core": 233472,
    "shared_memory_per_block_optin": 232448,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "l2_cache_size": 50 * 2**20,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
}
KINDS = {
    "v5e": Kind(15.75),
    "v5p": Kind(95.0),
    "v6e": Kind(31.25),
    "H100": Kind(79.0, _HOPPER | {"clock_rate_ghz": 1.98, "memory_bandwidth": 3.35e12}),
    "H200": Kind(139.0, _HOPPER | {"clock_rate_ghz": 1.98, "memory_bandwidth": 4.8e12}),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One program: a model, its clips, and the devices that run it."""

    model: str
    frames: int
    clips: int  # Per step over all devices.
    kind: str
    slice: str  # Of a TPU: the topology; of GPUs: how many.
    grid: tuple[int, int]  # data x model
    texts: int = 0  # About each clip: questions of 64 tokens with answers of 32.
    train: str = ""  # A method of training, of the first of these texts.

    @property
    def name(self) -> str:
        """Such as aot/llava_qwen-7b/16 frames/v5e:2x2."""
        name = f"aot/{self.model}/{self.frames} frames/{self.kind}:{self.slice}"
        if self.train:
            return f"{name}/training {self.train}"
        return f"{name}/{self.texts} texts" if self.texts else name


_7B, _LONG, _34B, _72B = (
    "llava_next_video-7b",
    "llava_qwen-7b",
    "llava_next_video-34b",
    "llava_qwen-72b",
)
_SMOL, _INTERN = "smolvlm-2.2b", "internvl3-8b"
_QWEN, _QWEN_32B, _QWEN_72B = "qwen3_vl-8b", "qwen3_vl-32b", "qwen2_5_vl-72b"
CASES = (
    Case("llava_onevision-tiny", 4, 2, "v5e", "2x2", (1, 4)),
    Case(_7B, 16, 4, "v5e", "2x2", (1, 4)),
    Case(_7B, 16, 16, "H100", "4", (4, 1)),
    Case(_LONG, 16, 4, "v5e", "2x2", (1, 4)),
    Case(_LONG, 16, 4, "v6e", "2x2", (4, 1)),
    Case(_LONG, 16, 8, "v5p", "2x2x1", (4, 1)),
    Case(_LONG, 16, 16, "H100", "4", (4, 1)),
    Case(_LONG, 16, 1, "H200", "1", (1, 1)),
    Case(_LONG, 16, 4, "H100", "1", (1, 1)),
    Case(_LONG, 16, 4, "v5e", "2x2", (1, 4), texts=4),
    Case(_LONG, 16, 1, "H200", "1", (1, 1), texts=4),
    Case(_LONG, 16, 4, "H100", "1", (1, 1), texts=4),
    Case(_LONG, 64, 1, "v5e", "2x2", (1, 4)),
    Case(_LONG, 64, 4, "v6e", "2x2", (4, 1)),
    Case(_LONG, 64, 8, "H100", "4", (4, 1)),
    Case(_LONG, 128, 1, "v5p", "2x2x1", (1, 4)),
    Case(_LONG, 128, 1, "H100", "1", (1, 1)),
    Case(_34B, 16, 2, "v5e", "2x4", (1, 8)),
    Case(_34B, 16, 2, "v6e", "2x2", (1, 4)),
    Case(_34B, 16, 4, "v5p", "2x2x1", (2, 2)),
    Case(_34B, 16, 8, "H100", "4", (1, 4)),
    Case(_72B, 16, 4, "v5e", "4x4", (1, 16)),
    Case(_72B, 16, 2, "v6e", "2x4", (1, 8)),
    Case(_72B, 16, 4, "v5p", "2x2x1", (1, 4)),
    Case(_72B, 16, 4, "H100", "4", (1, 4)),
    Case(_72B, 16, 8, "H200", "4", (1, 4)),
    Case(_SMOL, 16, 16, "H100", "4", (4, 1)),
    Case(_SMOL, 16, 4, "H100", "1", (1, 1)),
    Case(_SMOL, 16, 4, "v5e", "2x2", (4, 1)),
    Case(_SMOL, 16, 4, "v6e", "2x2", (4, 1)),
    Case(_INTERN, 16, 8, "H100", "4", (4, 1)),
    Case(_INTERN, 16, 1, "H100", "1", (1, 1)),
    Case(_INTERN, 16, 4, "v5e", "2x2", (1, 4)),
    Case(_INTERN, 16, 4, "v6e", "2x2", (4, 1)),
    Case(_QWEN, 16, 8, "H100", "4", (4, 1)),
    Case(_QWEN, 16, 1, "H100", "1", (1, 1)),
    Case(_QWEN, 16, 4, "v5e", "2x2", (1, 4)),
    Case(_QWEN, 16, 4, "v6e", "2x2", (4, 1)),
    Case(_QWEN_32B, 16, 8, "H100", "4", (1, 4)),
    Case(_QWEN_32B, 16, 2, "v6e", "2x2", (1, 4)),
    Case(_QWEN_72B, 16, 4, "H100", "4", (1, 4)),
    Case(_QWEN_72B, 16, 4, "v5e", "4x4", (1, 16)),
    Case(_QWEN_72B, 16, 2, "v6e", "2x4", (1, 8)),
    Case(_LONG, 16, 4, "H100", "1", (1, 1), train="lora"),
    Case(_LONG, 16, 8, "H100", "8", (2, 4), train="full"),
    Case(_7B, 16, 4, "H100", "1", (1, 1), train="lora"),
    Case(_7B, 16, 8, "H100", "8", (2, 4), train="full"),
)
RANK = 64  # Of the low-rank updates of all dense layers of the decoder.


def topology(case: Case) -> Any:
    """Describes devices that are not here.

    A TPU host has four chips; a slice of v5e or v6e is described by whole hosts.
    """
    gpu = KINDS[case.kind].gpu
    if gpu is None:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=f"{case.kind}:{case.slice}"
        )
    info = gpu | {"device_memory_size": int(KINDS[case.kind].memory * GIB)}
    info = {k: f"{v:g}" if k == "clock_rate_ghz" else int(v) for k, v in info.items()}
    lines = "\n".join(f"  {key}: {value}" for key, value in info.items())
    config = (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: 9 }}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 }\n'
        "runtime_version { major: 13 minor: 0 }\n"
        f'device_description_str: "NVIDIA {case.kind}"\n'
    )
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name="described",
        target_config=config,
        topology=f"1x1x{case.slice}",
    )


TEXT = Text((), (0,) * 64, (0,) * 32)


def _prompted(model: Model) -> Model:
    """Returns a model whose prompt has a fixed length."""

    def tokenise(asked: Any = None, shown: Shown | None = None) -> Text:
        if asked is not None:
            return TEXT
        between = model.tokenise(asked, shown).frames
        return Text(tuple(range(BEFORE)), (0,), frames=between)

    return dataclasses.replace(model, tokenise=tokenise)


def _batch(model: Model, case: Case) -> Batch:
    """Returns one clip with its texts, as a run stacks it."""
    prompted = _prompted(model)
    frames = model.prepare(np.zeros((case.frames, *_models.PIXELS, 3), np.uint8))
    asked = (stacking.Tokenised(Asked(key=""), TEXT),) * case.texts
    clip = stacking.Input(None, frames, asked)
    slices = SLICES if asked else SLICES[:1]
    stacker = stacking.Stacker(prompted, num_frames=case.frames, slices=slices)
    return stacker.batch(stacking.Group(stacker.shape(clip), [clip]), 1)[0]


def _learnt(model: Model, case: Case) -> Batch:
    """Returns one clip with its answer, as training stacks it."""
    pixels = model.prepare(np.zeros((case.frames, *_models.PIXELS, 3), np.uint8))
    shown = stacking.seen(model, pixels, Shown(case.frames))
    row = Item("", "", "", "members", question="?", answer="!")
    fingerprint = similar.fingerprint(np.zeros((1, *_models.PIXELS, 3), np.uint8))
    looked = {row.clip: examples.Looked("", shown, fingerprint)}
    rows, problems = examples.lay_out([row], _prompted(model), looked)
    assert not problems, problems
    return examples.batch(rows, [pixels], model, 1)


def _shapes(batch: Batch, devices: Devices, case: Case) -> Batch:
    """Returns the shapes of as many clips as a case has."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (case.clips, *x.shape[1:]), x.dtype, sharding=devices.clips()
        ),
        batch,
    )


def arguments(model: Model, devices: Devices, case: Case) -> tuple[Any, Any, int]:
    """Returns the graph, the abstract arguments and the parameters' bytes a device."""
    graphdef, abstract = model.abstract()
    place = devices.shardings(model.split)
    held = 0
    shaped = {}
    for path, leaf in trees.flat(abstract).items():
        sharding = place(path, leaf.shape)
        shaped[path] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        part = math.prod(sharding.shard_shape(leaf.shape))
        held += part * leaf.dtype.itemsize
    layers.lay_out(trees.fill(abstract, shaped))
    return graphdef, (abstract, _shapes(_batch(model, case), devices, case)), held


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a case compiles.

    Attributes:
      lower: Returns the programs, traced.
      held: Bytes of parameters on a device.
      beside: Of each program, bytes on a device that it is not given.
    """

    lower: Callable[[], Sequence[Any]]
    held: int
    beside: tuple[int, ...]


def scoring(model: Model, devices: Devices, case: Case) -> Programs:
    """Returns the step of an audit."""
    graphdef, args, held = arguments(model, devices, case)
    step = make_step(
        graphdef,
        second=True,
        text_second=True,
        memory=head_memory(int(KINDS[case.kind].memory * GIB), held),
    )
    return Programs(lambda: [devices.jit(step).lower(*args)], held, (0,))


def training(model: Model, devices: Devices, case: Case) -> Programs:
    """Returns the gradients of one batch, and the update."""
    train = Train(method=case.train, rank=RANK, dtype="bfloat16", rematerialise=True)
    opened = Checkpoint(case.model, (), {}, {})
    form = Trainee.of(Source(case.model, opened, model, True, ""), train).form
    place = devices.shardings(form.split)
    parts: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    held = {True: 0, False: 0}
    for path, leaf in trees.flat(form.abstract).items():
        learns = path in form.trained
        dtype = np.dtype(np.float32) if learns else leaf.dtype
        sharding = place(path, leaf.shape)
        parts[learns][path] = jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)
        held[learns] += math.prod(sharding.shard_shape(leaf.shape)) * dtype.itemsize
    programs = steps.programs(form, train, 1000, devices)
    batch = _shapes(_learnt(model, case), devices, case)
    return Programs(
        lambda: programs.lower(parts[True], parts[False], batch),
        held[True] + held[False],
        (2 * held[True], held[False]),  # The moments; what does not learn.
    )


_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
# Of attention: one in the tower's loop, one in the decoder's.
_KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w+)"')
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4}
_SIZES |= {"u32": 4, "s64": 8, "u64": 8, "f64": 8}


def collectives(text: str) -> dict[str, Any]:
    """Counts the collectives of a compiled program, with the largest in MiB."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for shapes, kind in _COLLECTIVE.findall(text):
        sizes = [
            math.prod(int(n) for n in dims.split(",") if n) * _SIZES.get(kind_of, 4)
            for kind_of, dims in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
        ]
        found[kind].append(max(sizes, default=0) / 2**20)
    return {
        kind: {"count": len(sizes), "largest_mib": round(max(sizes), 1)}
        for kind, sizes in sorted(found.items())
    }


def moved(text: str) -> dict[str, Any]:
    """Counts what a GPU's program launches, and its kernels that only move data.

    Those of a MiB and more count. Bytes are read and written, by one step on a device.
    """
    kernels = _hlo.kernels(text)
    copies: dict[str, dict[str, float]] = {}
    for one in _hlo.moving(kernels, 2**20):
        kind = copies.setdefault(one.kind, {"launches": 0, "gib": 0.0})
        kind["launches"] += one.runs
        kind["gib"] += one.runs * (one.read + one.written) / GIB
    for kind in copies.values():
        kind["gib"] = _report.rounded(kind["gib"])
    return {
        "launches": _hlo.launches(kernels),
        "traffic_gib": _report.rounded(_hlo.traffic(kernels) / GIB),
        "moving_only": copies,
    }


def check(case: Case) -> dict[str, Any]:
    """Compiles one case and reports it; `fits` is whether a device holds it."""
    kind, started = KINDS[case.kind], time.monotonic()
    cpu = time.process_time()
    grid = np.array(topology(case).devices).reshape(case.grid)
    devices = Devices("mesh", Mesh(grid, ("data", "model")))
    make = training if case.train else scoring
    programs = make(random.describe(case.model), devices, case)
    about = {
        "device": f"{math.prod(case.grid)} x {case.kind}, data x model = "
        f"{case.grid[0]} x {case.grid[1]}",
        "clips": case.clips,
        "limit": kind.memory,
        "parameters": round(programs.held / GIB, 2),
    }
    try:
        with jax.set_mesh(devices.mesh):
            compiled = [each.compile() for each in programs.lower()]
    except Exception as error:  # The compilers have no exception of their own.
        cause = " ".join(str(error).split())[:300]
        return _report.line(
            case.name,
            programs.held / GIB,
            "GiB a device, parameters alone",
            **about,
            fits=False,
            error=cause,
        )
    analyses = [each.memory_analysis() for each in compiled]
    beside = zip(analyses, programs.beside, strict=True)
    peak = max(_peak(its) + more for its, more in beside)
    return _report.line(
        case.name,
        peak / GIB,
        "GiB a device",
        **about,
        fits=peak <= kind.memory * GIB,
        temporary=round(max(its.temp_size_in_bytes for its in analyses) / GIB, 2),
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
        **_printed(compiled[0], gpu=kind.gpu is not None),
    )


def _peak(analysis: Any) -> int:
    """Returns the larger of the reported peak and the plain sum (no memory reuse)."""
    whole = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    whole += analysis.temp_size_in_bytes - analysis.alias_size_in_bytes
    return max(analysis.peak_memory_in_bytes, whole)


def _printed(compiled: Any, *, gpu: bool) -> dict[str, Any]:
    """Counts what the text of a compiled program shows."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        # jaxlib 0.10.2 cannot print gathers that libtpu gives to a SparseCore.
        return {"not_printed": " ".join(str(error).split())[:200]}
    return {
        "collectives": collectives(text),
        "kernels": collections.Counter(_KERNEL.findall(text)),
        **(moved(text) if gpu else {}),
    }


def _store(results: Sequence[dict[str, Any]]) -> None:
    """Replaces lines of benchmarks/results/aot.json."""
    target = pathlib.Path(__file__).parent / "results" / "aot.json"
    lines = {line["name"]: line for line in json.loads(target.read_text())}
    lines |= {line["name"]: line for line in results}
    stored = [lines[case.name] for case in CASES if case.name in lines]
    target.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> int:
    """Checks the cases; writes their lines to benchmarks/results/aot.json if asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose name it matches")
    parser.add_argument("--store", action="store_true", help="keep their lines")
    parser.add_argument("--list", action="store_true", help="print the cases")
    args = parser.parse_args()
    cases = [case for case in CASES if re.search(args.only, case.name)]
    if args.list or not cases:
        print("\n".join(case.name for case in CASES))
        return 0 if args.list else 2
    missing = {"libtpu": 0, "jax_plugins.xla_cuda13": 0}
    for case in cases:
        missing["jax_plugins.xla_cuda13" if KINDS[case.kind].gpu else "libtpu"] += 1
    absent = [
        f"for {count} of the cases: {package} is not installed"
        for package, count in missing.items()
        if count and not _report.is_there(package)
    ]
    if absent:
        print("; ".join(absent), file=sys.stderr)
        return 2
    results = [check(case) for case in cases]
    if args.store or not args.only:
        _store(results)
    return int(not all(result["fits"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
