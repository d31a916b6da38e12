"""The run folder: round trips, whole files only, resuming after a kill, locks and disks that fail."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ravl.config import AuditConfig, ClusteringConfig, PromptsConfig, RegionsConfig
from ravl.errors import ConfigError, ModelError, RunError
from ravl.store import (
    EMBEDDINGS,
    STAGES,
    AuditRun,
    Origin,
    damaged_runs,
    list_runs,
    open_workspace,
    origin_of,
    read_json,
    write_json,
    writing,
)
from ravl.store import files as store_files
from ravl.tables import (
    BY_OPERATOR,
    Agreement,
    Assignment,
    Clustering,
    Counterfactuals,
    Evidence,
    Exemplars,
    Families,
    FeatureScores,
    GroupAccuracy,
    ImageSet,
    Regions,
    Significance,
    ZeroShot,
    columns,
)

PRINTS = {"data": "d", "model": "m", "preprocessing": "p"}
CONFIG = AuditConfig("/images", "demo", prompts=PromptsConfig(("cat", "dög"), ("a {}", "ein {}"), "model"))
NAN = float("nan")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="needs a device that is always full")

Rows = tuple[int, dict[str, tuple[int, np.ndarray]]]


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    return AuditRun.create(tmp_path, "audit", CONFIG, PRINTS)


# --- records -------------------------------------------------------------------------------------------------------


def image_set(n: int = 4) -> ImageSet:
    return ImageSet(
        root="/images",
        file=np.array([f"cat/bild {i} ü.png" for i in range(n)], str),
        label=np.arange(n) % 2,
        size=np.arange(2 * n).reshape(n, 2) + 1,
        class_names=("cat", "dög"),
        caption=np.array(["", "NA", "null", 'ein Bild, "so"\n'][:n], str),
        groups={"site": np.array(["A", "", "nan", "B"][:n], str)},
        skipped=(("a.png", "is empty (0 bytes)"),) if n else (),
        fingerprint="feed",
    )


def regions(n: int = 4) -> Regions:
    box = np.array([[0, 0, 1, 2]]) + np.arange(n)[:, None] * [[0, 0, 1, 1]]
    return Regions(np.arange(n) // 2, box, np.arange(n) - 1, 7)


def zero_shot(n: int = 3) -> ZeroShot:
    rows = np.random.default_rng(0).dirichlet(np.ones(2), n + 2)
    return ZeroShot(rows[:n], rows, np.arange(n) % 2)


def clustering(r: int = 5, c: int = 2) -> Clustering:
    rng = np.random.default_rng(0)
    label = np.arange(r) % (c + 1) - 1
    return Clustering(
        label,
        rng.random(r),
        np.arange(c),
        rng.random((4, 3)),
        rng.random(3),
        rng.random((2, 3)),
        rng.random((c, 2)),
        rng.random(c),
    )


def feature_scores(n: int = 3) -> FeatureScores:
    counts = np.arange(n * 2).reshape(n, 2)
    return FeatureScores(
        feature=np.arange(n)[::-1],
        pull_class=np.array([1, -1, 0][:n]),
        influence=np.array([0.5, NAN, 0.0][:n]),
        gap=np.array([0.1, NAN, 0.25][:n]),
        two_sided=np.array([True, False, True][:n]),
        passes=np.array([True, False, False][:n]),
        n_regions=np.arange(n),
        n_images=np.arange(n),
        n_errors=np.arange(n),
        n_decided=np.arange(n),
        class_gap=np.array([[0.1, NAN], [NAN, NAN], [-0.5, 0.25]][:n]).reshape(n, 2),
        n_in=counts,
        right_in=counts,
        n_out=counts,
        right_out=counts,
    )


def exemplars(n: int = 3) -> Exemplars:
    values = np.array([1.5, NAN, -2.0][:n])
    return Exemplars(np.zeros(n), np.arange(n), np.arange(n), np.ones(n), values, values, np.full(n, NAN))


def groups(n: int = 3) -> GroupAccuracy:
    names = np.array(["all images", "cat, site=", "nan"][:n], str)
    return GroupAccuracy(names, np.array(["overall", "class", "group"][:n], str), *[np.arange(n)] * 5)


def significance(n: int = 3) -> Significance:
    rates = {
        f"{side}_{part}": np.array([[0.1, NAN, -0.5], [-0.2, NAN, -0.6], [0.3, NAN, -0.4]][i])[:n]
        for side in ("pull", "other")
        for i, part in enumerate(("diff", "low", "high"))
    }
    counts = {f"{side}_{where}": np.full((n, 2), 3) for side in ("pull", "other") for where in ("in", "out")}
    return Significance(
        feature=np.arange(n)[::-1],
        n_comparable=np.arange(n),
        excess_gap=np.full(n, NAN),
        gap_low=np.full(n, NAN),
        gap_high=np.full(n, NAN),
        p=np.full(n, 0.25),
        q=np.where(np.arange(n) == 0, 0.5, NAN),
        supported=np.arange(n) == 0,
        excess_influence=np.full(n, NAN),
        replicated=np.full(n, -1),
        **rates,
        **counts,
    )


def counterfactuals(n: int = 4) -> Counterfactuals:
    made = np.arange(2 * n).reshape(n, 2)
    few = np.arange(min(n, 3))
    return Counterfactuals(("token_drop", "blur"), np.arange(n), np.arange(n), made, made - 1, few, few, few, few, few)


def evidence(n: int = 3) -> Evidence:
    by_operator = {name: np.arange(2 * n).reshape(n, 2) for name in BY_OPERATOR}
    return Evidence(
        operators=("token_drop", "blur"),
        feature=np.arange(n)[::-1],
        flagged=np.arange(n) == 0,
        grade=np.array(["causal", "core", "undecided"][:n], str),
        reason=np.array(["causal", "harm", "support"][:n], str),
        error_share=np.array([0.5, NAN, 0.0][:n]),
        n_pasted=np.arange(n),
        induced=np.arange(n),
        n_after=np.ones((n, 4)),
        right_after=np.zeros((n, 4)),
        **by_operator,
    )


RECORDS: dict[str, tuple[Callable[[int], Any], tuple[int, ...]]] = {
    "images": (image_set, (4, 1, 0)),
    "regions": (regions, (4, 0)),
    "zero_shot": (zero_shot, (3, 0)),
    "clusters": (lambda n: clustering(n, min(n, 2)), (5, 1, 0)),
    "families": (lambda n: Families(np.arange(n), np.array(["", "near", "alike"][:n], str)), (3, 1, 0)),
    "features": (feature_scores, (3, 1, 0)),
    "significance": (significance, (3, 0)),
    "counterfactuals": (counterfactuals, (4, 0)),
    "evidence": (evidence, (3, 0)),
    "agreement": (lambda n: Agreement(n, 0.9, 0.8, 0.7), (5,)),
    "exemplars": (exemplars, (3, 0)),
    "projection": (lambda n: np.arange(2.0 * n, dtype=np.float32).reshape(n, 2), (3, 0)),
    "text": (lambda n: np.ones((n, 4), np.float32), (2,)),
}


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype.kind == expected.dtype.kind
        assert found.dtype == expected.dtype or expected.dtype.kind == "U"
        np.testing.assert_array_equal(found, expected)  # NaN equals NaN here
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    else:
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize(("stage", "n"), [(stage, n) for stage, (_, sizes) in RECORDS.items() for n in sizes])
def test_a_record_survives_the_disk(stage: str, n: int, run: AuditRun) -> None:
    record = RECORDS[stage][0](n)
    found = run.stage(stage, lambda: record)
    assert type(found) is type(record)
    if isinstance(record, np.ndarray):
        assert_equal(found, record)
    else:
        assert_equal(columns(found), columns(record))


def test_an_image_set_without_captions_stays_so(run: AuditRun) -> None:
    bare = ImageSet("/", np.array(["a"]), np.array([0]), np.ones((1, 2)), ("x",))
    found = run.stage("images", lambda: bare)
    assert (found.caption, found.groups, found.skipped) == (None, {}, ())


def test_a_stage_is_computed_once(run: AuditRun) -> None:
    run.stage("projection", lambda: np.zeros((2, 2), np.float32))

    def again() -> None:
        raise AssertionError("computed again")

    np.testing.assert_array_equal(run.stage("projection", again), np.zeros((2, 2)))
    assert run.about["stages"]["projection"]["seconds"] >= 0


def test_finished_needs_every_stage(run: AuditRun) -> None:
    made = {stage: make(sizes[0]) for stage, (make, sizes) in RECORDS.items() if stage in STAGES}
    for stage, record in made.items():
        run.stage(stage, lambda record=record: record)
    assert not run.finished
    run.embed(SHAPES, blocks())
    assert run.finished


@pytest.mark.parametrize("stage", [*RECORDS, *EMBEDDINGS])
def test_reading_before_the_stage_is_finished(stage: str, run: AuditRun) -> None:
    read = run.array if stage in EMBEDDINGS else run.load
    with pytest.raises(RunError, match=r"has not finished the stage .* Run the same ravl discover command again"):
        read(stage)


@pytest.mark.parametrize("damage", ["empty", "zeros", "text", "half", "flipped"])
@pytest.mark.parametrize("stage", list(RECORDS))
def test_a_damaged_file_is_told(stage: str, damage: str, run: AuditRun) -> None:
    run.stage(stage, lambda: RECORDS[stage][0](RECORDS[stage][1][0]))
    [path] = [p for p in run.path.iterdir() if p.name.split(".")[0] == stage]
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "empty": b"",
            "zeros": bytes(len(whole)),
            "text": b"damaged" * 100,
            "half": whole[:middle],
            "flipped": whole[:40] + bytes(b ^ 255 for b in whole[40:60]) + whole[60:],
        }[damage]
    )
    try:
        run.load(stage)
    except RunError as error:
        assert f"{path} is damaged" in str(error)  # noqa: PT017 - some flipped bytes are only other numbers
    else:
        assert damage == "flipped"


@pytest.mark.parametrize("damage", [b"", b"x" * 60, None])
def test_a_damaged_array_is_told(damage: bytes | None, run: AuditRun) -> None:
    run.embed(SHAPES, blocks())
    path = run.path / "region_embeddings.npy"
    path.write_bytes(path.read_bytes()[:-10] if damage is None else damage)
    with pytest.raises(RunError, match="is damaged"):
        run.array("region_embeddings")


# --- whole files only ----------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    with writing(path) as partial:
        partial.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"

    def fail() -> None:
        with writing(path) as partial:
            partial.write_text("22")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "1"  # what was there stays
    assert os.listdir(path.parent) == ["a.json"]  # and nothing lies about


def test_a_stage_that_fails_leaves_no_file(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, record: object) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("killed")

    broken = store_files.StageFile("features.parquet", half, store_files.FILES["features"].load)
    monkeypatch.setitem(store_files.FILES, "features", broken)
    with pytest.raises(RuntimeError):
        run.stage("features", feature_scores)
    assert not run.has("features")
    assert sorted(os.listdir(run.path)) == ["run.json"]


@needs_full
@pytest.mark.parametrize("stage", list(RECORDS))
def test_a_full_disk_is_told(stage: str, run: AuditRun) -> None:
    """Everything that is written to the partial name meets a real `no space left`."""
    name = store_files.FILES[stage].name
    (run.path / f"{name}.partial").symlink_to(FULL)
    with pytest.raises(
        RunError, match=f"{name} could not be written: the disk is full. Free some space and run the same"
    ):
        run.stage(stage, lambda: RECORDS[stage][0](RECORDS[stage][1][0]))
    assert not run.has(stage)
    run.stage(stage, lambda: RECORDS[stage][0](RECORDS[stage][1][0]))  # with space again, it goes on
    assert run.has(stage)


@needs_full
def test_a_disk_too_small_for_the_embeddings_is_told_at_once(run: AuditRun) -> None:
    (run.path / "region_features.npy.partial").symlink_to(FULL)

    def never(start: int) -> Iterator[Rows]:
        raise AssertionError("embedded without space to keep it")

    with pytest.raises(RunError, match="could not be written"):
        run.embed(SHAPES, never)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is read-only. Choose another --workspace"),
        (errno.EACCES, "permission is denied"),
        (errno.EIO, "Input/output error. Check the disk"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_every_disk_error_is_one_sentence(
    call: str, number: int, message: str, run: AuditRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RunError, match=message) as caught:
        run.stage("features", feature_scores)
    assert caught.value.exit_code == 1
    with pytest.raises(RunError, match=message):
        run.embed(SHAPES, blocks())
    with pytest.raises(RunError, match=message):
        AuditRun.create(run.path.parents[1], "other", CONFIG, PRINTS)
    monkeypatch.undo()
    assert not run.has("features")
    run.embed(SHAPES, blocks())
    assert run.has("embeddings")


def test_a_file_system_without_preallocation(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    run.embed(SHAPES, blocks())
    check_arrays(run)
    monkeypatch.delattr(os, "posix_fallocate")
    other = AuditRun.create(run.path.parents[1], "other", CONFIG, PRINTS)
    other.embed(SHAPES, blocks())
    check_arrays(other)


def test_damaged_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="should exist"):
        read_json(tmp_path / "a.json")
    for content in (b"", b"{", b"\xff\xfe"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            read_json(tmp_path / "a.json")
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}


# --- embeddings, block by block ------------------------------------------------------------------------------------

N_IMAGES, PER_IMAGE, BLOCK = 10, 3, 4
SHAPES = {"image_embeddings": (N_IMAGES, 2), "region_embeddings": (30, 2), "region_features": (30, 5)}


def values(name: str) -> np.ndarray:
    return np.random.default_rng(len(name)).normal(size=SHAPES[name]).astype(np.float32)


def blocks(fail_at: int = 99) -> Callable[[int], Iterator[Rows]]:
    """Blocks of BLOCK images; fails before the block that begins with image `fail_at`."""

    def generate(start: int) -> Iterator[Rows]:
        for first in range(start, N_IMAGES, BLOCK):
            if first >= fail_at:
                raise KeyboardInterrupt
            stop = min(first + BLOCK, N_IMAGES)
            some = {"image_embeddings": (first, values("image_embeddings")[first:stop])}
            for name in EMBEDDINGS[1:]:
                some[name] = (PER_IMAGE * first, values(name)[PER_IMAGE * first : PER_IMAGE * stop])
            yield stop, some

    return generate


def check_arrays(run: AuditRun) -> None:
    for name in EMBEDDINGS:
        found = run.array(name)
        assert found.dtype == np.float16
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, values(name).astype(np.float16))


def contents(run: AuditRun) -> dict[str, bytes]:
    return {name: (run.path / f"{name}.npy").read_bytes() for name in EMBEDDINGS}


@pytest.mark.parametrize("fail_at", [0, 4, 8])
def test_a_broken_pass_goes_on_where_it_was(fail_at: int, tmp_path: Path) -> None:
    whole = AuditRun.create(tmp_path, "whole", CONFIG, PRINTS)
    whole.embed(SHAPES, blocks())
    check_arrays(whole)
    run = AuditRun.create(tmp_path, "broken", CONFIG, PRINTS)
    with pytest.raises(KeyboardInterrupt):
        run.embed(SHAPES, blocks(fail_at))
    assert not run.has("embeddings")
    assert not list(run.path.glob("*.npy"))
    starts: list[int] = []

    def noted(start: int) -> Iterator[Rows]:
        starts.append(start)
        return blocks()(start)

    run.embed(SHAPES, noted)
    assert starts == [fail_at]
    assert contents(run) == contents(whole)
    assert sorted(os.listdir(run.path)) == sorted([*(f"{name}.npy" for name in EMBEDDINGS), "run.json"])


KILLED = """
import os, signal, sys
from ravl.store import AuditRun
from tests.test_store import SHAPES, blocks
at = int(sys.argv[2])
def generate(start):
    for done, rows in blocks()(start):
        if at == start + done:
            os.kill(os.getpid(), signal.SIGKILL)
        yield done, rows
AuditRun(sys.argv[1]).embed(SHAPES, generate)
"""

KILLED_BETWEEN_ARRAYS = """
import os, signal, sys
from ravl.store import AuditRun
from tests.test_store import SHAPES, blocks
replace, seen = os.replace, []
def kill(source, target):
    if str(target).endswith(".npy"):
        seen.append(target)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
AuditRun(sys.argv[1]).embed(SHAPES, blocks())
"""


@pytest.mark.parametrize(("code", "at"), [(KILLED, 4), (KILLED, 10), (KILLED_BETWEEN_ARRAYS, 0)])
def test_a_killed_process_is_continued_to_the_same_bytes(
    code: str, at: int, tmp_path: Path, process: Callable[..., Any]
) -> None:
    whole = AuditRun.create(tmp_path, "whole", CONFIG, PRINTS)
    whole.embed(SHAPES, blocks())
    run = AuditRun.create(tmp_path, "killed", CONFIG, PRINTS)
    with process(code, run.path, at) as killed:
        killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not run.has("embeddings")
    run.embed(SHAPES, blocks())
    assert contents(run) == contents(whole)
    assert not list(run.path.glob("*.partial"))


@pytest.mark.parametrize("lost", ["missing", "short", "marker only"])
def test_a_marker_without_its_arrays_does_not_count(lost: str, run: AuditRun) -> None:
    """Someone tidied up the partial files: going on at the marker would leave zeros where embeddings belong."""
    with pytest.raises(KeyboardInterrupt):
        run.embed(SHAPES, blocks(8))
    for path in run.path.glob("*.npy.partial"):
        if lost == "marker only" or "features" in path.name:
            path.write_bytes(path.read_bytes()[:150]) if lost == "short" else path.unlink()
    run.embed(SHAPES, blocks())
    check_arrays(run)


def test_an_array_that_was_deleted_is_made_again(run: AuditRun) -> None:
    run.embed(SHAPES, blocks())
    (run.path / "region_features.npy").unlink()
    run.embed(SHAPES, blocks())
    check_arrays(run)


@pytest.mark.parametrize("n_images", [0, 2])
def test_arrays_without_rows(n_images: int, run: AuditRun) -> None:
    shapes = {"image_embeddings": (n_images, 4), "region_embeddings": (0, 4), "region_features": (0, 7)}

    def generate(start: int) -> Iterator[Rows]:
        yield 2, {name: (0, np.zeros(shape)) for name, shape in shapes.items()}

    run.embed(shapes, generate)
    for name, shape in shapes.items():
        assert run.array(name).shape == shape
        assert run.array(name).dtype == np.float16


@pytest.mark.parametrize("value", [NAN, math.inf, 1e6])
def test_a_model_that_gives_no_numbers_is_told(value: float, run: AuditRun) -> None:
    def generate(start: int) -> Iterator[Rows]:
        for done, rows in blocks()(start):
            rows["region_features"][1][0, 0] = value
            yield done, rows

    with pytest.raises(ModelError, match="region features hold NaN or larger ones"):
        run.embed(SHAPES, generate)
    assert not run.has("embeddings")


def test_blocks_that_end_early_are_a_fault(run: AuditRun) -> None:
    with pytest.raises(ValueError, match="must end with image 10, got 4"):
        run.embed(SHAPES, lambda start: iter([next(blocks()(start))]))
    assert not run.has("embeddings")


# --- identity ------------------------------------------------------------------------------------------------------


def test_the_same_audit_is_the_same_run(tmp_path: Path) -> None:
    first = AuditRun.create(tmp_path, "audit", CONFIG, PRINTS)
    again = AuditRun.create(tmp_path, "audit", AuditConfig.from_dict(CONFIG.to_dict()), dict(reversed(PRINTS.items())))
    assert again.id == first.id
    assert again.config == CONFIG
    changed = [
        AuditRun.create(tmp_path, "audit", AuditConfig("/images", "demo", RegionsConfig(k=3)), PRINTS),
        AuditRun.create(tmp_path, "audit", AuditConfig("/images", "demo"), PRINTS),
        *(AuditRun.create(tmp_path, "audit", CONFIG, PRINTS | {key: "x"}) for key in PRINTS),
        AuditRun.create(tmp_path, "audit-2", CONFIG, PRINTS),
    ]
    assert len({run.id for run in [first, *changed]}) == 7
    about = first.about
    assert about["fingerprints"] == PRINTS
    assert about["config"] == json.loads(json.dumps(CONFIG.to_dict()))
    assert set(about["packages"]) >= {"ravl-dashboard", "torch", "numpy"}


def test_a_longer_name_is_another_run(tmp_path: Path) -> None:
    """`audit-x-<time>-<hash>` also fits the pattern `audit-*-<hash>`."""
    other = AuditRun.create(tmp_path, "audit-x", CONFIG, PRINTS)
    assert AuditRun.create(tmp_path, "audit", CONFIG, PRINTS).id != other.id


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "a\n", "x" * 81, "[a]", "a\0"])
def test_names_that_are_no_folder(name: str, run: AuditRun) -> None:
    with pytest.raises(ConfigError, match="a name must be letters, digits, dots, dashes or underscores"):
        AuditRun.create(run.path.parents[1], name, CONFIG, PRINTS)
    with pytest.raises(ConfigError, match="a name must be"):
        run.mitigation(name)


CREATE = """
import sys
from ravl.store import AuditRun
from tests.test_store import CONFIG, PRINTS
from pathlib import Path
print(AuditRun.create(Path(sys.argv[1]), "audit", CONFIG, PRINTS).id)
"""


def test_two_processes_make_one_run(tmp_path: Path, process: Callable[..., Any]) -> None:
    started = [process(CREATE, tmp_path) for _ in range(2)]
    ids = {p.communicate(timeout=60)[0] for p in started}
    assert len(ids) == 1
    assert len(list_runs(tmp_path)) == 1


def edit(run: AuditRun, **changes: Any) -> None:
    write_json(run.path / "run.json", run.about | changes)


def test_a_newer_schema_is_refused(run: AuditRun) -> None:
    edit(run, schema_version=3, packages={"ravl-dashboard": "9.1"})
    with pytest.raises(
        RunError, match=r"schema version 3, but this ravl reads up to 2. Open it with ravl-dashboard 9.1"
    ):
        AuditRun(run.path)
    assert list_runs(run.path.parents[1]) == []
    assert damaged_runs(run.path.parents[1])[0][0] == run.id
    assert AuditRun.create(run.path.parents[1], "audit2", CONFIG, PRINTS).finished is False


def test_an_older_schema_is_refused(run: AuditRun) -> None:
    edit(run, schema_version=1, packages={"ravl-dashboard": "0.1"})
    with pytest.raises(RunError, match=r"schema version 1, but this ravl reads 2\. .* or audit again"):
        AuditRun(run.path)


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        "text",
        {},
        {"schema_version": 1},
        {"schema_version": "1"},
        {"config": {"images": 1}},
        {"config": 3},
        {"config": "tau"},
    ],
)
def test_a_run_that_cannot_be_read_is_left_out(document: Any, run: AuditRun) -> None:
    good = AuditRun.create(run.path.parents[1], "good", CONFIG, PRINTS)
    if isinstance(document, dict) and document.get("config") == "tau":
        document = {"config": CONFIG.to_dict() | {"prompts": {"tau": -1.0}}}
    if isinstance(document, dict) and "config" in document:
        document = run.about | document
    write_json(run.path / "run.json", document)
    with pytest.raises(RunError, match="does not describe a run"):
        AuditRun(run.path)
    workspace = run.path.parents[1]
    assert [found.id for found in list_runs(workspace)] == [good.id]
    assert [name for name, _ in damaged_runs(workspace)] == [run.id]
    assert AuditRun.create(workspace, "audit", CONFIG, PRINTS).name == "audit"


def test_a_folder_without_a_description_is_named(run: AuditRun) -> None:
    """What a process wrote after its run was deleted."""
    workspace = run.path.parents[1]
    (workspace / "runs" / "left" / "mitigation").mkdir(parents=True)
    assert [found.id for found in list_runs(workspace)] == [run.id]
    ((name, reason),) = damaged_runs(workspace)
    assert name == "left"
    assert "run.json should exist, but does not" in reason


def test_find(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none yet; make one with ravl discover"):
        AuditRun.find(tmp_path, "audit")
    runs = {name: AuditRun.create(tmp_path, name, CONFIG, PRINTS) for name in ("birds", "birds-2", "cats")}
    newer = AuditRun.create(tmp_path, "cats", CONFIG, PRINTS | {"data": "new"})
    edit(runs["cats"], created="2020-01-01T00:00:00+00:00")
    assert AuditRun.find(tmp_path, runs["birds"].id).id == runs["birds"].id
    assert AuditRun.find(tmp_path, "birds").id == runs["birds"].id  # a name goes before a beginning
    assert AuditRun.find(tmp_path, "birds-2").id == runs["birds-2"].id
    assert AuditRun.find(tmp_path, newer.id[:-3]).id == newer.id
    assert AuditRun.find(tmp_path, "cats").id == newer.id
    assert AuditRun.find(tmp_path / "other", str(newer.path)).id == newer.id
    for name, reason in {"b": "fits several", "dogs": "is none of them", "": "is none", "x" * 5000: "is none"}.items():
        with pytest.raises(ConfigError, match=reason):
            AuditRun.find(tmp_path, name)


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    runs = [AuditRun.create(tmp_path, f"run{i}", CONFIG, PRINTS) for i in range(3)]
    for run, created in zip(runs, ("2026-01-02", "2026-01-03", "2026-01-01"), strict=True):
        edit(run, created=created)
    assert [run.name for run in list_runs(tmp_path)] == ["run1", "run0", "run2"]
    assert list_runs(tmp_path / "nowhere") == []


# --- locks and workspaces ------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from ravl.store import AuditRun
with AuditRun(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_dies(run: AuditRun, process: Callable[..., Any]) -> None:
    with process(HOLD, run.path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"{run.id} is being computed by another process"), run.locked():
            pass
        holder.kill()
        holder.communicate(timeout=60)
    with run.locked(), pytest.raises(RunError, match="another process"), AuditRun(run.path).locked():
        pass
    with run.locked():
        pass


def test_a_new_workspace_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    folder = open_workspace(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert open_workspace(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o755  # what a person chose stays


def test_a_workspace_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="the workspace must be a folder"):
        open_workspace(tmp_path / "file")
    with pytest.raises(ConfigError, match="the workspace must be a folder"):
        open_workspace(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="must be writable"):
        open_workspace(tmp_path)


READ_ONLY = """
import os, sys
from pathlib import Path
import numpy as np
from ravl.errors import RavlError
from ravl.store import AuditRun, open_workspace
os.setuid(65534)
run = AuditRun(sys.argv[1])
for act in (
    lambda: run.stage("projection", lambda: np.zeros((1, 2))),
    lambda: run.locked().__enter__(),
    lambda: run.mitigation("m").append_log({"step": 1.0}),
    lambda: open_workspace(Path(sys.argv[1]).parents[1]),
    lambda: AuditRun(Path(sys.argv[1]).parent / "hidden"),
):
    try:
        act()
    except RavlError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else(run: AuditRun, python: Callable[..., str]) -> None:
    """A process without any rights on the run: each write, and each read of a hidden file, is one sentence."""
    hidden = run.path.parent / "hidden"
    shutil.copytree(run.path, hidden)
    (run.path / "mitigation" / "m").mkdir(parents=True)
    (hidden / "run.json").chmod(0o600)
    above = [path for path in run.path.parents if path.stat().st_uid == 0 and path != Path("/")]
    modes = {path: path.stat().st_mode for path in above}
    for path in above:
        path.chmod(modes[path] | 0o055)
    try:
        lines = python(READ_ONLY, run.path).splitlines()
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert len(lines) == 5
    assert all(line.startswith("RunError") and "permission is denied" in line for line in lines[:3])
    assert lines[3].startswith("ConfigError the workspace must be writable")
    assert lines[4].startswith("RunError")
    assert "cannot be read: Permission denied" in lines[4]


# --- mitigation ----------------------------------------------------------------------------------------------------


def test_settings_of_a_mitigation_do_not_change(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    assert not folder.exists
    assert run.mitigations() == []
    folder.begin({"run": run.id, "config": {"features": (1, 2)}})
    run.mitigation("fix").begin({"run": run.id, "config": {"features": (1, 2)}})
    with pytest.raises(ConfigError, match=r"'fix' exists with another config\. Choose another --name"):
        folder.begin({"run": run.id, "config": {"features": (1,)}})
    assert [found.name for found in run.mitigations()] == ["fix"]
    assert folder.about["config"] == {"features": [1, 2]}


def test_the_log_forgets_a_torn_line(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    assert folder.log() == []
    rows = [{"step": float(i), "total": 1 / (i + 1)} for i in range(3)]
    for row in rows:
        folder.append_log(row)
    with open(folder.path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 3.0, "to')
    assert folder.log() == rows
    folder.write_log(rows[:2])
    folder.append_log(rows[2])
    assert folder.log() == rows
    (folder.path / "log.jsonl").write_text('{"step"\n{"step": 1.0}\n')
    with pytest.raises(RunError, match="damaged in line 1"):
        folder.log()


def test_groups_survive_the_disk(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    with pytest.raises(RunError, match="should exist"):
        folder.groups()
    folder.save_groups(groups(3), groups(3), np.array([-1, 0, 1]))
    assert not folder.finished
    folder.save_result({"seconds": 1.0})
    assert folder.finished
    assert folder.result == {"seconds": 1.0}
    for found in folder.groups():
        assert_equal(columns(found), columns(groups(3)))
    (folder.path / "groups.parquet").write_bytes(b"x" * 99)
    with pytest.raises(RunError, match="is damaged"):
        folder.groups()


def test_a_repair_and_the_audit_of_its_model_know_each_other(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    assert folder.audit is None
    other = AuditRun.create(run.path.parents[1], "after", CONFIG, PRINTS)
    assert origin_of(other.path) is None
    folder.link(other.path)
    assert folder.audit == other.id
    assert origin_of(other.path) == Origin(run.id, "fix")
    assert AuditRun(other.path).id == other.id  # nothing else of it has changed


def test_test_images_and_answers_survive_the_disk(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    assert folder.images() is folder.answers() is None
    images, answers = ImageSet("/", np.array(["a.png"]), [1], [[4, 5]], ("x", "y")), np.array([[1], [0]])
    folder.save_images(images)
    folder.save_answers(*answers)
    found, said = folder.images(), folder.answers()
    assert found is not None
    assert said is not None
    assert_equal(columns(found), columns(images))
    assert said.tolist() == answers.tolist()
    (folder.path / "answers.npy").write_bytes(b"x")
    with pytest.raises(RunError, match="is damaged"):
        folder.answers()


def test_a_card_is_replaced_whole(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    folder.save_model(lambda path: path.mkdir())
    folder.save_card("one")
    folder.save_card("two")
    assert [path.name for path in folder.model.iterdir()] == ["README.md"]
    assert (folder.model / "README.md").read_text() == "two"


def test_an_assignment_is_taken_once(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})
    first = Assignment(np.array([0, 1]), np.array([-1, 3, 0]), np.array([2, -1]))
    assert_equal(columns(folder.assignment("train", lambda: first)), columns(first))
    other = Assignment(np.zeros(0), np.zeros(0), np.zeros(0))
    assert_equal(columns(folder.assignment("train", lambda: other)), columns(first))
    assert_equal(columns(folder.assignment("test", lambda: other)), columns(other))


def test_a_model_appears_whole(run: AuditRun) -> None:
    folder = run.mitigation("fix")
    folder.begin({})

    def save(path: Path, text: str, fail: bool = False) -> None:
        path.mkdir()
        (path / "weights").write_text(text)
        if fail:
            raise OSError(errno.ENOSPC, "full")

    folder.save_model(lambda path: save(path, "one"))
    with pytest.raises(RunError, match="the disk is full"):
        folder.save_model(lambda path: save(path, "two", fail=True))
    assert (folder.model / "weights").read_text() == "one"
    folder.save_model(lambda path: save(path, "three"))
    assert (folder.model / "weights").read_text() == "three"


def test_the_store_does_not_load_torch(python: Callable[..., str]) -> None:
    assert python("import sys, ravl.store; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize(
    ("chosen", "method", "encoder", "layer"),
    [
        ("auto", "hdbscan", "tokens", "middle"),
        ("auto", "hdbscan", "roi", "middle"),
        ("auto", "hdbscan", "crop", "final"),
        ("auto", "kmedoids", "crop", "middle"),
        ("middle", "hdbscan", "crop", "middle"),
        ("final", "hdbscan", "tokens", "final"),
    ],
)
def test_which_layer_is_clustered(tmp_path: Path, chosen: str, method: str, encoder: str, layer: str) -> None:
    config = replace(CONFIG, clustering=ClusteringConfig(method=method, cluster_on=chosen))
    run = AuditRun.create(tmp_path, "layers", config, PRINTS)
    assert run.clustered_on == ("final" if chosen == "final" else "middle")  # before the regions were encoded
    run.note_encoder(encoder, "it was asked for")
    assert AuditRun(run.path).clustered_on == layer
