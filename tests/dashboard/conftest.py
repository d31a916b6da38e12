"""A small, consistent run folder with drawn images, so that every page can be tested without a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dashboard.serving import jobs
from dashboard.serving.readiness import Machine, Probe
from ravl.config import AuditConfig, EvidenceConfig, MitigationConfig, PromptsConfig, ScoringConfig
from ravl.discovery.evidence import never_shown, weigh
from ravl.discovery.families import merge
from ravl.discovery.scoring import score_features
from ravl.discovery.significance import significance
from ravl.ledger import Job, Ledger, seen_digest
from ravl.mitigation.comparison import Answers, TestSet, Treated, accuracies, rate
from ravl.mitigation.comparison import document as comparison_document
from ravl.mitigation.rematch import About, Audited, rematch
from ravl.mitigation.rematch import document as rematched
from ravl.store import AuditRun, list_runs
from ravl.tables import (
    NOISE,
    Agreement,
    Clustering,
    Counterfactuals,
    Exemplars,
    Families,
    GroupAccuracy,
    ImageSet,
    Regions,
    ZeroShot,
)

CLASSES = ("cat", "dog *", "eel")
"""The second name holds a character that Markdown would swallow."""

PER_CLASS, SIDE = 20, 48
PULL = 2  # a red square makes the made-up model answer "eel"


def draw_images(folder: Path) -> ImageSet:
    """60 pictures: a grey shape top left, and in some a red square bottom right."""
    files, labels = [], []
    for y, name in enumerate(("cat", "dog", "eel")):
        (folder / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            picture = Image.new("RGB", (SIDE, SIDE), (20 + 4 * i, 40, 60))
            pen = ImageDraw.Draw(picture)
            [pen.ellipse, pen.rectangle, pen.line][y]((4, 4, 19, 19), fill=(200, 200, 200))
            if has_mark(y, i):
                pen.rectangle((30, 30, 42, 42), fill=(220, 20, 20))
            picture.save(folder / name / f"{i:02d}.png")
            files.append(f"{name}/{i:02d}.png")
            labels.append(y)
    size = np.full((len(files), 2), SIDE)
    skipped = (("cat/broken.png", "cannot be decoded"),)
    return ImageSet(str(folder), np.array(files), np.array(labels), size, CLASSES, skipped=skipped, fingerprint="feed")


def has_mark(label: int, i: int) -> bool:
    """12 of the pull class, 12 of the first and 3 of the second class show the mark."""
    return i < (12, 3, 12)[label]


def make_regions(images: ImageSet) -> Regions:
    half = SIDE // 2
    boxes = [(x, y, x + half, y + half) for y in (0, half) for x in (0, half)]
    n = len(images)
    return Regions(np.repeat(np.arange(n), 4), np.tile(boxes, (n, 1)), np.tile(np.arange(4), n), n)


def make_zero_shot(images: ImageSet) -> ZeroShot:
    """Every image with the mark is called "eel", and its last region says so loudest.

    Of the others, the last dog is called "eel" too, the last two eels "cat", and the rest is right: 42 of 60.
    """
    n = len(images)
    region = np.full((n, 4, 3), 1 / 3)
    image = np.full((n, 3), 0.1)
    for i, label in enumerate(images.label):
        called = PULL if has_mark(int(label), i % PER_CLASS) else {39: 2, 58: 0, 59: 0}.get(i, int(label))
        image[i, called] = 0.8
        region[i, 0] = np.eye(3)[label] * 0.4 + 0.2
        if has_mark(int(label), i % PER_CLASS):
            region[i, 3] = np.eye(3)[PULL] * 0.7 + 0.1
    return ZeroShot(image, region.reshape(-1, 3), images.label)


def make_clustering(images: ImageSet, extra: int = 0) -> Clustering:
    """Feature 0: the shapes (first region); 1: the mark; 2: some top right corners; the rest is noise.

    extra: this many more features, each the bottom left corners of five images (of fewer, where there are many).
    """
    label = np.full((len(images), 4), -1)
    label[:, 0] = 0
    for i, y in enumerate(images.label):
        if has_mark(int(y), i % PER_CLASS):
            label[i, 3] = 1
    label[:10, 1] = 2
    each = max(1, min(5, len(images) // max(extra, 1)))
    label[: each * extra, 2] = 3 + np.arange(each * extra) // each
    label = label.ravel()
    medoid = [int(np.flatnonzero(label == c)[0]) for c in range(3 + extra)]
    vectors = np.eye(3 + extra, 4)
    zeros = np.zeros((1, 4))
    low = np.full(3 + extra, 0.5)
    return Clustering(label, (label >= 0) * 0.9, medoid, zeros, np.zeros(4), np.eye(4), vectors, low)


def nothing(clustering: Clustering) -> Clustering:
    """The same regions, all of them noise."""
    none = {name: getattr(clustering, name)[:0] for name in ("medoid", "medoid_vector", "min_similarity")}
    return replace(clustering, label=np.full(len(clustering.label), -1), strength=0 * clustering.strength, **none)


def make_exemplars(regions: Regions, clustering: Clustering, zero_shot: ZeroShot) -> Exemplars:
    """Up to 6 a feature, wrong images first."""
    rows: list[tuple[int, int, int, int, float]] = []
    for feature in range(clustering.n_clusters):
        members = np.flatnonzero(clustering.label == feature)
        wrong = ~zero_shot.correct[regions.image[members]]
        for place, region in enumerate(members[np.argsort(~wrong, kind="stable")][:6]):
            image = int(regions.image[region])
            against = (
                int(zero_shot.predicted[image])
                if not zero_shot.correct[image]
                else (int(zero_shot.label[image]) + 1) % 3
            )
            rows.append((feature, int(region), image, against, 3.0 - place))
    columns = np.array(rows, float).reshape(-1, 5).T
    feature, region, image, against = columns[:4].astype(int)
    contribution = columns[4]
    return Exemplars(feature, region, image, against, contribution, contribution, contribution + 0.5)


OPERATORS = ("token_drop", "mean_fill", "inpaint")


def make_counterfactuals(
    regions: Regions, clustering: Clustering, zero_shot: ZeroShot, features: tuple[int, ...] = (1, 2)
) -> Counterfactuals:
    """Without the mark cats and dogs are right but one dog (inpainting leaves one cat wrong too), and three eels wrong.

    Removing another piece helps one cat. Removing feature 2 changes nothing. The mark was pasted into five dogs, and
    turned three into eels.
    """
    rows, after, control = [], [], []
    for feature in features:
        for image in np.unique(regions.image[clustering.label == feature]).tolist():
            label, called, i = int(zero_shot.label[image]), int(zero_shot.predicted[image]), image % PER_CLASS
            rows.append((feature, image))
            answer = np.full(3, called)
            if feature == 1:
                answer = np.full(3, {22: PULL, 49: 0, 50: 0, 51: 0}.get(image, label))
                answer[2] = PULL if image == 0 else answer[2]
            after.append(answer)
            instead = label if feature == 1 and (label, i) == (0, 5) else called
            control.append(np.full(3, -1 if called == label else instead))
    columns = np.array(rows, int).reshape(-1, 2)
    shape = (len(rows), 3)
    pasted = np.array([23, 24, 25, 26, 27]) if 1 in features else np.zeros(0, int)
    return Counterfactuals(
        OPERATORS,
        *columns.T,
        np.array(after, int).reshape(shape),
        np.array(control, int).reshape(shape),
        *(np.full(len(pasted), 1), pasted, np.full(len(pasted), 3), 4 * pasted + 1),
        np.array([PULL, PULL, PULL, 1, 1])[: len(pasted)],
    )


def make_run(
    workspace: Path,
    images_at: Path,
    name: str = "small",
    until: str = "projection",
    classes: tuple[str, ...] = CLASSES,
    tested: tuple[int, ...] = (1, 2),
    rule: str = "evidence",
    extra: int = 0,
    noise: bool = False,
    model: str = "demo",
) -> AuditRun:
    """Write the run, up to and including the stage `until`. tested: the features that are removed. noise: find none."""
    images = draw_images(images_at) if not images_at.exists() else _labelled(images_at)
    images = replace(images, class_names=classes)
    config = AuditConfig(
        str(images_at),
        model,
        prompts=PromptsConfig(CLASSES),
        scoring=ScoringConfig(0.25, True),
        evidence=EvidenceConfig(rule=rule, max_shortfall=0.6),  # eight images are few to compare with
    )
    run = AuditRun.create(workspace, name, config, {"data": "feed", "model": "beef", "preprocessing": "cafe"})
    regions, zero_shot, clustering = make_regions(images), make_zero_shot(images), make_clustering(images, extra)
    clustering = nothing(clustering) if noise else clustering
    n = clustering.n_clusters
    families = Families(np.arange(n), [""] * n)
    label = families.features_of(clustering.label)
    scores = score_features(regions, zero_shot, label, n, config.scoring)
    chance = significance(scores, regions, zero_shot, label, config.significance, config.seed)
    found = make_counterfactuals(regions, clustering, zero_shot, tested)
    alpha = config.significance.alpha
    stages: dict[str, Callable[[], object]] = {
        "images": lambda: images,
        "regions": lambda: regions,
        "embeddings": lambda: None,
        "zero_shot": lambda: zero_shot,
        "clusters": lambda: clustering,
        "families": lambda: families,
        "features": lambda: scores,
        "significance": lambda: chance,
        "exemplars": lambda: make_exemplars(regions, clustering, zero_shot),
        "counterfactuals": lambda: found,
        "evidence": lambda: weigh(
            found,
            scores,
            chance,
            zero_shot,
            never_shown(scores, regions, zero_shot, label, label),
            config.evidence,
            alpha,
        ),
        "agreement": lambda: Agreement(40, 0.91, 0.85, 0.8),
        "projection": lambda: make_map(clustering),
    }
    for stage, compute in stages.items():
        if stage == "embeddings":
            _embed(run, len(images), len(regions))
        else:
            run.stage(stage, compute)
        if stage == until:
            break
    return run


def merged(run: AuditRun, features: list[int]) -> None:
    """Merge features of a run, as another tab does; the made one is not removed as a test."""
    families, revised = merge(run.families(), features), run.revised(run.families())
    regions, zero_shot, label = run.regions(), run.zero_shot(), families.features_of(run.clustering().label)
    scores = score_features(regions, zero_shot, label, families.n_features, run.config.scoring)
    chance = significance(scores, regions, zero_shot, label, run.config.significance, run.config.seed)
    found = make_counterfactuals(regions, run.clustering(), zero_shot, ())
    never = never_shown(scores, regions, zero_shot, label, label)
    old = run.exemplars()
    stages: dict[str, object] = {
        "families": families,
        "features": scores,
        "significance": chance,
        "exemplars": replace(
            old, feature=np.where(np.isin(old.feature, features), families.n_features - 1, old.feature)
        ),
        "counterfactuals": found,
        "evidence": weigh(found, scores, chance, zero_shot, never, run.config.evidence, run.config.significance.alpha),
    }
    for stage, record in stages.items():
        revised.stage(stage, partial(_same, record))
    run.adopt(revised)


def _same(record: object) -> object:
    return record


def _labelled(folder: Path) -> ImageSet:
    files = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.png"))
    labels = [("cat", "dog", "eel").index(file.split("/")[0]) for file in files]
    size = np.full((len(files), 2), SIDE)
    return ImageSet(str(folder), np.array(files), np.array(labels), size, CLASSES, fingerprint="feed")


def _embed(run: AuditRun, n_images: int, n_regions: int) -> None:
    shapes = {"image_embeddings": (n_images, 4), "region_embeddings": (n_regions, 4), "region_features": (n_regions, 4)}

    def blocks(start: int) -> Iterator[tuple[int, dict[str, tuple[int, np.ndarray]]]]:
        yield n_images, {name: (0, np.ones(shape, np.float32)) for name, shape in shapes.items()}

    run.embed(shapes, blocks)


def make_map(clustering: Clustering) -> np.ndarray:
    """Each feature in a corner of its own: feature f within 1 of (10 f, 10 f), noise around (-10, -10)."""
    rng = np.random.default_rng(0)
    center = np.where(clustering.label < 0, -10, 10 * clustering.label)
    return (center[:, None] + rng.uniform(-1, 1, (len(center), 2))).astype(np.float32)


def make_mitigation(run: AuditRun, name: str = "ravl", finished: bool = True, audited: bool = True) -> None:
    """A fine-tuning with a log and, when finished, a comparison on the audited images, in which one group falls.

    Of the twelve cats with the mark eleven become right, of the twelve eels with it two become wrong, and both eels
    that were called cat become right. audited: and an audit of the tuned model, in which feature 2 grew.
    """
    folder = run.mitigation(name)
    config = MitigationConfig(features=(1,), steps=20, batch_size=8).to_dict()
    folder.begin({"run": run.id, "config": config, "features": {"1": "red square"}, "train": "/train", "test": ""})
    rows = [
        {"step": float(step), "total": 3.0 - step / 10, "contrastive": 2.0, "relevant": 1.0, "spurious": 0.5}
        for step in range(20)
    ]
    for row in rows[9::10]:
        row |= {"overall": 0.6 + row["step"] / 100, "worst_group": 0.2 + row["step"] / 40}
    folder.write_log(rows)
    if not finished:
        return
    images, zero_shot, regions = run.images(), run.zero_shot(), run.regions()
    test = TestSet(images, regions, run.feature_label(), {1: Treated("red *square*", PULL, "spurious", "Ada")})
    after = zero_shot.predicted.copy()
    after[:11], after[[40, 41]], after[58:] = 0, 1, 2
    before = Answers(zero_shot.predicted, zero_shot.region.argmax(1))
    now = Answers(after, zero_shot.label[regions.image])
    document = comparison_document(test, before, now)
    changed = (after == images.label).astype(np.int32) - zero_shot.correct
    folder.save_images(images)
    folder.save_answers(before.image, now.image)
    folder.save_groups(accuracies(test, before.image), accuracies(test, now.image), changed)
    folder.save_result(
        {
            **{"run": run.id, "name": name, "method": "ravl", "compared_on": "/data/test", "best_step": 20},
            **{"fingerprints": {"tuned_model": "cafe"}, **document, "seconds": 1.0, "model": str(folder.model)},
            **({"reaudit": make_second_audit(run)} if audited else {}),
        }
    )


def make_second_audit(run: AuditRun) -> dict[str, Any]:
    """Of the tuned model: feature 1 is smaller but still flagged, 2 grew, and feature 0 of this audit is gone."""
    label, zero_shot = run.feature_label(), run.zero_shot()
    deciding = np.arange(len(zero_shot.label)) * 4 + 3
    wrong = ~zero_shot.correct
    now = np.zeros_like(wrong)
    now[[*range(3), *range(20, 30)]] = True
    then = deciding.copy()
    then[20:30] -= 2
    grown = np.where(np.isin(np.arange(len(label)) // 4, range(20, 30)) & (np.arange(len(label)) % 4 == 1), 2, label)
    second = np.where(grown == 0, NOISE, grown)
    told = {f: About(("", "eel", "dog *")[f], f == 1, "undecided", (14, 15) if f == 1 else None) for f in range(3)}
    before, after = Audited(label, wrong, deciding, told), Audited(second, now, then, told)
    rows = rematch(run.regions(), before, after)
    return {
        **{"run": "small-after-ravl-x", "revisions": [0, 0], "flagged": {"before": 1, "after": 1}},
        "accuracy": {"before": rate(42, 60), "after": rate(47, 60)},
        "features": rematched(rows, before, after, {1: "red *square*"}, [1]),
    }


BEFORE = (42, 8, 16, 18, 0, 8, 12, 12, 30)
AFTER = (55, 19, 17, 19, 11, 8, 10, 24, 31)
"""Right images of each group before and after: of the groups, one gains eleven and one loses two."""


def make_groups(*right: tuple[int, ...]) -> list[GroupAccuracy]:
    names = ["all images", *CLASSES, "cat with feature 1", "cat without feature 1", "eel with feature 1"]
    names += ["with feature 1", "without feature 1"]
    kinds = ["overall", *["class"] * 3, *["group"] * 3, *["feature"] * 2]
    n = [60, 20, 20, 20, 12, 8, 12, 27, 33]
    index, feature, present = [-1, 0, 1, 2, 0, 0, 2, -1, -1], [-1] * 4 + [1] * 5, [-1] * 4 + [1, 0, 1, 1, 0]
    return [GroupAccuracy(np.array(names), np.array(kinds), index, feature, present, n, r) for r in right]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The device is known at once: no process is asked for it."""
    found = Machine("cpu", "", 8_000_000_000, 16_000_000_000)
    monkeypatch.setattr(Probe, "_ask", lambda probe, workspace: setattr(probe, "machine", found))
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one finished run, made once."""
    root = tmp_path_factory.mktemp("template")
    make_run(root / "workspace", root / "images")
    return root


@pytest.fixture
def workspace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change; the pages find it through RAVL_WORKSPACE."""
    shutil.copytree(template / "workspace", tmp_path / "workspace")
    monkeypatch.setenv("RAVL_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def run(workspace: Path) -> AuditRun:
    [only] = list_runs(workspace)
    return only


@pytest.fixture
def book(workspace: Path) -> Iterator[Ledger]:
    ledger = Ledger(workspace)
    yield ledger
    ledger.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Jobs are added to the ledger, but no process is spawned; returns the arguments of each."""
    asked: list[list[str]] = []

    def start(
        ledger: Ledger,
        workspace: Path,
        kind: str,
        title: str,
        arguments: list[str],
        run: str = "",
        device: str = "local",
    ) -> Job:
        asked.append(arguments)
        return ledger.add_job(kind, title, arguments, device, run)

    monkeypatch.setattr(jobs, "start", start)
    return asked


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAVL_WORKSPACE", str(tmp_path / "new"))
    return tmp_path / "new"


@pytest.fixture
def confirm(run: AuditRun, book: Ledger) -> Callable[[], None]:
    def add() -> None:
        seen = seen_digest(np.flatnonzero(run.feature_label() == 1))
        book.add_verdict(run.id, 1, "eel", "spurious", "Ada", seen, "red square", "not an eel")

    return add
