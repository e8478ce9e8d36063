"""Work directories in object stores keep what folders promise."""

import pathlib

import pyarrow.parquet as pq
import pytest

from killed_run import config as small
from memory_store import MemoryStore
from vidsme_jax import audit, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands import verify
from vidsme_jax.commands.finished import run_config, run_record
from vidsme_jax.run import asking, shares
from vidsme_jax.run.shares import ShareReport
from vidsme_jax.store import buckets, indices, signals, workdirs
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.store.mirrors import Mirror, numbered
from vidsme_jax.store.signals import Signals, recorded
from vidsme_jax.store.writers import Writer

pytestmark = pytest.mark.usefixtures("without_figures")
URL = "gs://audits/runs/a"
ROOT = "audits/runs/a"
CLIPS = 5
LAST_PART = "signals/part-000009.parquet"


def config(share: str = "", **changes):
    """Five clips, two a batch: parts of 2, 2 and 1."""
    return small(CLIPS, **{"batch_size": 2, "share": share} | changes)


@pytest.fixture
def store(monkeypatch, tmp_path) -> MemoryStore:
    """A store in memory, and a machine that has used none."""
    memory = MemoryStore()
    monkeypatch.setattr(Bucket, "_store", memory)
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    return memory


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Goes on on another machine, whose disk is empty."""
    machines = iter(range(9))

    def go() -> None:
        place = tmp_path / f"machine {next(machines)}"
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))

    return go


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The scores of the same audit in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidsme_jax.report.figures.draw", lambda *args: [])
        found = audit.run(config(), tmp_path_factory.mktemp("alone"))
    return pq.read_table(found.workdir / "scores.parquet")


def names(store: MemoryStore) -> set[str]:
    return {path.removeprefix(f"{ROOT}/") for path in store.objects}


def parts(store: MemoryStore) -> list[str]:
    return sorted(name for name in names(store) if name.startswith("signals/part-"))


def report() -> pathlib.Path:
    """Makes the report as `vidsme report` does; returns the folder that it is in."""
    with workdirs.opened(URL, parts=True) as place:
        shares.gathered(place)
        about = run_record(place.path)
        audit.report_again(place.path, settings.restored(about["config"]), about)
        place.publish()
        return place.path


def scores(store: MemoryStore):
    return pq.read_table(pa_file(store.objects[f"{ROOT}/scores.parquet"][1]))


def pa_file(data: bytes):
    import pyarrow as pa

    return pa.BufferReader(data)


def test_an_audit_leaves_all_that_it_leaves_in_a_folder(
    store, elsewhere, alone, decoded
):
    found = audit.run(config(), URL)
    assert scores(store).equals(alone) and len(decoded) == CLIPS
    here = {
        path.relative_to(found.workdir).as_posix()
        for path in found.workdir.rglob("*")
        if path.is_file()
    }
    assert names(store) == here - {".lock"}
    assert len(parts(store)) == 3 and "digests.json" in names(store)
    puts = [path for call, path in store.calls if call == "put"]
    assert puts.index(f"{ROOT}/digests.json") == len(puts) - 1
    assert puts.index(f"{ROOT}/declaration.json") < puts.index(
        f"{ROOT}/{parts(store)[0]}"
    )
    # Another machine computes nothing again, and makes the same report.
    elsewhere()
    before = dict(store.objects)
    again = audit.run(config(), URL)
    assert len(decoded) == CLIPS and scores(store).equals(alone)
    assert all(
        store.objects[f"{ROOT}/{x}"] == before[f"{ROOT}/{x}"] for x in parts(store)
    )
    elsewhere()
    with workdirs.fetched(URL) as folder:
        assert verify.verify(folder, digest=again.digest).differences == []


def test_shares_and_their_report(store, elsewhere, alone):
    for share in ("2/2", "1/2"):
        elsewhere()
        assert isinstance(audit.run(config(share), URL), ShareReport)
    elsewhere()
    folder = report()
    assert scores(store).equals(alone)
    assert {"report.html", "metrics.json", "verdict.json"} & names(store) != set()
    assert not verify.verify(folder).differences
    # A run of all takes the place of their records.
    assert any(name.startswith("shares/") for name in names(store))
    elsewhere()
    audit.run(config(), URL)
    assert not any(name.startswith("shares/") for name in names(store))


def test_parts_that_an_index_has_are_not_read_from_the_store(
    store, elsewhere, alone, decoded, monkeypatch
):
    monkeypatch.setattr(indices, "_PARTS", 2)
    recorded = signals.recorded(audit.run(config(), URL).workdir / "signals")
    assert f"{ROOT}/signals/index-000001.parquet" in store.objects
    elsewhere()
    with workdirs.opened(URL) as place:
        store.calls.clear()
        writer = Writer(mirror=place.mirror)
        found = signals.Signals(place.path / "signals", recorded, writer)
    read = {path.rpartition("/")[2] for call, path in store.calls if call == "cat_file"}
    assert read & {pathlib.Path(x).name for x in parts(store)} == {
        "part-000002.parquet"
    }
    assert len(found.finished) == CLIPS
    # An index that a listing shows though it was deleted is no loss.
    del store.objects[f"{ROOT}/signals/index-000001.parquet"]
    elsewhere()
    audit.run(config(), URL)
    assert scores(store).equals(alone) and len(decoded) == CLIPS


def test_a_share_asks_for_no_more_where_there_are_many(store):
    """Which shares have finished is said by one listing."""
    found = audit.run(config("2/9999"), URL)
    assert found.finished == 1 and found.rows == 1
    assert len(store.calls) < 60


def test_a_number_that_nobody_counts_to_is_no_gap(store, tmp_path):
    """A name of somebody else; the gaps of a writer are few, and are asked for."""
    bucket = Bucket(URL)
    mirror = Mirror(tmp_path, bucket, tmp_path / "versions")
    store.objects[f"{ROOT}/2"] = store.objects[f"{ROOT}/6"] = (1, b"")
    assert numbered(mirror, str, [0, 1, 5], 1) == [2, 6]
    store.objects[f"{ROOT}/4"] = (1, b"")  # The last gap.
    assert numbered(mirror, str, [0, 1, 3, 5], 1) == [2, 4, 6]
    store.calls.clear()
    assert numbered(mirror, str, [0, 10**17], 1) == []
    assert len(store.calls) == 1


@pytest.mark.long
def test_a_listing_that_lags_loses_nothing(store, elsewhere, alone, decoded):
    """Of a share's parts the listing shows none, one, or the last."""
    audit.run(config("1/1"), URL)
    there = [f"{ROOT}/{name}" for name in parts(store)]
    assert len(there) == 3 and len(decoded) == CLIPS
    for hidden in (there, there[1:], there[:-1], there[1:2], list(store.objects)):
        store.hidden = set(hidden)
        elsewhere()
        audit.run(config("1/1"), URL)
        assert len(decoded) == CLIPS
    store.hidden = set(there)
    elsewhere()
    report()
    assert scores(store).equals(alone)


def test_a_listing_that_still_shows_what_was_deleted(store, elsewhere, decoded):
    audit.run(config("1/1"), URL)
    gone = f"{ROOT}/{parts(store)[1]}"
    del store.objects[gone]
    store.ghosts = {gone}
    elsewhere()
    audit.run(config("1/1"), URL)
    assert len(decoded) == CLIPS + 2
    audit.run(config("1/1"), URL)
    assert len(decoded) == CLIPS + 2


def test_a_server_that_stops_loses_nothing_that_was_computed(store, alone, decoded):
    """The part that could not be put stays here, and is put first the next time."""
    put, count = store.pipe_file, iter(range(100))

    def stops(path, data, mode):
        if "/part-" in path and next(count) >= 1:
            raise TimeoutError("the server does not answer")
        put(path, data, mode)

    store.pipe_file = stops
    with pytest.raises(OSError, match="does not answer") as caught:
        audit.run(config(), URL)
    assert caught.value.filename == f"{URL}/signals/part-000001.parquet"
    assert len(parts(store)) == 1
    store.pipe_file = put
    del decoded[:]
    audit.run(config(), URL)
    assert len(decoded) == CLIPS - 4 and len(parts(store)) == 3
    assert scores(store).equals(alone)


def test_what_was_not_put_does_not_overwrite_what_another_machine_put(
    store, elsewhere, alone, decoded, monkeypatch
):
    put = store.pipe_file

    def stops(path, data, mode):
        if "/part-000001" in path:
            raise TimeoutError("the server does not answer")
        put(path, data, mode)

    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/none")
    elsewhere()
    first = workdirs.mirrored(URL)
    store.pipe_file = stops
    with pytest.raises(OSError, match="does not answer"):
        audit.run(config(), URL)
    store.pipe_file = put
    left = first / "signals" / "part-000001.parquet"
    mine = left.read_bytes()
    elsewhere()
    audit.run(config(), URL)
    theirs = store.objects[f"{ROOT}/signals/part-000001.parquet"]
    assert theirs[1] != mine and len(parts(store)) == 3
    # Back on the first machine, which puts its part under the next name.
    monkeypatch.setenv("XDG_CACHE_HOME", str(first.parents[2]))
    del decoded[:]
    audit.run(config(), URL)
    assert (
        not decoded and store.objects[f"{ROOT}/signals/part-000001.parquet"] == theirs
    )
    assert store.objects[f"{ROOT}/signals/part-000003.parquet"][1] == mine
    assert scores(store).equals(alone)


def test_two_writers_of_one_part_are_found_by_its_refusal(store, alone, decoded):
    put = store.pipe_file

    def meets(path, data, mode):
        if path.endswith("part-000001-1-of-1.parquet") and mode == "create":
            store.objects[path] = (1, b"of another process")
        put(path, data, mode)

    store.pipe_file = meets
    with pytest.raises(FileExistsError) as caught:
        audit.run(config("1/1"), URL)
    assert "two processes write the parts of share 1/1" in str(caught.value)
    assert caught.value.filename == f"{URL}/signals/part-000001-1-of-1.parquet"
    store.pipe_file = put
    with pytest.raises(AuditError, match=r"part-000001-1-of-1\.parquet: damaged"):
        audit.run(config("1/1"), URL)
    assert len(parts(store)) >= 2


def test_a_half_written_object_is_named(store, elsewhere):
    audit.run(config(), URL)
    name = f"{ROOT}/{parts(store)[0]}"
    version, data = store.objects[name]
    store.objects[name] = (version + 1, data[:-20])
    for machine in (lambda: None, elsewhere):  # The copy here is not trusted either.
        machine()
        with pytest.raises(AuditError) as caught:
            audit.run(config(), URL)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{URL}/signals/part-000000.parquet: damaged (")
        assert problem.endswith("delete it and its clips are scored again")
    del store.objects[name]
    store.objects[f"{ROOT}/declaration.json"] = (99, b'{"declared"')
    with pytest.raises(AuditError) as caught:
        audit.run(config(), URL)
    assert f"{URL}/declaration.json" in str(caught.value)
    assert str(workdirs.mirrored(URL)) not in str(caught.value)


def opened() -> Signals:
    """Returns the signals as a run opens them."""
    with workdirs.opened(URL) as place:
        folder = place.path / "signals"
        return Signals(folder, recorded(folder), Writer(mirror=place.mirror))


def test_a_file_here_that_is_damaged_is_fetched_again(store):
    """The object is whole: its footer is looked at first, its other columns later."""
    found = audit.run(config(), URL)
    cut, changed, unsent = (found.workdir / x for x in [*parts(store)[:2], LAST_PART])
    cut.write_bytes(cut.read_bytes()[:-20])
    data = bytearray(changed.read_bytes())
    about = pq.read_metadata(changed).row_group(0)
    columns = map(about.column, range(about.num_columns))
    (its,) = (x for x in columns if "log_prob" in x.path_in_schema)
    data[its.data_page_offset + its.total_compressed_size - 1] ^= 255
    changed.write_bytes(data)
    assert len(list(opened().read(opened().finished))) == CLIPS
    for path in (cut, changed):
        name = path.relative_to(found.workdir).as_posix()
        assert path.read_bytes() == store.objects[f"{ROOT}/{name}"][1]
    # One that was never put is nowhere else, and is named as it is.
    unsent.write_bytes(b"half")
    with pytest.raises(AuditError) as caught:
        opened()
    assert caught.value.problems[0].startswith(f"{unsent}: damaged (")


def test_what_a_reader_finds_damaged_has_the_name_of_its_object(store, capsys):
    with pytest.raises(SystemExit) as caught:
        run_config(URL)
    assert caught.value.code == 2
    assert f"{URL}: no config.json, so that no run has" in capsys.readouterr().err


def test_an_object_that_was_put_again_is_fetched_again(store, decoded):
    found = audit.run(config(), URL)
    name, other = parts(store)[:2]
    stale = found.workdir / name
    before = stale.read_bytes()
    stale.write_bytes((found.workdir / other).read_bytes())  # Damaged is none.
    version, data = store.objects[f"{ROOT}/{name}"]
    store.objects[f"{ROOT}/{name}"] = (version + 1, data)
    audit.run(config(), URL)
    assert stale.read_bytes() == before and len(decoded) == CLIPS


def test_what_was_deleted_there_does_not_come_back(store, decoded):
    audit.run(config(), URL)
    store.objects.clear()
    audit.run(config(), URL)
    assert len(decoded) == 2 * CLIPS and len(parts(store)) == 3


@pytest.mark.long
def test_overwrite_deletes_what_is_stored(store, decoded):
    audit.run(config(), URL)
    store.objects[f"{ROOT}/figures/old.png"] = (1, b"of another corpus")
    before = {name: store.objects[f"{ROOT}/{name}"] for name in parts(store)}
    audit.run(config(overwrite=True, **{"video.num_frames": 3}), URL)
    assert len(parts(store)) == 3
    for name, (_, data) in before.items():
        assert store.objects[f"{ROOT}/{name}"][1] != data
    stale = {x for x in names(store) if x.startswith(("tables/", "figures/"))}
    assert stale and "figures/old.png" not in stale


def test_missing_rights_are_refused_before_anything_is_computed(store, decoded):
    store.denied = {"put"}
    with pytest.raises(AuditError, match="no right to write"):
        audit.run(config(), URL)
    assert not decoded and not store.objects


def test_a_declaration_that_another_share_was_quicker_with(store):
    """The same one is taken over; another is refused."""
    put = store.pipe_file
    audit.run(config("1/2"), URL)
    theirs = store.objects[f"{ROOT}/declaration.json"]

    def late(path, data, mode):
        if path.endswith("declaration.json") and mode == "create":
            store.objects[path] = theirs
        put(path, data, mode)

    for changes, problem in (({}, None), ({"headline": "perplexity"}, "headline was")):
        store.objects.clear()
        store.pipe_file = late
        if problem is None:
            audit.run(config("2/2", **changes), URL)
            assert store.objects[f"{ROOT}/declaration.json"] == theirs
        else:
            with pytest.raises(AuditError, match=problem):
                audit.run(config("2/2", **changes), URL)
            assert not parts(store)


def test_another_report_meanwhile_is_noticed(store, monkeypatch):
    audit.run(config(), URL)
    real = audit.report_again

    def meets(*args):
        found = real(*args)
        path = f"{ROOT}/metrics.json"
        store.objects[path] = (99, b"of another process")
        return found

    monkeypatch.setattr(audit, "report_again", meets)
    with pytest.raises(OSError, match="another run has put it meanwhile"):
        report()
    assert store.objects[f"{ROOT}/metrics.json"][1] == b"of another process"


def test_reading_needs_no_right_to_write(store, elsewhere):
    audit.run(config(), URL)
    store.denied = {"put", "rm_file"}
    elsewhere()
    with workdirs.fetched(URL) as folder:
        assert not verify.verify(folder).differences


def test_two_runs_on_one_machine_do_not_share_a_mirror(store):
    with workdirs.opened(URL):
        with pytest.raises(AuditError, match=f"on this machine works on {URL};"):
            with workdirs.opened(URL):
                pass
        with workdirs.opened(URL, "1-of-2"):
            pass


def test_what_cannot_be_in_a_store_is_refused(store):
    with pytest.raises(AuditError, match=r"of a study is gs://.*must be a folder"):
        asking.ask(config(study="k"), workdir=URL)
    with pytest.raises(AuditError, match="are known"):
        asking.ask(config(), workdir="az://container/x")


def test_records_of_shares_are_asked_for_by_name(store, elsewhere, alone):
    for share in ("1/2", "2/2"):
        audit.run(config(share), URL)
    store.hidden = {f"{ROOT}/shares/2-of-2.json"}
    elsewhere()
    report()
    assert scores(store).equals(alone)
    with workdirs.opened(URL) as place:
        assert shares.gathered(place).missing == ()
