"""The positive control: what is made, what is said of it, and where it stands."""

import json
import pathlib
import sys
from unittest import mock

import pytest

import children
from trainings import Stopping, changed
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.control import making, plan
from vidsme_jax.demo import clips
from vidsme_jax.evaluation import control_statement as words
from vidsme_jax.finetune import training
from vidsme_jax.run import asking, control_record
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("without_figures")
HEADLINE = "response_min_k_plus_plus_100"
SCORES = ("vid_sme", "response_loss", HEADLINE)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    """A folder with members.jsonl and nonmembers.jsonl, and both in pool.jsonl."""
    folder = tmp_path_factory.mktemp("corpus")
    clips.write_corpus(folder, num_members=10, num_matched=10, num_shifted=0, seed=5)
    names = ("members.jsonl", "nonmembers.jsonl")
    both = "".join((folder / name).read_text() for name in names)
    (folder / "pool.jsonl").write_text(both)
    return folder


@pytest.fixture(scope="module")
def config(corpus):
    """Of an audit of the whole corpus."""
    config = settings.default()
    config.corpus.members = (str(corpus / "members.jsonl"),)
    config.corpus.nonmembers = (str(corpus / "nonmembers.jsonl"),)
    config.video.num_frames = 2
    config.slices, config.headline = ("video", "response"), HEADLINE
    config.scores = SCORES
    config.model.checkpoint = "random:llava_next_video-tiny"
    config.model.dtype = "float32"
    config.report.num_permutations = 100
    config.report.fprs = (0.2,)
    config.parallel.data = 1
    config.compile_cache = ""
    return config


@pytest.fixture(scope="module")
def made(corpus, config, tmp_path_factory):
    """(folder, what `run` returned), stopped twice before."""
    folder = tmp_path_factory.mktemp("made") / "control"
    chosen = plan.make(config, str(corpus / "pool.jsonl"), folder)
    with pytest.raises(KeyboardInterrupt):
        making.run(chosen, Stopping())
    assert (folder / "model" / "state" / "1").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making.audit, "run", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            making.run(chosen)
    assert (folder / "model" / "training.json").exists()
    assert not (folder / "control.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "run", None)  # It is over.
        return folder, making.run(chosen)


def problems_of(function, *args) -> str:
    with pytest.raises(AuditError) as caught:
        function(*args)
    return "\n".join(caught.value.problems)


@pytest.mark.long
def test_a_control_memorises_a_half_and_finds_it(made, corpus):
    folder, record = made
    assert json.loads((folder / "control.json").read_text()) == record
    assert record["memorised"] and record["losses"]["members"] < 0.1
    assert record["losses"]["nonmembers"] > 1
    assert record["clips"] == record["sources"] == len(record["content"]) == 20
    assert record["rows"] == {"members": 10, "nonmembers": 10}
    assert record["headline"] == HEADLINE and set(record["scores"]) == set(SCORES)
    result = record["scores"][HEADLINE]
    assert result["auc"]["value"] == 1 and result["tpr"]["0.2"]["value"] == 1
    assert isinstance(result["verdict"], str)
    assert record["training"]["config"]["train.target_loss"] == 0.05
    assert {"jax", "vidsme_jax"} <= set(record["versions"])
    said = record["statement"]
    assert said.startswith(
        "Positive control: a small model that had memorised half of 20 clips (answer "
    )
    assert f"the headline {HEADLINE} ranked its members above (AUC 1.00 [" in said
    assert "response_loss did (AUC 1.00 [" in said and "vid_sme did" in said
    assert "could not have" not in said
    members = (folder / "model" / "members.jsonl").read_text().splitlines()
    others = (folder / "model" / "nonmembers.jsonl").read_text().splitlines()
    pool = (corpus / "pool.jsonl").read_text().splitlines()
    ids = [json.loads(row)["id"] for row in (*members, *others)]
    assert sorted(ids) == sorted(json.loads(row)["id"] for row in pool)


@pytest.mark.long
def test_the_audit_of_the_control_is_the_users(made, config):
    given = json.loads((made[0] / "audit" / "config.json").read_text())["config"]
    for key in ("video.num_frames", "headline", "report.num_permutations"):
        assert given[key] == settings.flatten(config)[key]
    assert given["slices"] == ["video", "response"] and not given["report.control"]


def test_all_clips_of_a_configuration(corpus, config, tmp_path):
    """Whatever their role, and though a column says another."""
    rows = [json.loads(x) for x in (corpus / "pool.jsonl").read_text().splitlines()]
    rows = [row | {"label": k % 2} for k, row in enumerate(rows)]
    labelled = corpus / "labelled.jsonl"
    labelled.write_text("\n".join(map(json.dumps, rows)))
    both = changed(
        config,
        corpus__members=(str(labelled),),
        corpus__nonmembers=(str(labelled),),
        corpus__fields=("label=label",),
    )
    for source in ("corpus:", str(labelled)):
        chosen = plan.make(both, source, tmp_path)
        assert len(chosen.items) == 20
        assert {item.role for item in chosen.items} == {"members"}
    assert len(plan.make(config, "corpus:", tmp_path).items) == 20
    nothing = changed(config, corpus__members=(), corpus__nonmembers=())
    assert "give --control a manifest" in problems_of(
        plan.make, nothing, "corpus:", tmp_path
    )
    few = plan.make(changed(config, corpus__max_clips=4), "corpus:", tmp_path)
    assert len(few.items) == 4 and few.training.train.epochs == plan.STEPS


def test_what_is_taken_of_an_audit(corpus, config, tmp_path):
    source = str(corpus / "pool.jsonl")
    video = changed(config, slices=("video",), headline="vid_sme", scores="vid_sme")
    chosen = plan.make(video, source, tmp_path)
    assert chosen.auditing.slices == ("video", "response")
    assert chosen.reported == ("vid_sme", HEADLINE, "response_loss")
    assert set(chosen.auditing.scores) == set(SCORES)
    greedy = changed(config, response="greedy", headline="response_mean_renyi_1")
    assert HEADLINE not in plan.make(greedy, source, tmp_path).reported
    assert "response_mean_renyi_1" in problems_of(
        plan.make, changed(config, response="greedy"), source, tmp_path
    )
    other = changed(
        config, reference__checkpoint="elsewhere", headline="response_loss_ref"
    )
    chosen = plan.make(other, source, tmp_path)
    assert chosen.reported[0] == "response_loss"
    assert chosen.settings["headline"] == "response_loss_ref"
    assert not chosen.auditing.reference.checkpoint
    official = changed(config, profile="official", slices=("video",), scores="all")
    assert "--config.profile=exact" in problems_of(
        plan.make, official, source, tmp_path
    )
    group = changed(config, report__comparison="film", report__alpha=0.01)
    chosen = plan.make(group, source, tmp_path).auditing.report
    assert (chosen.comparison, chosen.alpha) == ("all", 0.01)
    rate = changed(config, video__sampling="fps")
    chosen = plan.make(rate, source, tmp_path)
    assert chosen.training.video.sampling == chosen.auditing.video.sampling == "uniform"
    assert chosen.settings["video.sampling"] == "uniform"


def test_problems_are_reported_together(config, tmp_path):
    wrong = changed(config, headline="vid_smee", batch_size=0, model__checkpoint="")
    text = problems_of(plan.make, wrong, str(tmp_path / "nowhere.jsonl"), None)
    places = [
        text.find(part)
        for part in (
            "config.batch_size is 0",
            "--workdir is missing",
            "nowhere.jsonl: no such manifest",
            "unknown score 'vid_smee'",
        )
    ]
    assert -1 not in places and places == sorted(places) and "model" not in text


def test_a_control_needs_answers(corpus, config, tmp_path):
    for source, count in ((corpus / "clips", 20), (corpus / "some.jsonl", 1)):
        if count == 1:
            rows = (corpus / "pool.jsonl").read_text().splitlines()
            first = {"id": "a", "video": json.loads(rows[0])["video"], "answer": " "}
            source.write_text("\n".join([json.dumps(first), *rows[1:]]))
        text = problems_of(plan.make, config, str(source), tmp_path / "control")
        assert f"{count} of 20 rows have no answer" in text
        assert "give every row an `answer`" in text
    assert not (tmp_path / "control").exists()


@pytest.mark.long
def test_a_folder_of_another_control_is_refused(made, corpus, config):
    source, (folder, _) = str(corpus / "pool.jsonl"), made
    other = changed(config, video__num_frames=3)
    said = "holds a control of other clips, answers or settings"
    assert said in problems_of(plan.make, other, source, folder)
    assert said in problems_of(plan.make, config, str(corpus / "members.jsonl"), folder)
    plan.make(changed(other, overwrite=True), source, folder)
    again = changed(config, headline="vid_sme", workers=1)
    assert plan.make(again, source, folder).reported[0] == "vid_sme"
    path = folder / "begun.json"
    before = path.read_text()
    path.write_text("{")
    assert "begun.json: damaged" in problems_of(plan.make, config, source, folder)
    path.write_text(before)


def test_a_control_that_was_refused_holds_no_folder(corpus, config, tmp_path):
    """Before its first step there is nothing that another could not replace."""
    source = str(corpus / "pool.jsonl")
    plan.begin(plan.make(config, source, tmp_path))
    other = plan.make(changed(config, video__num_frames=3), source, tmp_path)
    assert other.training.video.num_frames == 3


@pytest.mark.slow
def test_the_command_continues_a_control_that_is_done(made, corpus, tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        "from vidsme_jax import settings\n"
        "def get_config():\n"
        "    config = settings.default()\n"
        f"    config.slices, config.headline = ('video', 'response'), '{HEADLINE}'\n"
        f"    config.scores = {SCORES!r}\n"
        "    config.report.num_permutations = 100\n"
        "    return config\n"
    )
    command = [sys.executable, "-m", "vidsme_jax", "finetune"]
    command += [f"--control={corpus / 'pool.jsonl'}", f"--workdir={made[0]}"]
    flags = ["--config.video.num_frames=2", "--config.report.fprs=0.2"]
    done = children.run([*command, *flags, f"--config={file}"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == made[1]["statement"]
    assert f"--config.report.control={made[0]}" in done.stdout
    # Without a configuration keys have their defaults, and can be set.
    done = children.run([*command, "--config.video.num_frames=3"])
    assert done.returncode == 2 and "a control of other clips" in done.stderr


@pytest.mark.long
def test_it_is_next_to_the_verdict(made, config, tmp_path):
    with_it = changed(config, report__control=str(made[0]))
    report = audit.run(with_it, tmp_path)
    assert report is not None
    found = json.loads((tmp_path / "metrics.json").read_text())["control"]
    assert found["statement"] == made[1]["statement"].replace(
        "half of 20 clips", "half of these 20 clips"
    )
    assert found["clips"] == {"control": 20, "audit": 20, "shared": 20}
    assert found["memorised"] and not found["differences"]
    assert found["scores"] == made[1]["scores"]
    lines = report.summary().splitlines()
    assert lines.index(found["statement"]) < 4
    page = (tmp_path / "report.html").read_text()
    place = page.index("Positive control: a small model")
    assert page.index(report.metrics["declaration"]["statement"][:20]) < place
    assert place < page.index("What this report claims")
    # A report that is made again can lose it, and have it again.
    about = json.loads((tmp_path / "config.json").read_text())
    again = audit.report_again(tmp_path, config, about)
    assert again.metrics["control"] is None
    assert "Positive control: a" not in (tmp_path / "report.html").read_text()
    about = json.loads((tmp_path / "config.json").read_text())
    other = changed(with_it, motion__q_scale=0.5)
    found = audit.report_again(tmp_path, other, about).metrics["control"]
    assert found["differences"] == ["motion.q_scale was 1.0, and is 0.5"]
    assert found["statement"].endswith(
        "Its settings differ from this audit's: motion.q_scale was 1.0, and is 0.5."
    )


@pytest.mark.long
def test_a_control_of_other_clips_is_remarked(made):
    record, own = made[1], made[1]["content"]
    some = words.shown_with("f", record, (), [*own[:5], *"abcde"])["statement"]
    assert "It saw 5 of the 10 clips of this audit (50%)." in some
    assert "half of 20 clips" in some
    none = words.shown_with("f", record, (), ["a"])["statement"]
    assert "It saw none of the 1 clips" in none and "on other clips" in none


@pytest.mark.long
@pytest.mark.parametrize(
    "changes, said",
    [
        ({"headline": "vid_sme"}, f"headline was {HEADLINE}, and is vid_sme"),
        ({"video.num_frames": 9}, "video.num_frames was 2, and is 9"),
        (
            {"slices": ("response", "instruction"), "headline": HEADLINE},
            "it has no rows of the instruction",
        ),
        (
            {"profile": "official", "headline": "vid_sme", "slices": ("video",)},
            "profile was exact, and is official",
        ),
        (
            {"response": "greedy", "headline": "response_loss"},
            "response was given, and is greedy",
        ),
    ],
)
def test_a_control_of_another_audit_is_refused(made, config, changes, said):
    other = config.copy_and_resolve_references()
    other.report.control, other.scores = str(made[0]), "all"
    other.update_from_flattened_dict(changes)
    with pytest.raises(AuditError) as caught:
        asking.ask(other, model=False)
    (problem,) = caught.value.problems
    assert "was made for another audit" in problem and said in problem


@pytest.mark.long
def test_other_differences_are_remarked(made, config):
    other = changed(config, scores="all", report__control=str(made[0]))
    other.video.sampling = "midpoint"
    asked = asking.ask(other, model=False)
    assert asked.control is not None
    assert asked.control.differences == (
        "video.sampling was uniform, and is midpoint",
        f"scores was {', '.join(sorted(SCORES))}, and is all",
    )
    given = views.Settings.of(other)
    found = control_record.opened(given, f"{HEADLINE}_ref")
    assert found and "no reference model" in found.differences[0]


def _missing(record):
    del record["scores"]["vid_sme"]["auc"]["low"]
    return json.dumps(record)


@pytest.mark.long
@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: "[]",
        lambda record: json.dumps(record)[:-40],
        lambda record: json.dumps(record | {"content": [1]}),
        lambda record: json.dumps(record | {"content": 3}),
        lambda record: json.dumps(record | {"losses": {}}),
        lambda record: json.dumps(record | {"settings": []}),
        lambda record: json.dumps(record | {"clips": "many"}),
        lambda record: json.dumps(record | {"headline": "x"}),
        lambda record: json.dumps(record | {"scores": [1]}),
        _missing,
    ],
)
def test_a_damaged_record_is_a_message(made, config, tmp_path, damage):
    text = damage(json.loads((made[0] / "control.json").read_text()))
    (tmp_path / "control.json").write_text(text)
    other = changed(config, report__control=str(tmp_path))
    assert "control.json cannot be read" in problems_of(asking.ask, other)


def test_no_record_is_a_message(config, tmp_path):
    other = changed(config, report__control=str(tmp_path), slices=("video",))
    other.headline = "vid_sme"
    other.scores = "vid_sme"
    assert "has no control.json; make one by" in problems_of(asking.ask, other)
    other.study = "k"
    other.report.control = "x"
    assert "a study has no verdict" in problems_of(asking.ask, other)


def _record(members, others, low=0.9, high=1.0, value=0.95):
    auc = {"value": value, "low": low, "high": high, "reason": "no rows"}
    return {
        "clips": 8,
        "epochs": 3,
        "losses": {"members": members, "nonmembers": others},
        "headline": "h",
        "scores": {"h": {"auc": auc}, "s": {"auc": auc}},
    }


def test_what_a_record_says():
    assert words.statement(_record(0.05, 2.0)) == (
        "Positive control: a small model that had memorised half of 8 clips (answer "
        "loss 0.05 against 2.00, in nats a token) was audited in the same way: the "
        "headline h ranked its members above (AUC 0.95 [0.90, 1.00]); s did (AUC 0.95 "
        "[0.90, 1.00])."
    )
    blind = words.statement(_record(0.05, 2.0, low=0.4, high=0.6, value=0.5))
    assert blind.endswith(
        "the headline h did not rank its members above (AUC 0.50 [0.40, 0.60]), so "
        "that this audit could not have found membership even of memorised clips; s "
        "did not (AUC 0.50 [0.40, 0.60])."
    )
    wide = words.statement(_record(0.05, 2.0, low=0.35, high=0.81, value=0.59))
    assert "(AUC 0.59 [0.35, 0.81]), and the clips are too few to show" in wide
    below = words.statement(_record(0.05, 2.0, low=0.2, high=0.4, value=0.3))
    assert "ranked them below, against its sign" in below and "could not have" in below
    few = words.statement(_record(0.05, 2.0, low=None, high=None))
    assert "(AUC 0.95), and the clips are too few to show" in few
    none = words.statement(_record(0.05, 2.0, value=None))
    assert "the headline h had no result (no rows), so that" in none
    assert "in 3 epochs a small model had not" in words.statement(_record(0.5, 2.0))
    easy = words.statement(_record(0.05, 0.06))
    assert "there was nothing to memorise" in easy and "AUC" not in easy
