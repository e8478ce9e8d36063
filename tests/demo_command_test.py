"""The demo made again: small here, the same bytes twice, continued after a stop."""

import json
import pathlib

import pytest
from absl import flags

from vidsme_jax import commands
from vidsme_jax.base import AuditError
from vidsme_jax.commands import demo as demo_command
from vidsme_jax.run.stopping import Stop

pytestmark = pytest.mark.long  # The demo is drawn and trained, small.


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Few clips, two epochs; all else as it is."""
    few = {"num_members": 4, "num_matched": 3, "num_shifted": 2}
    with pytest.MonkeyPatch.context() as patch:
        corpora = {name: (at, few) for name, (at, _) in demo_command.CORPORA.items()}
        patch.setattr(demo_command, "CORPORA", corpora)
        patch.setattr(demo_command, "EPOCHS", {"demo": 2, "reference": 1})
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("made")
    demo_command.make(folder)
    return folder


def _bytes(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "training.json"  # It has the seconds.
    }


def _told(folder: pathlib.Path, name: str) -> dict:
    return json.loads((folder / name / "training.json").read_text())


def test_clips_and_models_are_there(made):
    assert len(list((made / "corpus/clips").iterdir())) == 9
    demo, reference = (_told(made, x) for x in ("checkpoint", "reference"))
    assert demo["data"] != reference["data"]
    assert (demo["steps"], reference["steps"]) == (2, 1)
    assert set(demo["losses"]) == {
        "members",
        "nonmembers matched",
        "nonmembers shifted",
    }


def test_twice_the_same_bytes_and_a_stop_between(made, tmp_path):
    class Stopping(Stop):
        def between(self, batches):
            for batch in super().between(batches):
                self.asked = True
                yield batch

    with pytest.raises(KeyboardInterrupt):
        demo_command.make(tmp_path, Stopping())
    assert not (tmp_path / "checkpoint/model.safetensors").exists()
    demo_command.make(tmp_path)
    assert _bytes(tmp_path) == _bytes(made)


def test_what_is_made_stays(made, monkeypatch):
    before = _told(made, "checkpoint")
    from vidsme_jax.finetune import training

    monkeypatch.setattr(training, "run", lambda *args: 1 / 0)
    demo_command.make(made)
    assert _told(made, "checkpoint") == before


def test_another_model_is_not_replaced(made, monkeypatch):
    monkeypatch.setattr(demo_command, "EPOCHS", {"demo": 3, "reference": 1})
    with pytest.raises(AuditError, match="checkpoint holds another model than the dem"):
        demo_command.make(made)


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["x"], 2, "--workdir is missing, such as --workdir runs/made"),
        (["x", "--workdir=w", "more"], 2, "argument 'more': only flags"),
        (["x", "--workdir=w"], 0, "the demo is in w"),
        (["x", "--workdir=w", "OSError"], 2, "the run stopped: full; nothing"),
        (["x", "--workdir=w", "KeyboardInterrupt"], 130, "interrupted: w is kept"),
        (["x", "--workdir=w", "AuditError"], 2, "nothing was computed, 1 problem"),
    ],
)
def test_statuses(argv, status, said, monkeypatch, capsys):
    raised = {
        "OSError": OSError("full"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "AuditError": AuditError(["wrong"]),
    }.get(argv[-1])

    def make(folder, stop):
        if raised:
            raise raised

    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    rest = values(argv[:-1] if raised else argv)
    monkeypatch.setattr(demo_command.flags, "FLAGS", values)
    monkeypatch.setattr(demo_command, "make", make)
    monkeypatch.setattr(Stop, "listen", lambda self: None)
    monkeypatch.setattr(commands, "begin", lambda: None)
    assert demo_command.main(list(rest)) == status
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
