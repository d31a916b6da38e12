"""`mitigate`: the paper's second half, in order. Features are found in the training images with the audited model,
the model is fine-tuned away from them, and both models are compared on images that neither has seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import PROPOSERS, EmbeddingConfig, MitigationConfig
from ravl.data import Reading, load_images, read_images, with_coco
from ravl.discovery.clustering import assign
from ravl.discovery.embedding import encode, patch_counts, region_encoder
from ravl.discovery.regions import decompose
from ravl.discovery.scoring import best_for_class, highest
from ravl.errors import ConfigError
from ravl.ledger import Ledger, seen_digest
from ravl.mitigation.baselines import METHODS, Method, inferred_groups, project_out, top_only, treated, true_groups
from ravl.mitigation.card import model_card
from ravl.mitigation.comparison import Answers, TestSet, Treated, accuracies, document, shown
from ravl.mitigation.processes import Processes, together
from ravl.store import AuditRun, MitigationFolder, workspace_key
from ravl.tables import NOISE, Assignment, ImageSet, Regions, Report, quiet
from ravl.vlm.differentiable import LearningModel
from ravl.vlm.interface import Encoded

__all__ = [
    "Seen",
    "audited_encoder",
    "audited_images",
    "change",
    "cut",
    "digests",
    "look",
    "mitigate",
    "needs_features",
    "regions_since",
    "together",
]

if TYPE_CHECKING:
    from ravl.mitigation.training import TrainingSet, ValidationSet


@dataclass(frozen=True)
class Seen:
    """Images as the audited model sees them. region_class: (R,) int, the class it would give every region."""

    images: ImageSet
    regions: Regions
    found: Assignment
    region_class: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class _Task:
    """What stays the same from the first to the last step of one fine-tuning. features: id -> name."""

    run: AuditRun
    vlm: LearningModel
    features: dict[int, str]
    config: MitigationConfig
    folder: MitigationFolder
    report: Report
    processes: Processes = Processes()

    @cached_property
    def embedding(self) -> EmbeddingConfig:
        return audited_encoder(self.run, self.vlm)

    @cached_property
    def text(self) -> NDArray[np.float32]:
        return self.run.class_vectors()

    @property
    def method(self) -> Method:
        return METHODS[self.config.method]

    def shows(self, seen: Seen) -> NDArray[np.bool_]:
        """(I,) whether an image shows any of the features."""
        return shown(seen.regions, seen.found.feature, *self.features)


def mitigate(
    run: AuditRun,
    vlm: LearningModel,
    train_path: Path,
    test_path: Path | None,
    features: dict[int, str],
    config: MitigationConfig,
    folder: MitigationFolder,
    report: Report,
    processes: Processes = Processes(),
) -> dict[str, Any]:
    """Fine-tune the audited model away from `features` (id -> name); return the comparison (see `ravl.api.mitigate`).

    Of several processes only the first writes and compares; the others return an empty document.
    Raises ModelError when `vlm` is not the model that was audited; ConfigError when `folder` was begun with other
    settings, for other regions of the features, or with images of another content; DataError for unusable images.
    """
    from ravl.mitigation.training import captions_of

    begun = time.perf_counter()
    task = _Task(run, vlm, features, config, folder, report, processes)
    run.check_model(vlm.name, vlm.fingerprint, vlm.preprocessing)
    data = _read(run, train_path, report, "keep")
    if not task.method.held_out:
        captions_of(data, run.config.prompts.templates)  # refuses before anything is computed
    images = run.images() if test_path is None else _read(run, test_path, report, "leave out")
    fingerprints = {"train": data.fingerprint, "test": images.fingerprint, "model": vlm.fingerprint}
    where = {"train": str(train_path), "test": str(test_path or ""), "fingerprints": fingerprints}
    if processes.first:
        names = {str(feature): name for feature, name in features.items()}
        regions = regions_since(run, features)
        folder.begin({"run": run.id, "config": config.to_dict(), "features": names, "regions": regions, **where})
    processes.wait()
    with folder.locked() if processes.first else nullcontext():
        if folder.finished:
            return folder.result if processes.first else {}
        audited = audited_images(run)
        tested = audited
        if test_path is not None and processes.first:
            tested = _look(task, "test", images, "before")
        trained = _train(task, data, audited)
        if not processes.first:
            return {}
        result = {
            **{"run": run.id, "name": folder.name, "method": config.method},
            "compared_on": str(test_path or f"the audited images, {_use(task.method)}"),
            "fingerprints": {**fingerprints, "tuned_model": vlm.fingerprint},
            **trained,
            **_compare(task, tested),
            "seconds": round(time.perf_counter() - begun, 2),
            "model": str(folder.model),
        }
        folder.save_model(partial(_save, run, vlm, result))
        folder.save_result(result)  # the audit of the tuned model (`ravl.reaudit`) adds its part
    return folder.result


def _read(run: AuditRun, path: Path, report: Report, unlabelled: str) -> ImageSet:
    """New images; where they have no boxes of their own, the audit's COCO file may hold them too.

    unlabelled: what happens to images whose caption names no class or several (see `ravl.data.readers.Reading`).
    """
    reading = Reading.of(run.config, workspace_key(run.path.parents[1]), unlabelled)
    images = read_images(path, run.images().class_names, run.config.max_unreadable, report, reading)
    if images.box is None and run.config.regions.kind == "boxes" and run.config.regions.file:
        return with_coco(images, run.config.regions.file, run.config.max_unreadable)
    return images


# --- which regions ---------------------------------------------------------------------------------------------------


def digests(run: AuditRun, features: Iterable[int]) -> dict[int, str]:
    """Digest of the regions that each feature has now, as decisions are kept with it (see `ravl.ledger`)."""
    label = run.feature_label()
    return {feature: seen_digest(np.flatnonzero(label == feature)) for feature in features}


def regions_since(run: AuditRun, features: Iterable[int]) -> dict[str, str]:
    """{feature: digest} of the features whose regions are not those that they came with.

    Who makes a feature takes regions from others, which keep their ids: a repair of these is another one from then on.
    Features that kept their regions are left out, so that their repairs are found under the names they always had.
    """
    now = digests(run, features)
    first: dict[int, str] = {}
    for number in range(1 if run.about.get("n_divided") else 0, run.revision + 1):  # what was divided had other ids
        then = run.at(number)
        existing = set(then.features().existing.tolist())
        first = digests(then, (f for f in now if f in existing and f not in first)) | first
    return {str(feature): digest for feature, digest in now.items() if digest != first[feature]}


# --- what the audited model says -------------------------------------------------------------------------------------


def audited_encoder(run: AuditRun, vlm: LearningModel) -> EmbeddingConfig:
    """The audit's settings with the encoder that it really used: vectors of another one could not be compared."""
    config = run.config.embedding
    return replace(config, encoder=region_encoder(vlm, run.images(), run.regions(), config))


def cut(run: AuditRun, vlm: LearningModel, images: ImageSet, embedding: EmbeddingConfig, report: Report) -> Regions:
    """The regions of new images, cut as the audited ones; but with the encoder crop those that hold a patch."""
    proposer = None
    if run.config.regions.kind in PROPOSERS:
        from ravl.vlm.proposals import load

        proposer = load(run.config.regions, str(vlm.device))
    view, images_of = vlm.view(images.size), partial(load_images, images)
    regions = decompose(images, view, run.config.regions, images_of, report, proposer)
    return regions.kept(patch_counts(vlm, images, regions) > 0) if embedding.encoder != "crop" else regions


def _look(task: _Task, name: str, images: ImageSet, stage: str, clusters: NDArray[np.bool_] | None = None) -> Seen:
    """What the audited model says about new images: classes, features of their regions, best regions. Kept as `name`.

    Regions get their features by the run's own rule: the nearest medoid in the space that was clustered, else noise.
    clusters: (C,) the clusters that count, None: all; a region of another one belongs to no feature.
    """
    run, text = task.run, task.text
    regions = cut(run, task.vlm, images, task.embedding, task.report)

    @cache
    def compute() -> tuple[Assignment, NDArray[np.int16]]:
        clustering, middle = run.clustering(), run.clustered_on == "middle"
        predicted, said = np.zeros(len(images), np.int16), np.zeros(len(regions), np.int16)
        label, own = np.full(len(regions), NOISE, np.int32), np.zeros(len(regions), np.float32)
        for some, rows, vectors in _encoded(task, images, regions, stage):
            label[rows] = assign(clustering, vectors.feature if middle else vectors.region, regions.position[rows])
            predicted[some] = (vectors.image @ text.T).argmax(1)
            score = vectors.region @ text.T
            said[rows] = score.argmax(1)
            known = np.where(images.label[some] >= 0, images.label[some], predicted[some])  # a caption may name none
            own[rows] = score[np.arange(len(score)), known[regions.image[rows] - some.start]]
        if clusters is not None:
            label = np.where(np.append(clusters, False)[label], label, NOISE)  # the last entry stands for noise
        feature = run.families().features_of(label)
        return Assignment(predicted, feature, highest(regions, own).astype(np.int32)), said

    found = task.folder.assignment(name, lambda: compute()[0])
    return Seen(images, regions, found, task.folder.array(f"region-class-{name}", lambda: compute()[1]))


def _encoded(task: _Task, images: ImageSet, regions: Regions, stage: str) -> Iterator[tuple[slice, slice, Encoded]]:
    """Images and their regions as vectors, block by block, with the images and the regions of the block.

    What is wanted of them has to be taken at once: all vectors of a large set would not fit into memory.
    """
    for done, vectors in encode(task.vlm, images, regions, task.embedding, 0, task.report, stage):
        first = done - len(vectors.image)
        yield slice(first, done), slice(int(regions.starts[first]), int(regions.starts[done])), vectors


def audited_images(run: AuditRun) -> Seen:
    """The audited images, which need no new pass."""
    images, regions, zero_shot = run.images(), run.regions(), run.zero_shot()
    best = best_for_class(regions, np.asarray(zero_shot.region), images.label)
    found = Assignment(zero_shot.predicted.astype(np.int16), run.feature_label(), best.astype(np.int32))
    return Seen(images, regions, found, zero_shot.region.argmax(1))


# --- the same in steps, for those who compare methods on one audit ----------------------------------------------------


def look(run: AuditRun, vlm: LearningModel, images: ImageSet, folder: MitigationFolder, top: bool) -> Seen:
    """What the audited model says about new images, kept in `folder`. top: as methods see them that treat the largest
    cluster of a feature alone."""
    task = _Task(run, vlm, {}, MitigationConfig(), folder, quiet)
    return _look(task, "train", images, "assignment", treated(run.families(), top))


def change(
    run: AuditRun,
    vlm: LearningModel,
    seen: Seen,
    audited: Seen,
    features: dict[int, str],
    config: MitigationConfig,
    folder: MitigationFolder,
    report: Report = quiet,
) -> dict[str, Any]:
    """Change a model in place so that it no longer relies on `features` (id -> name), as `mitigate` does, which also
    looks at the images and compares.

    seen, audited: the training and the audited images. Returns best_step (None where nothing is learned by steps) and
    n_spurious_training_regions. Raises ConfigError when a method's true groups are missing.
    """
    return _change(_Task(run, vlm, features, config, folder, report), seen, audited)


# --- training and comparison -----------------------------------------------------------------------------------------


def needs_features(method: str) -> bool:
    """Whether a method cannot do without a confirmed feature."""
    return METHODS[method].needs_features


def _use(method: Method) -> str:
    """What the audited images were used for, so that they are no independent test."""
    if not method.learns:
        return "which also gave the direction"
    return "half of which it learned from" if method.held_out else "which also chose the checkpoint"


def _train(task: _Task, data: ImageSet, audited: Seen) -> dict[str, Any]:
    """Change the model. Returns what the document says about it: best_step, n_spurious_training_regions."""
    clusters = treated(task.run.families(), top_only(task.config))
    if not task.processes.first:
        task.processes.wait()  # the first keeps what the others load
    seen = _look(task, "train", data, "assignment", clusters)
    if task.processes.first:
        task.processes.wait()
    return _change(task, seen, audited)


def _change(task: _Task, seen: Seen, audited: Seen) -> dict[str, Any]:
    """The same, once the audited model has looked at the training images."""
    from ravl.mitigation.training import train

    training, validation = _sets(task, seen, audited)
    best_step = None
    if task.method.learns:
        best_step = train(
            task.vlm, training, validation, task.text, task.config, task.folder, task.report, task.processes
        )
    else:
        feature = audited.found.feature
        own = np.where(np.isin(feature, list(task.features)), feature, NOISE)
        project_out(task.vlm, task.run.array("region_embeddings"), own)
    labelled = int(np.count_nonzero(seen.images.label >= 0))
    return {
        "n_spurious_training_regions": int(training.spurious.sum()),
        "labels": {"count": labelled, "n": len(seen.images)},
        "best_step": best_step,
    }


def _sets(task: _Task, seen: Seen, audited: Seen) -> tuple[TrainingSet, ValidationSet]:
    """What is learned from, and what chooses the step: the training and the audited images, or halves of the latter.

    Raises ConfigError when true groups are asked for, and the training images have none.
    """
    from ravl.mitigation.training import TrainingSet, ValidationSet, captions_of

    if task.method.true_groups and not seen.images.groups:
        raise ConfigError(
            f"the training images of {task.config.method} must have group columns, got none. Give a manifest with the "
            "columns image_path, label and one more, or choose another --method."
        )
    learned, held = seen, audited
    if task.method.held_out:
        order = np.random.default_rng([task.config.seed, 3]).permutation(len(audited.images))
        learned, held = (_part(audited, np.sort(half)) for half in (order[::2], order[1::2]))
    images, size = learned.images, task.run.config.embedding.batch_size
    training = TrainingSet(
        images=images,
        regions=learned.regions,
        spurious=np.isin(learned.found.feature, list(task.features)),
        keep=learned.found.best,
        caption=captions_of(images, task.run.config.prompts.templates),
        encoder=task.embedding.encoder,
        context=task.embedding.context,
        group=true_groups(images) if task.method.true_groups else inferred_groups(images, task.shows(learned)),
        wrong=(learned.found.predicted != images.label) & (images.label >= 0),
    )
    return training, ValidationSet(held.images, task.shows(held), size)


def _part(seen: Seen, rows: NDArray[np.integer[Any]]) -> Seen:
    """Some of the images, `rows` rising, with their regions."""
    images, regions = seen.images, seen.regions
    keep = np.isin(regions.image, rows)
    left = regions.kept(keep)
    part = replace(
        images,
        file=images.file[rows],
        label=images.label[rows],
        size=images.size[rows],
        caption=None if images.caption is None else images.caption[rows],
        groups={name: values[rows] for name, values in images.groups.items()},
        digest=None if images.digest is None else images.digest[rows],
        headers={name: values[rows] for name, values in images.headers.items()},
        box_image=None,
        box=None,
    )
    number = np.append(np.cumsum(keep) - 1, -1)  # of a region among those that are left; the last entry: no region
    best = number[seen.found.best[rows]].astype(np.int32)
    found = Assignment(seen.found.predicted[rows], seen.found.feature[keep], best)
    image = np.searchsorted(rows, left.image).astype(np.int32)
    return Seen(part, replace(left, image=image, n_images=len(rows)), found, seen.region_class[keep])


def _compare(task: _Task, tested: Seen) -> dict[str, Any]:
    """Classify the test images again with the tuned model; keep what changed, and return it as a document."""
    image, region = np.zeros(len(tested.images), np.int64), np.zeros(len(tested.regions), np.int64)
    for some, rows, vectors in _encoded(task, tested.images, tested.regions, "after"):
        image[some] = (vectors.image @ task.text.T).argmax(1)
        region[rows] = (vectors.region @ task.text.T).argmax(1)
    after = Answers(image, region)
    before = Answers(tested.found.predicted, tested.region_class)
    test = TestSet(tested.images, tested.regions, tested.found.feature, _about(task.run, task.features))
    label = tested.images.label
    changed = (after.image == label).astype(np.int32) - (before.image == label)
    task.folder.save_images(tested.images)
    task.folder.save_answers(before.image, after.image)
    task.folder.save_groups(accuracies(test, before.image), accuracies(test, after.image), changed)
    return document(test, before, after)


def _save(run: AuditRun, vlm: LearningModel, result: dict[str, Any], path: Path) -> None:
    """The model's own format, with a model card."""
    vlm.save(path)
    card = model_card(run.config.model, run.images().class_names, run.config.prompts.templates, result)
    (path / "README.md").write_text(card, encoding="utf-8")


def _about(run: AuditRun, features: dict[int, str]) -> dict[int, Treated]:
    """The treated features with what people decided about them; a name given here holds, else the decision's."""
    scores = run.features()
    ledger = Ledger(run.path.parents[1])
    verdicts = ledger.verdicts(run.id)
    ledger.close()
    about = {}
    for feature, name in features.items():
        pull, verdict = int(scores.pull_class[scores.row_of(feature)]), verdicts.get(feature)
        about[feature] = (
            Treated(name, pull)
            if verdict is None
            else Treated(name or verdict.name, pull, verdict.decision, verdict.reviewer)
        )
    return about
