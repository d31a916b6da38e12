"""`mitigate`: the paper's second half, in order. Features are found in the training images with the audited model,
the model is fine-tuned away from them, and both models are compared on images that neither has seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import EmbeddingConfig, MitigationConfig
from ravl.data import load_images, read_images, with_coco
from ravl.discovery.clustering import assign
from ravl.discovery.embedding import encode_all, patch_counts, region_encoder
from ravl.discovery.regions import decompose
from ravl.discovery.scoring import best_for_class
from ravl.ledger import Ledger
from ravl.mitigation.comparison import Answers, TestSet, Treated, accuracies, document, shown
from ravl.store import AuditRun, MitigationFolder
from ravl.tables import NOISE, Assignment, Families, ImageSet, Regions, Report
from ravl.vlm.transformers_clip import TransformersClip

if TYPE_CHECKING:
    from ravl.mitigation.batches import TrainingSet


@dataclass(frozen=True)
class Seen:
    """Images as the audited model sees them. region_class: (R,) int, the class it would give every region."""

    images: ImageSet
    regions: Regions
    found: Assignment
    region_class: NDArray[np.integer[Any]]


def mitigate(
    run: AuditRun,
    vlm: TransformersClip,
    train_path: Path,
    test_path: Path | None,
    features: dict[int, str],
    config: MitigationConfig,
    folder: MitigationFolder,
    report: Report,
) -> dict[str, Any]:
    """Fine-tune the audited model away from `features` (id -> name); return the comparison (see `ravl.api.mitigate`).

    Raises ModelError when `vlm` is not the model that was audited; ConfigError when `folder` was begun with other
    settings, or with images of another content; DataError for unusable images.
    """
    from ravl.mitigation.training import ValidationSet, train

    begun = time.perf_counter()
    run.check_model(vlm.name, vlm.fingerprint, vlm.preprocessing)
    data = _read(run, train_path, report)
    images = run.images() if test_path is None else _read(run, test_path, report)
    fingerprints = {"train": data.fingerprint, "test": images.fingerprint, "model": vlm.fingerprint}
    folder.begin(
        {
            "run": run.id,
            "config": config.to_dict(),
            "features": {str(feature): name for feature, name in features.items()},
            "train": str(train_path),
            "test": str(test_path or ""),
            "fingerprints": fingerprints,
        }
    )
    with folder.locked():
        if folder.finished:
            return folder.result
        embedding = audited_encoder(run, vlm)
        look = partial(_look, run, vlm, embedding, folder, report)
        seen = look("train", data, "assignment", treated(run.families(), config))
        audited = _audited(run)
        tested = audited if test_path is None else look("test", images, "before")
        training = _training_set(run, seen, features, embedding)
        present = shown(audited.regions, audited.found.feature, *features)
        validation = ValidationSet(audited.images, present, run.config.embedding.batch_size)
        best_step = train(vlm, training, validation, run.class_vectors(), config, folder, report)
        folder.save_model(vlm.save)
        changed = _compare(run, vlm, tested, features, embedding, folder, report)
        folder.save_result(
            {
                "run": run.id,
                "name": folder.name,
                "method": config.method,
                "compared_on": str(test_path or "the audited images, which also chose the checkpoint"),
                "fingerprints": {**fingerprints, "tuned_model": vlm.fingerprint},
                "n_spurious_training_regions": int(training.spurious.sum()),
                "best_step": best_step,
                **changed,
                "seconds": round(time.perf_counter() - begun, 2),
                "model": str(folder.model),
            }
        )
    return folder.result


def _read(run: AuditRun, path: Path, report: Report) -> ImageSet:
    """New images; where they have no boxes of their own, the audit's COCO file may hold them too."""
    images = read_images(path, run.images().class_names, run.config.max_unreadable, report)
    if images.box is None and run.config.regions.file:
        return with_coco(images, run.config.regions.file, run.config.max_unreadable)
    return images


# --- what the audited model says -------------------------------------------------------------------------------------


def audited_encoder(run: AuditRun, vlm: TransformersClip) -> EmbeddingConfig:
    """The audit's settings with the encoder that it really used: vectors of another one could not be compared."""
    config = run.config.embedding
    return replace(config, encoder=region_encoder(vlm, run.images(), run.regions(), config))


def cut(run: AuditRun, vlm: TransformersClip, images: ImageSet, embedding: EmbeddingConfig, report: Report) -> Regions:
    """The regions of new images, cut as the audited ones; with the encoder tokens those that hold a patch."""
    regions = decompose(images, vlm.view(images.size), run.config.regions, partial(load_images, images), report)
    return regions.kept(patch_counts(vlm, images, regions) > 0) if embedding.encoder == "tokens" else regions


def treated(families: Families, config: MitigationConfig) -> NDArray[np.bool_]:
    """(C,) which clusters a training treats. Of a feature of several clusters the paper treats the top one alone."""
    top = config.families == "top" or (config.families == "auto" and config.method == "paper")
    if not top:
        return np.ones(len(families.family), bool)
    first = np.unique(families.family, return_index=True)[1]  # cluster ids fall with the number of regions
    return np.isin(np.arange(len(families.family)), first)


def _look(
    run: AuditRun,
    vlm: TransformersClip,
    embedding: EmbeddingConfig,
    folder: MitigationFolder,
    report: Report,
    name: str,
    images: ImageSet,
    stage: str,
    clusters: NDArray[np.bool_] | None = None,
) -> Seen:
    """What the audited model says about new images: classes, features of their regions, best regions. Kept as `name`.

    Regions get their features by the run's own rule: the nearest medoid in the space that was clustered, else noise.
    clusters: (C,) the clusters that count, None: all; a region of another one belongs to no feature.
    """
    regions, text = cut(run, vlm, images, embedding, report), run.class_vectors()
    encoded = cache(lambda: encode_all(vlm, images, regions, embedding, report, stage))

    def compute() -> Assignment:
        space = encoded().feature if run.config.clustering.cluster_on == "middle" else encoded().region
        label = assign(run.clustering(), space, regions.position)
        if clusters is not None:
            label = np.where(np.append(clusters, False)[label], label, NOISE)  # the last entry stands for noise
        return Assignment(
            predicted=(encoded().image @ text.T).argmax(1).astype(np.int16),
            feature=run.families().features_of(label),
            best=best_for_class(regions, encoded().region @ text.T, images.label).astype(np.int32),
        )

    found = folder.assignment(name, compute)
    said = folder.array(f"region-class-{name}", lambda: (encoded().region @ text.T).argmax(1).astype(np.int16))
    return Seen(images, regions, found, said)


def _audited(run: AuditRun) -> Seen:
    """The audited images, which need no new pass."""
    images, regions, zero_shot = run.images(), run.regions(), run.zero_shot()
    best = best_for_class(regions, np.asarray(zero_shot.region), images.label)
    found = Assignment(zero_shot.predicted.astype(np.int16), run.feature_label(), best.astype(np.int32))
    return Seen(images, regions, found, zero_shot.region.argmax(1))


# --- training and comparison -----------------------------------------------------------------------------------------


def _training_set(run: AuditRun, seen: Seen, features: dict[int, str], embedding: EmbeddingConfig) -> TrainingSet:
    from ravl.mitigation.batches import TrainingSet, captions_of

    return TrainingSet(
        images=seen.images,
        regions=seen.regions,
        spurious=np.isin(seen.found.feature, list(features)),
        keep=seen.found.best,
        caption=captions_of(seen.images, run.config.prompts.templates),
        encoder=embedding.encoder,
        context=embedding.context,
    )


def _compare(
    run: AuditRun,
    vlm: TransformersClip,
    tested: Seen,
    features: dict[int, str],
    embedding: EmbeddingConfig,
    folder: MitigationFolder,
    report: Report,
) -> dict[str, Any]:
    """Classify the test images again with the tuned model; keep what changed, and return it as a document."""
    text = run.class_vectors()
    encoded = encode_all(vlm, tested.images, tested.regions, embedding, report, "after")
    after = Answers((encoded.image @ text.T).argmax(1), (encoded.region @ text.T).argmax(1))
    before = Answers(tested.found.predicted, tested.region_class)
    test = TestSet(tested.images, tested.regions, tested.found.feature, _about(run, features))
    label = tested.images.label
    changed = (after.image == label).astype(np.int32) - (before.image == label)
    folder.save_groups(accuracies(test, before.image), accuracies(test, after.image), changed)
    return document(test, before, after)


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
