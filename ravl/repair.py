"""`mitigate`: the paper's second half, in order. Features are found in the training images with the audited model,
the model is fine-tuned away from them, and both models are compared on images that neither has seen.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import EmbeddingConfig, MitigationConfig
from ravl.data import load_images, read_images, with_coco
from ravl.discovery.clustering import assign
from ravl.discovery.embedding import encode_all, patch_counts, region_encoder
from ravl.discovery.regions import decompose
from ravl.discovery.scoring import best_for_class
from ravl.evaluation import as_document, group_accuracy
from ravl.store import AuditRun, MitigationFolder
from ravl.tables import Assignment, ImageSet, Regions, Report
from ravl.vlm.transformers_clip import TransformersClip


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
    settings; DataError for unusable images.
    """
    from ravl.mitigation.training import TrainingSet, ValidationSet, captions_of, predict, train

    begun = time.perf_counter()
    run.check_model(vlm.name, vlm.fingerprint, vlm.preprocessing)
    classes = run.images().class_names
    data = _read(run, train_path, report)
    test = run.images() if test_path is None else _read(run, test_path, report)
    folder.begin(
        {
            "run": run.id,
            "config": config.to_dict(),
            "features": {str(feature): name for feature, name in features.items()},
            "train": str(train_path),
            "test": str(test_path or ""),
            "fingerprints": {"train": data.fingerprint, "test": test.fingerprint, "model": vlm.fingerprint},
        }
    )
    with folder.locked():
        if folder.finished:
            return folder.result
        text = run.class_vectors()
        embedding = audited_encoder(run, vlm)
        regions = cut(run, vlm, data, embedding, report)
        found = folder.assignment(
            "train", lambda: assign_features(run, vlm, data, regions, embedding, text, report, "assignment")
        )
        test_regions = run.regions() if test_path is None else cut(run, vlm, test, embedding, report)
        before = (
            _audited(run, test)
            if test_path is None
            else folder.assignment(
                "test", lambda: assign_features(run, vlm, test, test_regions, embedding, text, report, "before")
            )
        )
        training = TrainingSet(
            images=data,
            regions=regions,
            spurious=np.isin(found.feature, list(features)),
            keep=found.best,
            caption=captions_of(data, run.config.prompts.templates),
            encoder=embedding.encoder,
            context=embedding.context,
        )
        audited = run.images()
        shown = _present(run.regions(), run.feature_label(), list(features))
        validation = ValidationSet(audited, shown, run.config.embedding.batch_size)
        best_step = train(vlm, training, validation, text, config, folder, report)
        folder.save_model(vlm.save)

        after = predict(vlm, test, text, run.config.embedding.batch_size, report, "after")
        present = {feature: _present(test_regions, before.feature, [feature]) for feature in features}
        groups = [
            group_accuracy(predicted, test.label, classes, present, features, test.groups)
            for predicted in (before.predicted, after)
        ]
        changed = (after == test.label).astype(np.int32) - (before.predicted == test.label)
        folder.save_groups(groups[0], groups[1], changed)
        folder.save_result(
            {
                "run": run.id,
                "name": folder.name,
                "method": config.method,
                "features": sorted(features),
                "compared_on": str(test_path or "the audited images, which also chose the checkpoint"),
                "n_spurious_training_regions": int(training.spurious.sum()),
                "best_step": best_step,
                "before": as_document(groups[0]),
                "after": as_document(groups[1]),
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


def audited_encoder(run: AuditRun, vlm: TransformersClip) -> EmbeddingConfig:
    """The audit's settings with the encoder that it really used: vectors of another one could not be compared."""
    config = run.config.embedding
    return replace(config, encoder=region_encoder(vlm, run.images(), run.regions(), config))


def cut(run: AuditRun, vlm: TransformersClip, images: ImageSet, embedding: EmbeddingConfig, report: Report) -> Regions:
    """The regions of new images, cut as the audited ones; with the encoder tokens those that hold a patch."""
    regions = decompose(images, vlm.view(images.size), run.config.regions, partial(load_images, images), report)
    return regions.kept(patch_counts(vlm, images, regions) > 0) if embedding.encoder == "tokens" else regions


def assign_features(
    run: AuditRun,
    vlm: TransformersClip,
    images: ImageSet,
    regions: Regions,
    embedding: EmbeddingConfig,
    text: NDArray[np.float32],
    report: Report,
    stage: str,
) -> Assignment:
    """What the audited model says about new images: classes, features of their regions, best regions.

    Regions get their features by the run's own rule: the nearest medoid in the space that was clustered, else noise.
    """
    encoded = encode_all(vlm, images, regions, embedding, report, stage)
    space = encoded.feature if run.config.clustering.cluster_on == "middle" else encoded.region
    return Assignment(
        predicted=(encoded.image @ text.T).argmax(1).astype(np.int16),
        feature=run.families().features_of(assign(run.clustering(), space, regions.position)),
        best=best_for_class(regions, encoded.region @ text.T, images.label).astype(np.int32),
    )


def _audited(run: AuditRun, test: ImageSet) -> Assignment:
    """The audited model on the audited images, which need no new pass."""
    zero_shot = run.zero_shot()
    best = best_for_class(run.regions(), np.asarray(zero_shot.region), test.label)
    return Assignment(zero_shot.predicted.astype(np.int16), run.feature_label(), best.astype(np.int32))


def _present(regions: Regions, feature: NDArray[np.int32], chosen: list[int]) -> NDArray[np.bool_]:
    """(I,) whether an image has a region of any of the chosen features."""
    present = np.zeros(regions.n_images, bool)
    present[regions.image[np.isin(feature, chosen)]] = True
    return present
