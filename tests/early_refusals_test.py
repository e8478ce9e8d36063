"""Mistakes are refused before anything heavy is imported, all in one message."""

import json

import pytest

import forked
from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.run import asking, checks, joining
from vidsme_jax.settings import views
from vidsme_jax.store import signals


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each command said, by what is wrong."""
    folder = tmp_path_factory.mktemp("early")
    (folder / "c.py").write_text(
        "from vidsme_jax import settings\n"
        "def get_config(variant='demo'):\n"
        "    config = settings.default()\n"
        "    demo = settings.DEMO\n"
        "    config.corpus.members = (str(demo / 'corpus/members.jsonl'),)\n"
        "    config.corpus.nonmembers = (str(demo / 'corpus/nonmembers.jsonl'),)\n"
        "    config.model.checkpoint = str(demo / 'checkpoint')\n"
        "    return config\n"
    )
    (folder / "t.py").write_text(
        "from vidsme_jax.finetune import options\n"
        "def get_config():\n"
        "    return options.default()\n"
    )
    (folder / "emty").mkdir()
    for name in ("pointer", "cut", "gone"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    (folder / "pointer" / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    header = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    (folder / "cut" / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(20)
    )
    (folder / "run" / "signals").mkdir(parents=True)
    demo = views.Settings.of(settings.default())
    before = asking.depends(demo) | {"format": signals.FORMAT, "video.num_frames": 4}
    (folder / "run" / "signals" / "run.json").write_text(json.dumps(before))
    about = {"config": settings.flatten(settings.default()), "fingerprints": {}}
    (folder / "run" / "config.json").write_text(json.dumps(about))
    audit, flag = "audit", "--config=c.py"
    each = {
        "value": [audit, [flag, "--config.batch_size=0"]],
        "text": [audit, [flag, "--config.corpus.max_clips=many"]],
        "scores": [audit, [flag, "--config.scores=vid_sme,vid_smee"]],
        "scores in a tuple": [audit, [flag, "--config.scores=('vid_sme','vid_smee')"]],
        "headline": [audit, [flag, "--config.headline=vidsme"]],
        "key": [audit, [flag, "--config.corpus.max_clip=3"]],
        "manifest": [audit, [flag, "--config.corpus.members=member.json"]],
        "folder": [audit, [flag, "--config.corpus.members=empty"]],
        "glob": [audit, [flag, "--config.corpus.members=films/*.mp4"]],
        "dataset": [audit, [flag, "--config.corpus.members=tfds:nowhere/train"]],
        "root": [audit, [flag, "--config.corpus.video_root=nowhere"]],
        "checkpoint": [audit, [flag, "--config.model.checkpoint=./nowhere"]],
        "no config": [audit, [flag, "--config.model.checkpoint=./emty"]],
        **{
            name: [
                audit,
                [
                    flag,
                    f"--config.model.checkpoint=./{name}",
                    "--config.headline=vidsme",
                ],
            ]
            for name in ("pointer", "cut", "gone")
        },
        "reference": [audit, [flag, "--config.reference.checkpoint=./nowhere"]],
        "prepared": [audit, [flag, "--config.corpus.prepared=nowhere"]],
        "study": [
            audit,
            [flag, "--config.study=k", "--config.slices=video,response"],
        ],
        "folder of others": [
            audit,
            [flag, "--workdir=run", "--config.headline=vidsme"],
        ],
        "no folder": [audit, [flag, "--workdir=c.py/run", "--config.headline=x"]],
        "process": [audit, [flag, "--num_processes=2"]],
        "list": [audit, [flag, "--config.scores=list"]],
        "list in a tuple": [audit, [flag, "--config.scores=('list',)"]],
        "list of none": [
            audit,
            [flag, "--config.scores=list", "--config.profile=offical"],
        ],
        "all": [
            audit,
            [
                *(flag, "--config.corpus.max_clips=0", "--config.scores=vid_smee"),
                *("--config.corpus.members=('a.json', 'b/*.mp4')", "--config.x=1"),
                *("--config.model.checkpoint=./nowhere", "--config.headline=vidsme"),
            ],
        ],
        "prepare": [
            "prepare",
            [flag, "--out=o", "--config.corpus.members=member.json"],
        ],
        **{
            f"prepare {key}": [
                "prepare",
                [flag, "--out=o", f"--config.{key}=3"],
            ]
            for key in ("video", "corpus")
        },
        "prepare several": [
            "prepare",
            [
                *(flag, "--config.video.num_frames=0", "--config.batch_size=0"),
                *("--config.corpus.members=member.json", "--config.x=1"),
            ],
        ],
        "report of": [
            "report",
            ["--workdir=run", "--config.report.fprs=2", "--config.scores=sme"],
        ],
        "report": [
            "report",
            [
                *("--workdir=run", "--config.report.fprs=2", "--config.scores=sme"),
                *("--config.corpus.members=a.json", "--config.motion.bounds=None"),
            ],
        ],
        "canary": ["canary", ["--clips=films", "--out=held", "--variants=x"]],
        "canary folder": ["canary", ["--clips=c.py", "--out=run"]],
        "canary clips": ["canary", ["--clips=films", "--out=new"]],
        "canary key": ["canary", ["--key=nowhere.json", "--workdir=run"]],
        "canary in a store": [
            "canary",
            ["--clips=s3://b/films", "--out=gs://b/o", "--variants=1"],
        ],
        "canary key in a store": [
            "canary",
            ["--key=gs://b/k", "--workdir=run"],
        ],
        "lookup in a store": [
            "lookup",
            [
                *("gs://b/m.json", "--in=gs://b/l.json", "s3://b/l.csv"),
                *("--video_root=gs://b/v", "--out=gs://b/o.json"),
            ],
        ],
        "compare in a store": [
            "compare",
            ["run", "run", "--out=gs://b/x.json"],
        ],
        "match in a store": ["match", ["--out=gs://b/m"]],
        "demo in a store": ["demo", ["--workdir=gs://b/demo"]],
        "finetune in a store": [
            "finetune",
            [
                *("--config=t.py", "--workdir=gs://b/w", "--config.model.checkpoint=x"),
                *("--config.corpus.members=a.json", "--config.compile_cache=gs://b/x"),
            ],
        ],
        "control in a store": [
            "finetune",
            ["--control=s3://b/m.json", "--workdir=gs://b/w"],
        ],
        "keys in a store": [
            audit,
            [
                *(flag, "--config.corpus.prepared_cache=gs://b/p", "--config.scores=x"),
                *("--config.corpus.video_root=s3://b/v", "--config.corpus.urls=gs://u"),
                *("--config.report.control=gs://b/c", "--config.compile_cache=gs://b"),
                "--config.report.published=s3://b/found.json",
            ],
        ],
        "sources in a store": [
            audit,
            [
                *(flag, "--config.corpus.members=gs://b/m.json,a.json"),
                *("--config.corpus.nonmembers=s3://b/*.mp4", "--config.scores=x"),
            ],
        ],
        "finetune nowhere": [
            "finetune",
            ["--config=t.py", "--config.corpus.members=a.json"],
        ],
        "finetune": [
            "finetune",
            [
                *("--config=t.py", "--workdir=w", "--config.train.max_steps=True"),
                *("--config.corpus.members=a.json", "--config.corpus.nonmembers=b"),
            ],
        ],
    }
    lines = forked.all_of(list(each.values()), folder)
    return dict(zip(each, lines, strict=True))


_PARTS = {
    "value": ["1 problem:", "config.batch_size is 0; it must be an integer >= 1"],
    "text": ["config.corpus.max_clips is 'many'; it must be an integer >= 1, or None"],
    "scores": ["unknown score 'vid_smee'", "did you mean 'vid_sme'?"],
    "scores in a tuple": ["1 problem:", "score 'vid_smee' in profile", "'vid_sme'?"],
    "headline": ["config.headline: unknown score 'vidsme'"],
    "key": ["config.corpus.max_clip: no such key; did you mean 'corpus.max_clips'?"],
    "manifest": ["member.json: no such manifest"],
    "folder": [
        "empty: no such manifest, folder or video; did you mean 'emty'?",
    ],
    "glob": ["films/*.mp4: the glob matches nothing"],
    "dataset": ["tfds:nowhere/train: no dataset 'nowhere' in"],
    "root": ["corpus.video_root: no such folder: nowhere"],
    "checkpoint": ["1 problem:", "checkpoint ./nowhere: no such folder"],
    "no config": ["1 problem:", "checkpoint ./emty: no config.json in"],
    "pointer": [
        "2 problems:",
        "score 'vidsme'",
        "checkpoint ./pointer: model.safetensors is a git-lfs pointer",
    ],
    "cut": [
        "2 problems:",
        "checkpoint ./cut: model.safetensors: damaged",
        "it may be cut short",
    ],
    "gone": ["2 problems:", "checkpoint ./gone: no model.safetensors in"],
    "reference": ["config.reference.checkpoint is ./nowhere: checkpoint ./nowhere: no"],
    "prepared": ["corpus.prepared: no such folder: nowhere"],
    "study": ["config.slices is ('video', 'response'): a study is of the rows of the"],
    "folder of others": [
        "2 problems:",
        "score 'vidsme'",
        "its signals were computed with video.num_frames = 4, this run has 16; take "
        "another --workdir, or --config.overwrite=true",
    ],
    "no folder": [
        "2 problems:",
        "unknown score 'x'",
        "--workdir is c.py/run: c.py is there and no folder; take another",
    ],
    "process": ["--coordinator (or JAX_COORDINATOR_ADDRESS) is missing"],
    "list of none": [
        "profile is 'offical'; known: exact, official",
        "did you mean 'official'?",
    ],
    "all": [
        "7 problems:",
        "config.x: no such key",
        "config.corpus.max_clips is 0; it must be",
        "a.json: no such manifest",
        "b/*.mp4: the glob matches nothing",
        "unknown score 'vid_smee'",
        "unknown score 'vidsme'",
        "checkpoint ./nowhere: no such folder",
    ],
    "prepare": ["member.json: no such manifest"],
    "prepare video": ["1 problem:", "config.video is '3'; it is a group of keys, such"],
    "prepare corpus": [
        "1 problem:",
        "config.corpus is '3'; it is a group of keys, such",
    ],
    "prepare several": [
        "4 problems:",
        "config.x: no such key",
        "config.video.num_frames is 0; it must be",
        "--out is missing",
        "member.json: no such manifest",
    ],
    "report of": ["config.report.fprs is (2,)", "nothing to audit", "score 'sme'"],
    "report": [
        "config.corpus.members was () in this run; changing it needs a new",
        "config.report.fprs is (2,)",
        "score 'sme'",
    ],
    "canary": ["1 problem:", "--variants"],
    "canary folder": ["run is not empty and holds no key", "delete it"],
    "canary clips": ["films: no such manifest, folder or video"],
    "canary key": ["nowhere.json: no such key"],
    "canary in a store": [
        "3 problems:",
        "--clips is s3://b/films: it must be a manifest, a folder, a glob or a video",
        "--out is gs://b/o: it must be a folder of this machine; object stores",
        "--variants is 1",
    ],
    "canary key in a store": ["--key is gs://b/k: it must be a file of this machine"],
    "lookup in a store": [
        "5 problems:",
        "the manifest is gs://b/m.json: it must be a file or a folder of this machine",
        "--in is gs://b/l.json: it must be a file of this machine",
        "--in is s3://b/l.csv: it must be a file",
        "--video_root is gs://b/v: it must be a folder",
        "--out is gs://b/o.json: it must be a file",
    ],
    "compare in a store": ["1 problem:", "--out is gs://b/x.json: it must be a file"],
    "match in a store": ["--workdir is missing", "--out is gs://b/m: it must be a fol"],
    "demo in a store": ["1 problem:", "--workdir is gs://b/demo: it must be a folder"],
    "finetune in a store": [
        "4 problems:",
        "config.compile_cache is 'gs://b/x'; it must be a folder of this machine",
        "--workdir is gs://b/w: it must be a folder of this machine",
        "checkpoint x",
        "a.json: no such manifest",
    ],
    "control in a store": [
        "2 problems:",
        "--workdir is gs://b/w: it must be a folder of this machine",
        "a source is s3://b/m.json: it must be a manifest, a folder, a glob or a video",
    ],
    "keys in a store": [
        "7 problems:",
        "config.corpus.video_root is 's3://b/v'; it must be a folder of this machine",
        "config.corpus.urls is 'gs://u'; it must be a table of url and file, a folder",
        "config.corpus.prepared_cache is 'gs://b/p'; it must be a folder of this",
        "config.compile_cache is 'gs://b'; it must be a folder of this machine, or ''",
        "config.report.published is 's3://b/found.json'; it must be a file of this",
        "config.report.control is 'gs://b/c'; it must be a folder of this machine",
        "unknown score 'x'",
    ],
    "sources in a store": [
        "4 problems:",
        "a source is gs://b/m.json: it must be a manifest, a folder, a glob or a video",
        "a.json: no such manifest",
        "a source is s3://b/*.mp4: it must be",
        "unknown score 'x'",
    ],
    "finetune nowhere": [
        "config.model.checkpoint is ''",
        "--workdir is missing: it receives the model",
        "a.json: no such manifest",
    ],
    "finetune": [
        "config.model.checkpoint is ''",
        "config.train.max_steps is 'True'; it must be an integer from 0 to",
        "a.json: no such manifest",
        "b: no such manifest, folder or video",
    ],
}


@pytest.mark.parametrize("what", _PARTS)
def test_a_mistake_is_refused_early(said, what):
    forked.check_refused(said[what], _PARTS[what])


def test_scores_are_listed_early(said):
    status, text, heavy = said["list"]
    assert status == 0 and not heavy and "vid_sme" in text
    assert said["list in a tuple"] == said["list"]


def _config(tmp_path):
    config = settings.variant(settings.default(), "tiny", {"tiny": "random:x"})
    config.corpus.members = (str(tmp_path / "a.json"),)
    config.scores, config.batch_size = "vid_smee", 0
    return config


def test_from_python_the_errors_are_the_same(tmp_path):
    """And those of the model come with them."""
    config = _config(tmp_path)
    with pytest.raises(AuditError) as early:
        asking.ask(config)
    with pytest.raises(AuditError) as late:
        checks.check(config)
    count = len(early.value.problems)
    assert count == 3 and late.value.problems[:count] == early.value.problems
    assert "random:x" in late.value.problems[count]
    with pytest.raises(AuditError) as stored:
        asking.ask(config, model=False)
    assert stored.value.problems == early.value.problems


def test_a_faulty_value_hides_no_other(tmp_path):
    """It counts as its default; what depends on it is left."""
    config = _config(tmp_path)
    config.corpus.max_clips, config.video.num_frames = "many", 0
    with pytest.raises(AuditError) as caught:
        asking.ask(config)
    assert len(caught.value.problems) == 5
    assert any("no such manifest" in p for p in caught.value.problems)
    config.corpus.members, config.slices = 3, ("sound",)
    with pytest.raises(AuditError) as caught:
        asking.ask(config)
    assert len(caught.value.problems) == 6
    assert not any("manifest:" in p for p in caught.value.problems)
    assert any("unknown score" in p for p in caught.value.problems)


def test_a_corpus_that_was_read_is_not_read_again(monkeypatch):
    config = settings.variant(settings.default(), "tiny", {"tiny": "random:x"})
    asked = asking.ask(config)
    monkeypatch.setattr(asking, "open_corpus", None)
    with pytest.raises(AuditError, match="random:x") as caught:
        checks.check(config, asked)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"JAX_NUM_PROCESSES": ""}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "1",
            },
            True,
        ),
    ],
)
def test_several_processes_are_known_without_jax(environment, several):
    """They ask together, in `checks`, so that none waits for one that has ended."""
    found = joining.arguments((None, None, None), environment)
    assert (found is not None) == several
