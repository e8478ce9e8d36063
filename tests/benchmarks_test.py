"""The benchmarks: what decides, and every script at its smallest size."""

import contextlib
import importlib
import json
import math
import sys
import tarfile

import numpy as np
import pytest

import children
from benchmark_scripts import BENCHMARKS, KEYS, SHORT, arguments, run_script
from oracles import config_of
from vidsme_jax import parallel
from vidsme_jax.models import FAMILIES, random
from vidsme_jax.run import pipeline, rates
from vidsme_jax.store import received

LLAVA = ("llava_qwen", "llava_next_video", "llava_onevision")  # See `_torch_models`.
PEERS = [
    name.removesuffix("-tiny")
    for family in FAMILIES
    for name in family.sizes
    if family.name not in LLAVA and name.endswith("-tiny")
]


@pytest.mark.slow
def test_this_tree_against_its_own_commit(script, capsys):
    """Each side is a process of its own; the tree of the commit is removed."""
    lines = run_script(script("pairs"), capsys, "--steps", "1", "--against", "HEAD")
    line = lines["pairs/ours against HEAD"]
    assert line["peer"] == "HEAD" and line["difference"] == 0
    assert line["cpu_seconds"] > 0 and line["peer_cpu_seconds"] > 0
    trees = ["git", "-C", str(BENCHMARKS), "worktree", "list"]
    shown = children.run(trees)
    assert shown.returncode == 0
    assert "/tree " not in shown.stdout


@pytest.mark.parametrize(("dtype", "gap"), [("float32", 1e-5), ("bfloat16", 1e-7)])
def test_another_commit_with_other_signals_is_an_error(
    script, capsys, monkeypatch, dtype, gap
):
    pairs, sides = script("pairs"), []

    class Side(contextlib.nullcontext):
        def __init__(self, tree, file, steps, options):
            super().__init__(self)
            self.file, self.extra = file, {"dtype": dtype}
            np.savez(file, gap=np.float64([1, 1 + gap * len(sides)]))
            sides.append(self)

        def run(self):
            return [1.0, 1.0]

    monkeypatch.setattr(pairs, "_Side", Side)
    lines = run_script(pairs, capsys, "--steps", "1", "--against", "HEAD", status=1)
    assert lines["pairs/ours against HEAD"]["difference"] == pytest.approx(gap, rel=0.1)


def test_the_stages_of_size(script):
    size = script("size")
    found = {name: stage(4) for name, stage in size.STAGES.items() if name != "scoring"}
    assert found["evaluating"]["page"] < size.LIMIT_PAGE
    assert found["shards"]["write"] > 0 and found["evaluating"]["mib"] > 0
    assert found["jsonl"]["cpu"] > 0 and found["parquet"]["mib"] > 0


@pytest.mark.usefixtures("figureless")
def test_a_whole_audit_of_drawn_signals(script, tmp_path, monkeypatch):
    stages, read = script("_whole").STAGES, []
    assert stages["storing"](tmp_path, 20, 16)["parts"] == 3
    assert stages["resuming"](tmp_path)["open"] > 0
    whole = received.read
    monkeypatch.setattr(
        received, "read", lambda store, keys: read.extend(keys) or whole(store, keys)
    )
    found = stages["auditing"](tmp_path)
    assert found["page"] < script("size").LIMIT_PAGE and len(read) == 20
    assert set(found["stages"]) == {"scores", "metrics", "report", "digest"}
    assert set(stages["again"](tmp_path)["stages"]) == {*found["stages"], "open"}
    assert len(read) == 20


# In TFLOP: vision, decoder and head per direction, counted by hand for 64 text tokens.
@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("llava_next_video-7b", 16, (6.0, 32.1, 0.61)),
        ("llava_next_video-7b", 64, (23.8, 142.8, 2.42)),
        ("llava_next_video-34b", 16, (6.1, 163.3, 2.12)),
        ("llava_qwen-7b", 16, (6.2, 32.0, 2.51)),
        ("llava_qwen-7b", 64, (24.6, 138.4, 10.05)),
        ("llava_onevision-0.5b", 16, (10.3, 2.7, 0.85)),
        ("llava_onevision-7b", 64, (42.7, 196.5, 13.68)),
        ("llava_video-7b", 16, (10.7, 47.0, 3.66)),
    ],
)
def test_necessary_operations(script, name, frames, expected):
    model = random.describe(name)
    config, flops = config_of(model), model.flops
    found = flops(frames, text=64)
    assert [x / 1e12 for x in found[:3]] == pytest.approx(expected, rel=0.03)
    assert found.pair == found.vision + 2 * (found.prefill + found.head)
    # A text costs the decoder what as many more rows of one causal sequence do, and
    # several texts cost as much as each alone.
    asked = flops(frames, text=64, texts=[(96, 32), (96, 32)])
    one = flops(frames, text=64, texts=[(96, 32)])
    longer = flops(frames, text=64 + 96)
    head = 32 * 2 * config.text.hidden_size * config.text.vocab_size
    assert asked[:3] == found[:3] and found.texts == 0
    assert asked.texts == pytest.approx(2 * one.texts)
    assert one.texts - head == pytest.approx(longer.prefill - found.prefill, rel=1e-6)
    assert one.pair == found.pair + 2 * one.texts


@pytest.mark.parametrize("family", ["llava_qwen", "llava_onevision"])
def test_the_loop_and_transformers_score_as_we_do(script, capsys, family):
    flags = ["--model", family, "--frames", "2"]
    lines = run_script(script("pairs"), capsys, *flags, "--steps", "2")
    for peer in ("transformers, tuned", "transformers, plain", "loop"):
        line = lines[f"pairs/ours against {peer}"]
        assert line["equal"] and line["peer"] == peer
        low, high = line["ratio_spread"]
        assert 0 < low <= high and (line["ratio"] is not None) == line["decided"]
        assert line["cpu_seconds"] > 0 and line["attention"]["decoder"] == "chunked"
    assert lines["pairs/mfu"]["value_spread"][0] > 0
    loop = run_script(script("release_loop"), capsys, *flags)
    assert loop["release_loop/ours"]["difference"] < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("model", PEERS)
def test_a_class_of_transformers_scores_as_we_do(script, capsys, model):
    """That of a family whose peer is one, with the text that it has between frames."""
    flags = ["--model", model, "--frames", "3", "--steps", "1", "--no-loop"]
    lines = run_script(script("pairs"), capsys, *flags)
    for peer in ("transformers, tuned", "transformers, plain"):
        assert lines[f"pairs/{peer}"]["difference"] < 1e-4


def test_a_loop_cut_short_is_extrapolated_and_still_compared(
    script, capsys, monkeypatch
):
    release_loop = script("release_loop")
    whole = release_loop.release
    monkeypatch.setattr(
        release_loop,
        "release",
        lambda *args: whole(*args, patience=1e-9),
    )
    lines = run_script(release_loop, capsys, "--frames", "2")
    assert lines["release_loop/loop"]["extrapolated_from_rows"] == 2


def test_other_scores_are_an_error(script, capsys, monkeypatch):
    release_loop = script("release_loop")
    right = release_loop.sharma_mittal
    monkeypatch.setattr(
        release_loop, "sharma_mittal", lambda s, q, r: right(s, q, r + 0.01)
    )
    assert release_loop.main([*SHORT, "--frames", "2"]) == 1
    assert "the scores differ" in capsys.readouterr().err


@pytest.mark.long
def test_the_parts_of_a_pair(script, capsys, monkeypatch, tmp_path):
    parts = script("parts")
    trace = tmp_path / "trace.tar.gz"
    lines = run_script(parts, capsys, "--trace", str(trace))
    assert lines.pop("parts/trace")["value"] > 0
    with tarfile.open(trace) as packed:
        assert any(name.endswith(".xplane.pb") for name in packed.getnames())
    assert len(lines) == 6
    for name, line in lines.items():
        assert line["difference"] < 1e-5 and ("ratio_spread" in line) == (
            "ours" in name
        )
        assert 0 < line["share_of_rate_spread"][0] < 1
    right = parts.ours

    def wrong(*args):
        calls = right(*args)
        return calls | {"decoder": lambda: 1.001 * calls["decoder"]()}

    monkeypatch.setattr(parts, "ours", wrong)
    assert parts.main(SHORT) == 1
    assert "decoder differs" in capsys.readouterr().err
    assert parts.main([*SHORT, "--no-torch", "--batch", "1", "2"]) == 0
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [line["batch"] for line in found] == [1, 1, 1, 2, 2, 2]
    assert all("difference" not in line for line in found)


@pytest.mark.long
@pytest.mark.parametrize("family", ["qwen2_5_vl", "video_llama_3"])
def test_the_parts_of_frames_of_any_size(script, capsys, family):
    """Their padding is left out, and each direction has features of its own."""
    flags = ["--model", family, "--frames", "3", "--batch", "2"]
    lines = run_script(script("parts"), capsys, *flags)
    assert {name.split("/")[1].split(",")[0] for name in lines} == {
        *("tower", "decoder", "head")
    }
    assert all(line["difference"] < 1e-5 for line in lines.values())


def test_the_head_of_the_benchmarks_is_that_of_a_run(script, monkeypatch):
    # On a device that tells its memory, the sizes of its blocks follow from it.
    parts, models = script("parts"), script("_models")
    monkeypatch.setattr(parallel.Devices, "memory", lambda self: 80 * 2**30)
    asked, run = [], models.prepare(arguments(models))
    whole, step = parts.streaming.token_signals, pipeline.make_step

    def head(*args, memory, **more):
        asked.append(memory)
        return whole(*args, memory=memory, **more)

    monkeypatch.setattr(
        pipeline,
        "make_step",
        lambda *args, **more: asked.append(more["memory"]) or step(*args, **more),
    )
    clip = run.clips(1)
    run.ours(clip)
    monkeypatch.setattr(parts.streaming, "token_signals", head)
    parts.ours(run, clip)["head"]()
    assert asked[0] > 2**30 and asked == [asked[0]] * 2


def test_a_model_is_drawn_once_for_all_its_sizes(script, monkeypatch):
    models, drawn = script("_models"), []
    draw = random.draw
    monkeypatch.setattr(
        models.random, "draw", lambda *a, **k: drawn.append(1) or draw(*a, **k)
    )
    args = arguments(models, "--frames", "2", "3", "--batch", "4", "1")
    found = [(run.frames, run.batch, run.extra["batch"]) for run in models.runs(args)]
    assert found == [(2, 4, 4), (2, 1, 1), (3, 4, 4), (3, 1, 1)] and drawn == [1]


def _times(models, walls, cpus=None):
    return models.Times(tuple(walls), tuple(cpus or walls))


def test_a_ratio_is_taken_in_each_round(script, monkeypatch):
    models = script("_models")
    ours = _times(models, (1, 2, 4, 1, 1), (2, 2, 2, 2, 2))
    peer = _times(models, (2, 4, 8, 2, 2.2), (3, 3, 3.1, 2.9, 3))
    by_cpu = models.paired(ours, peer)  # On a CPU.
    assert by_cpu[:3] == pytest.approx((1.5, 1.45, 1.55)) and by_cpu.why_not is None
    monkeypatch.setattr(models, "clock", lambda: "wall")
    # Twice as fast in every round, though the machine slows down fourfold meanwhile.
    by_wall = models.paired(ours, peer)
    assert by_wall[:3] == pytest.approx((2.0, 2.0, 2.2)) and by_wall.why_not is None
    apart = models.paired(ours, _times(models, (2, 4, 5, 2, 2)))
    assert apart.why_not == "the rounds gave 1.25 to 2"
    one = models.paired(_times(models, [1]), _times(models, [2]))
    assert one.why_not == "one round, which gave 2"
    nothing = models.paired(_times(models, (0, 1)), _times(models, (1, 1)))
    assert nothing.why_not == "a round gave no number"


def test_a_share_of_more_than_everything_decides_nothing(script, monkeypatch):
    models, measured = script("_models"), iter((100.0, 100.0, 100.0, 150.0))
    monkeypatch.setattr(rates, "matrix_rate", lambda *args, **more: next(measured))
    ruler = models.Ruler("float32")
    ruler.again()
    assert ruler.share(50, (1.0, 1.0, 1.1)).why_not is None
    assert ruler.share(50, (1.0, 1.0, 1.1))[:3] == pytest.approx((0.5, 0.5 / 1.1, 0.5))
    assert ruler.share(146, (1.0, 1.0)).why_not == "1.46 is more than 1"
    assert ruler.share(146, (1.0, 1.0)).scaled(100).why_not == "146 is more than 100"
    assert "gave" in ruler.share(50, (0.8, 1.0, 1.2)).why_not
    faster = models.Ruler("float32")  # The rate itself moved by half.
    faster.again()
    assert faster.share(50, (1.0, 1.0)).why_not == "the rounds gave 0.3333 to 0.5"


def test_what_is_not_decided_is_no_figure(script, capsys, monkeypatch):
    report = script("_report")
    monkeypatch.setenv("VIDSME_COMMIT", "abc123")
    shaky = report.Judged(0.8, 0.54, 1.04)
    report.line("a", 1.0, "s", ratio=shaky, share=report.Judged(0.5, 0.49, 0.51))
    report.line("b", shaky.scaled(100), "%", ratio=report.Judged(2, 1.9, 2.1))
    report.line("c", report.Judged(1.46, 1.4, 1.5, most=1), "")
    a, b, c = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert a["ratio"] is None and a["ratio_spread"] == [0.54, 1.04]
    assert a["share"] == 0.5 and not a["decided"]
    assert a["undecided"] == "ratio: the rounds gave 0.54 to 1.04"
    assert b["value"] is None and b["ratio"] == 2 and not b["decided"]
    assert c["value"] is None and "more than 1" in c["undecided"]
    assert {line["commit"] for line in (a, b, c)} == {"abc123"}
    report.line("d", 1.0, "s", ratio=report.Judged(2, 2, math.inf))
    report.line("e", 1.0, "s", ratio=report.Judged(2, 1.8, 2.2))
    report.line("f", 1.0, "s", ratio=2)
    d, e, f = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert not d["decided"] and e["decided"] and "undecided" not in e
    assert f["ratio"] == 2 and "decided" not in f


def test_the_sides_take_turns(script):
    models, seen = script("_models"), []
    calls = {name: lambda name=name: seen.append(name) for name in "AB"}
    rounds = models.in_turn(calls, repeats=3)
    assert "".join(seen) == "ABABAB"
    fields = rounds.fields("A", "B", per=2)
    assert set(fields) == {
        *("wall_seconds", "cpu_seconds", "peer_wall_seconds", "peer_cpu_seconds"),
        "ratio_of",
    }
    assert fields["ratio_of"] == "cpu seconds"


def test_attention_of_the_peer_is_fused(script, monkeypatch):
    import torch

    models, own = script("_models"), script("_torch_models")
    run = models.prepare(arguments(models, "--frames", "2"))
    model, seen = run.torch_model(), []
    functional = torch.nn.functional
    whole = functional.scaled_dot_product_attention

    def spied(query, key, value, **more):
        seen.append((query.shape[1], key.shape[1], more))
        return whole(query, key, value, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spied)
    script("pairs").tuned(model, run.clips(1), run.prompt)
    tower, decoder = seen[0], seen[-1]
    assert len(seen) == run.config.vision_depth + run.config.text.num_hidden_layers
    assert tower[2]["attn_mask"] is None and not tower[2]["is_causal"]
    # Neither a mask nor repeated keys: flash attention takes it as it is.
    assert decoder[:2] == (4, 2) and decoder[2]["attn_mask"] is None
    assert decoder[2]["is_causal"] and decoder[2]["enable_gqa"]
    before = torch.backends.cuda.math_sdp_enabled()
    with own.fast_attention(["chunked", "cudnn"]):
        assert torch.backends.cuda.math_sdp_enabled() == before
    with own.fast_attention(["cudnn", "cudnn"]):
        assert not torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.long
@pytest.mark.parametrize("family", ["llava_qwen", "qwen3_vl"])
def test_texts(script, capsys, family):
    sizes = ("--texts", "3", "--question", "9", "--answer", "7", "--batch", "2")
    lines = run_script(script("texts"), capsys, *sizes, "--model", family)
    for peer in ("cached", "again"):
        line = lines[f"texts/ours against transformers, {peer}"]
        assert line["equal"] and line["difference"] < 1e-4
    added = lines["texts/added"]
    assert 1 < added["necessary"] < added["allowed"]


def test_other_log_p_of_an_answer_is_an_error(script, capsys, monkeypatch):
    texts = script("texts")
    whole = texts.ours
    monkeypatch.setattr(
        texts,
        "ours",
        lambda *args: [[x + 1 for x in clip] for clip in whole(*args)],
    )
    sizes = ("--texts", "1", "--question", "3", "--answer", "2")
    run_script(texts, capsys, *sizes, status=1)


@pytest.mark.parametrize("name", ["size", "studies"])
def test_what_a_script_misses_is_named(script, capsys, monkeypatch, name):
    module, report = script(name), script("_report")
    whole = importlib.util.find_spec
    monkeypatch.setattr(
        report.importlib.util,
        "find_spec",
        lambda module: None if module == "pyarrow" else whole(module),
    )
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    assert module.main() == 2
    told = capsys.readouterr()
    assert told.err == f"{name}.py needs pyarrow: pip install\n" and not told.out


def test_a_grid_over_stored_signals(script, capsys):
    assert not script("studies").main(["--clips", "12", "--rows", "40"])
    line = json.loads(capsys.readouterr().out)
    assert set(line) >= KEYS
    assert line["points"] == 4 * 5 * 7


@pytest.mark.long
def test_scripts_need_no_video_and_no_data_libraries():
    absent = ("tensorflow_datasets", "grain", "av", "ml_collections", "cv2")
    absent += ("pyarrow", "matplotlib", "sklearn")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    code += "import pairs, parts, head, attention, scaling, machine, card"
    path = ":".join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    env = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    done = children.run([sys.executable, "-c", code], env=env)
    assert done.returncode == 0, done.stderr
