"""What the command line and Python callers share: plain arguments in, a finished run or comparison out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravl.config import (
    NO_MODEL,
    PROPOSERS,
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    MitigationConfig,
    PromptsConfig,
    RegionsConfig,
    SignificanceConfig,
    class_words,
    digest,
)
from ravl.errors import ConfigError
from ravl.tables import Families, Report, Step, quiet

if TYPE_CHECKING:
    from ravl.store import AuditRun
    from ravl.vlm.model import DualEncoder

WORKSPACE = "ravl-workspace"
"""Where audits are kept unless another folder is given."""


def discover(
    images: str | Path | None = None,
    model: str | Path | None = None,
    *,
    embeddings: str | Path | None = None,
    text_embeddings: str | Path | None = None,
    classes: Sequence[str] = (),
    templates: Sequence[str] = ("a photo of {}",),
    tau: float | str = 0.07,
    regions: str = "grid:2",
    encoder: str = "auto",
    clustering: str = "hdbscan",
    cluster_on: str = "auto",
    rule: str = "evidence",
    split_half: bool = False,
    seed: int = 0,
    device: str = "auto",
    workspace: str | Path = WORKSPACE,
    name: str = "audit",
    until: str = "projection",
    frames: str = "refuse",
    hide_names: bool = False,
    report: Report = quiet,
) -> AuditRun:
    """Audit a vision-language model on labelled images and return the finished run.

    images: a folder `class/image`, a CSV or Parquet manifest `image_path,label[,caption]`, or a COCO file; `@split`
    behind it names a split. classes: names, each perhaps with synonyms for captions, `pneumothorax|collapsed lung`.
    model: a `save_pretrained` directory, a hub id, or `demo`.
    embeddings: instead of both, precomputed ones (see `ravl.data.embeddings`), with those of the class names in
    text_embeddings; such an audit has no model, so no feature is ever found to be causal.
    The other arguments are those of `ravl discover --help`.
    until: `evidence` leaves out the map. The same call on the same content continues a run that was interrupted, and
    returns one that is finished.
    Raises RavlError (ConfigError, DataError, ModelError, RunError) with one sentence that says what to do.
    """
    names, synonyms = class_words(tuple(classes))
    _check_inputs(images, model, embeddings)
    config = AuditConfig(
        images=str(Path(embeddings).expanduser().resolve())
        if embeddings
        else _reference(str(images), workspace, report),
        model=str(model),
        regions=RegionsConfig.parse(regions),
        embedding=EmbeddingConfig(encoder=encoder),
        prompts=PromptsConfig(names, tuple(templates), tau, synonyms),
        clustering=ClusteringConfig(method=clustering, cluster_on=cluster_on),
        significance=SignificanceConfig(split_half=split_half),
        evidence=EvidenceConfig(rule=rule),
        seed=seed,
        frames=frames,
        hide_names=hide_names,
    )
    from dataclasses import replace

    from ravl import audit
    from ravl.store import check_name, open_workspace

    check_name(name)
    folder = open_workspace(workspace)  # before the model is loaded: a typing error must not cost a minute
    if embeddings is not None:
        return _given(config, text_embeddings, folder, name, report, until)
    loaded = _loaded(str(model), device, report)
    proposer = None
    if config.regions.kind in PROPOSERS:
        from ravl.vlm import proposals

        proposer = proposals.load(config.regions, device)
    return audit.discover(replace(config, model=loaded.name), loaded, folder, name, report, until, proposer=proposer)


def _check_inputs(images: Any, model: Any, embeddings: Any) -> None:
    """Raise ConfigError unless there are images and a model, or embeddings alone."""
    if (images and model and not embeddings) or (embeddings and not images and not model):
        return
    found = [flag for flag, value in (("--images", images), ("--model", model), ("--embeddings", embeddings)) if value]
    raise ConfigError(
        f"an audit needs --images and --model, or --embeddings alone, got {' and '.join(found) or 'none of them'}."
    )


def _given(
    config: AuditConfig, text: str | Path | None, workspace: Path, name: str, report: Report, until: str
) -> AuditRun:
    """Audit precomputed embeddings."""
    from dataclasses import replace

    from ravl import given
    from ravl.data.embeddings import read_embeddings
    from ravl.store import workspace_key

    if config.prompts.tau == "model":
        raise ConfigError("--tau must be a number where no model is given, got 'model'. Give that of your model.")
    found = read_embeddings(config.images, text, config.prompts.classes, workspace_key(workspace), report)
    # there is no middle layer; what is given is what is clustered
    clustering = replace(config.clustering, cluster_on="final")
    config = replace(config, model=NO_MODEL, clustering=clustering)
    return given.discover(config, found, workspace, name, report, until)


def _reference(images: str | Path, workspace: str | Path, report: Report) -> str:
    """The image set as it is kept in a configuration: absolute, links resolved, with its split.

    One of the Hugging Face library is copied into the workspace first.
    """
    from dataclasses import replace

    from ravl.data.sources import HUB, parse
    from ravl.store import open_workspace

    if str(images).startswith(HUB):
        from ravl.data.hub import copied

        images = copied(str(images), open_workspace(workspace) / "datasets", report)
    source = parse(images)
    return str(replace(source, path=source.path.resolve()))


def check(
    images: str | Path,
    *,
    classes: Sequence[str] = (),
    frames: str = "refuse",
    hide_names: bool = False,
    workspace: str | Path = WORKSPACE,
    max_unreadable: float = 0.05,
    report: Report = quiet,
) -> dict[str, Any]:
    """Read an image set without any model: the document of `ravl check --json` (see `ravl.data.report.describe`)."""
    from ravl.data import Reading, read_images
    from ravl.data.report import describe
    from ravl.store import workspace_key

    names, synonyms = class_words(tuple(classes))
    reading = Reading(frames, workspace_key(workspace), hide_names, synonyms)
    images = _reference(images, workspace, report)
    return describe(read_images(images, names, max_unreadable, report, reading))


def mitigate(
    run: AuditRun,
    images: str | Path,
    *,
    test: str | Path | None = None,
    features: Sequence[int] | None = None,
    method: str = "ravl",
    steps: int = 300,
    batch_size: int = 128,
    lr: float | None = None,
    families: str = "auto",
    patience: int | None = None,
    micro_batch: int | None = None,
    precision: str = "auto",
    region_share: float | None = None,
    gradient_checkpointing: bool = False,
    lora_rank: int | None = None,
    seed: int = 0,
    name: str | None = None,
    reaudit: bool = True,
    device: str = "auto",
    report: Report = quiet,
) -> dict[str, Any]:
    """Fine-tune the audited model so that it no longer relies on spurious features, and compare before with after.

    images: the training set, in the forms that `discover` reads. test: held-out images for the comparison; without it
    the audited images are used, which also choose the checkpoint. features: ids; by default those people confirmed.
    reaudit: also audit the tuned model as the first one was, as a run of its own, and match the features of both; it
    can be made up for later by the same call.
    Returns the document of `ravl mitigate --json`. The same call continues an interrupted fine-tuning. Of several
    processes (`accelerate launch`) all but the first return an empty document.
    Raises RavlError as `discover` does.
    """
    from ravl import given, repair
    from ravl import reaudit as again

    given.check_model(run, "fine-tuning")
    chosen = confirmed_features(run) if features is None else {int(f): "" for f in features}
    config = MitigationConfig(
        method=method,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        families=families,
        patience=patience,
        micro_batch=micro_batch,
        precision=precision,
        region_share=region_share,
        gradient_checkpointing=gradient_checkpointing,
        lora_rank=lora_rank,
        features=tuple(sorted(chosen)),
        seed=seed,
    )
    if not chosen and repair.needs_features(config.method):
        raise ConfigError(
            f"at least one feature must be confirmed as spurious, but {run.id} has none. "
            "Decide with ravl verdict or on the Review page, or give --features."
        )
    if unknown := sorted(set(chosen) - set(run.features().existing.tolist())):
        raise ConfigError(f"--features must be ids of {run.id}, got {unknown[0]}. ravl show lists them.")
    workspace = run.path.parents[1]
    train_path = Path(_reference(images, workspace, report))
    test_path = None if test is None else Path(_reference(test, workspace, report))
    settings: dict[str, Any] = {
        **{"config": config.to_dict(), "train": str(train_path), "test": str(test_path or "")},
        **({"regions": moved} if (moved := repair.regions_since(run, chosen)) else {}),
    }
    label = name or f"{method}-{digest(settings)}"
    folder = run.mitigation(label)
    with repair.together(device) as processes:
        loaded = _loaded(run.config.model, device, report)
        result = repair.mitigate(run, loaded, train_path, test_path, chosen, config, folder, report, processes)
    del loaded  # what is saved is what is audited, and there may be no room for both
    if reaudit and processes.first and not again.is_current(run, folder):
        tuned = _loaded(str(folder.model), device, report)
        result = again.reaudit(run, folder, tuned, report)
    return result


def regroup(
    run: AuditRun,
    kind: str,
    features: Sequence[int],
    reviewer: str,
    *,
    note: str = "",
    identity: str = "self-declared",
    device: str = "auto",
    report: Report = quiet,
) -> AuditRun:
    """Merge features that show the same thing, or split one into its clusters; the run is scored again.

    kind: `merge` (two or more features) or `split` (one). The change is recorded with the reviewer's name and how it
    is known (`identity`, one of `ravl.tables.IDENTITIES`); features that it does not touch keep their ids and verdicts,
    new ones get new ids. Raises RavlError as `discover` does.
    """
    from ravl import audit, given
    from ravl.discovery import families as joining
    from ravl.ledger import Ledger

    ids = sorted({int(f) for f in features})
    known = set(run.features().existing.tolist())
    if unknown := [f for f in ids if f not in known]:
        raise ConfigError(f"a feature must be one of {run.id}, got {unknown[0]}. ravl show lists them.")
    if not reviewer.strip():
        raise ConfigError("--reviewer must be a name, got none. A change is kept together with who made it.")
    if (kind == "merge" and len(ids) < 2) or (kind == "split" and len(ids) != 1):
        raise ConfigError(f"merge takes two features or more, and split takes one, got {len(ids)} to {kind}.")
    if kind == "split" and len(run.families().clusters_of(ids[0])) < 2:
        raise ConfigError(f"feature {ids[0]} is a single cluster, so it cannot be split. Merge others instead.")

    def change(families: Families) -> Families:
        return joining.merge(families, ids) if kind == "merge" else joining.split(families, ids[0])

    if run.config.model == NO_MODEL:
        changed = given.regroup(run, change, report)
    else:
        loaded = _loaded(run.config.model, device, report)
        changed = audit.regroup(run, loaded, change, report)
    before = changed.at(changed.revision - 1).families()  # not as opened: others may have changed the run since
    made = sorted(set(changed.families().family.tolist()) - set(before.family.tolist()))
    ledger = Ledger(run.path.parents[1])
    ledger.add_grouping(run.id, kind, ids, made, reviewer, note, identity)
    ledger.close()
    return changed


def add_feature(
    run: AuditRun,
    regions: Sequence[int],
    name: str,
    reviewer: str,
    *,
    identity: str = "self-declared",
    device: str = "auto",
    report: Report = quiet,
) -> tuple[AuditRun, int]:
    """Make a feature of regions that a person chose; the run is scored again. Returns the run and the feature's id.

    regions: region ids, noise or of any features: these lose them, and keep their ids and verdicts. name: what the new
    feature shows. The change is recorded with the reviewer's name and how it is known, as `regroup` does. Raises
    RavlError as `discover` does.
    """
    import numpy as np

    from ravl import audit, given
    from ravl.discovery.making import check
    from ravl.ledger import Ledger

    for flag, text in (("--name", name), ("--reviewer", reviewer)):
        if not text.strip():
            raise ConfigError(f"{flag} must be a name, got none. A feature is kept together with who made it, and why.")
    given.check_model(run, "making a feature")
    chosen = np.unique(np.asarray(regions, np.int64))
    check(chosen, run.feature_label())  # before the model is loaded
    loaded = _loaded(run.config.model, device, report)
    changed = audit.add_feature(run, loaded, chosen, report)
    [feature] = np.unique(changed.feature_label()[chosen]).tolist()
    before = changed.at(changed.revision - 1).feature_label()  # not as opened: others may have changed the run since
    losing = [int(f) for f in np.unique(before[chosen]) if f >= 0]
    ledger = Ledger(run.path.parents[1])
    ledger.add_grouping(run.id, "select", losing, [feature], reviewer, name, identity)
    ledger.close()
    return changed, feature


def confirmed_features(run: AuditRun) -> dict[int, str]:
    """Ids and names of the features of a run that people hold to be spurious; of those that it still has.

    Raises ConfigError for decisions about other regions than a feature has now, also imported ones: nobody has said
    that what the feature shows today is spurious.
    """
    from ravl.ledger import Ledger
    from ravl.repair import digests

    ledger = Ledger(run.path.parents[1])
    held = ledger.spurious(run.id)
    ledger.close()
    existing = set(run.features().existing.tolist())
    spurious = {feature: verdict for feature, verdict in held.items() if feature in existing}
    now = digests(run, spurious)
    if others := [str(f) for f, verdict in spurious.items() if verdict.seen != now[f]]:
        raise ConfigError(
            f"every decision must be about the regions that its feature has now, but of {run.id} those about feature "
            f"{', '.join(others)} are about other regions, or were taken over from another audit. Review these "
            "features again (ravl verdict, or the Review page), or name with --features the ones to treat all the same."
        )
    return {feature: verdict.name for feature, verdict in spurious.items()}


def _loaded(reference: str, device: str, report: Report) -> DualEncoder:
    """Load a model, which can take a minute, and tell its beginning and its end."""
    from ravl import vlm

    report(Step("model", 0, 1))
    model = vlm.load(reference, device)
    report(Step("model", 1, 1))
    return model
