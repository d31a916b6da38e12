"""An audit on disk: its folder, its stages and its configuration, which never changes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ravl import __version__
from ravl.config import AuditConfig, digest
from ravl.errors import ConfigError, ModelError, RunError
from ravl.store.files import FILES, locked, read_json, reading, write_json, writing
from ravl.store.filling import EMBEDDINGS, Blocks, fill
from ravl.store.mitigation import MitigationFolder
from ravl.store.workspace import check_name, open_workspace
from ravl.tables import (
    Agreement,
    Clustering,
    Counterfactuals,
    Evidence,
    Exemplars,
    Families,
    FeatureScores,
    ImageSet,
    Regions,
    Significance,
    ZeroShot,
    columns,
)

SCHEMA_VERSION = 2
STAGES = (
    *("images", "regions", "embeddings", "zero_shot", "clusters", "families", "features", "significance"),
    *("exemplars", "counterfactuals", "evidence", "agreement", "projection"),
)
"""The stages of an audit, in order."""

REVISED = ("families", "features", "significance", "exemplars", "counterfactuals", "evidence")
"""The stages that are computed anew when a person merges, splits or makes features."""

_HEADER_BYTES = 128  # of a .npy file

_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "hdbscan", "umap-learn")


class AuditRun:
    """One audit on disk. Reading a stage that is not finished raises RunError; `has` asks first."""

    def __init__(self, path: Path | str) -> None:
        """Open an existing run folder. Raises RunError for a newer schema or a damaged folder."""
        self.path = Path(path)
        about = read_json(self.path / "run.json")
        self.id: str = self.path.name
        try:
            if about["schema_version"] > SCHEMA_VERSION:
                raise RunError(
                    f"{self.id} has schema version {about['schema_version']}, but this ravl reads up to "
                    f"{SCHEMA_VERSION}. Open it with ravl-dashboard {about['packages']['ravl-dashboard']} or newer."
                )
            if about["schema_version"] < SCHEMA_VERSION:
                raise RunError(
                    f"{self.id} has schema version {about['schema_version']}, but this ravl reads {SCHEMA_VERSION}. "
                    f"Open it with ravl-dashboard {about['packages']['ravl-dashboard']}, or audit again."
                )
            self.name: str = about["name"]
            self.created: str = about["created"]
            self.revision: int = about.get("revision", 0)
            self.config = AuditConfig.from_dict(about["config"])
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunError(
                f"{self.path / 'run.json'} does not describe a run ({error}). Delete the folder and audit again."
            ) from error

    # --- creating and finding -----------------------------------------------------------------------------------

    @classmethod
    def create(cls, workspace: Path, name: str, config: AuditConfig, fingerprints: dict[str, str]) -> AuditRun:
        """The run of this name, configuration and content: an existing one is continued, else a new one is made.

        fingerprints: content digests of `data`, `model` and `preprocessing`; they are part of the run's identity.
        Raises ConfigError for a name that cannot be part of a folder's.
        """
        check_name(name)
        tag = digest({"config": config.to_dict(), "fingerprints": fingerprints})
        runs = open_workspace(workspace) / "runs"
        with locked(
            runs / ".lock", "the workspace", wait=True
        ):  # of two processes that begin the same audit, one makes the folder
            for folder in sorted(path.parent for path in runs.glob(f"*-{tag}/run.json")):
                found = _try_open(folder)
                if isinstance(found, AuditRun) and found.name == name:
                    return found
            begun = datetime.now(UTC)
            folder = runs / f"{name}-{begun:%Y%m%dT%H%M%SZ}-{tag}"
            about = {
                "schema_version": SCHEMA_VERSION,
                "name": name,
                "created": begun.isoformat(timespec="milliseconds"),
                "packages": {"ravl-dashboard": __version__, **{package: _version(package) for package in _PACKAGES}},
                "config": config.to_dict(),
                "fingerprints": fingerprints,
                "stages": {},
            }
            write_json(folder / "run.json", about)
        return cls(folder)

    @classmethod
    def find(cls, workspace: Path | str, name: str) -> AuditRun:
        """Open a run by its folder, its id, or a beginning of its id that fits one run only (the newest of one name).

        Raises ConfigError that lists what there is.
        """
        if name and os.path.exists(os.path.join(name, "run.json")):
            return cls(Path(name).resolve())
        runs = list_runs(workspace)
        exact = [run for run in runs if name in (run.id, run.name)]
        if exact:
            return exact[0]
        fitting = [run for run in runs if name and run.id.startswith(name)]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(run.id for run in runs[:8]) or "none yet; make one with ravl discover"
        found = "fits several" if fitting else "is none of them"
        raise ConfigError(f"--run must name a run of the workspace {workspace}, but {name!r} {found}. Runs: {known}.")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a second process is refused with RunError. The lock dies with its process.

        From then on this object reads the revision that holds, whatever it was when the run was opened: a change that
        began from an older one would take back what others have changed since.
        """
        with locked(self.path / "run.lock", self.id):
            self.revision = self.about.get("revision", 0)
            yield

    # --- stages -------------------------------------------------------------------------------------------------

    def has(self, stage: str) -> bool:
        """Whether a stage is finished."""
        if stage == "embeddings":
            return all((self.path / f"{name}.npy").exists() for name in EMBEDDINGS)
        return self._file(stage).exists()

    def _file(self, stage: str) -> Path:
        """Where a stage's record is: those in REVISED in the folder of the revision that holds, if there is one.

        Clusters are those of the last revision that has some: only making a feature changes them.
        """
        name = FILES[stage].name
        if stage == "clusters":
            numbers = (number for number in range(self.revision, 0, -1) if (self._revision(number) / name).exists())
            return self._revision(next(numbers, 0)) / name
        return self._revision(self.revision if stage in REVISED else 0) / name

    def _revision(self, number: int) -> Path:
        """The folder of a revision; 0 is the audit itself."""
        return self.path / "revisions" / f"{number:03d}" if number else self.path

    @property
    def finished(self) -> bool:
        return all(self.has(stage) for stage in STAGES)

    def load(self, stage: str) -> Any:
        """Read a finished stage. Raises RunError when it is not finished or damaged."""
        file, path = FILES[stage], self._file(stage)
        if not path.exists():
            raise RunError(
                f"{self.id} has not finished the stage {stage!r} yet. Run the same ravl discover command again."
            )
        with reading(path):
            return file.load(path)

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """Load the stage if it is finished; else compute it, save it whole, and note how long it took."""
        if self.has(name):
            return self.load(name)
        start = time.perf_counter()
        record = compute()
        with writing(self._file(name)) as partial:
            FILES[name].save(partial, record)
        self._note_seconds(name, time.perf_counter() - start)
        return self.load(name)

    def embed(self, shapes: dict[str, tuple[int, int]], blocks: Blocks) -> None:
        """Fill the embedding arrays block by block (see `ravl.store.filling.fill`)."""
        if not self.has("embeddings"):
            self._note_seconds("embeddings", fill(self.path, shapes, blocks))

    def _note_seconds(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage, which a second look or a person's change computes again."""
        about = read_json(self.path / "run.json")
        before = about["stages"].get(stage, {"seconds": 0.0})["seconds"]
        about["stages"][stage] = {"seconds": round(before + seconds, 3)}
        write_json(self.path / "run.json", about)

    def note_encoder(self, encoder: str, why: str) -> None:
        """Keep how regions became vectors, and one sentence why."""
        about = read_json(self.path / "run.json")
        if about.get("encoder") != (note := {"name": encoder, "why": why}):
            write_json(self.path / "run.json", {**about, "encoder": note})

    # --- revisions ----------------------------------------------------------------------------------------------

    def at(self, revision: int) -> AuditRun:
        """This run as it was, or will be, at another revision."""
        other = AuditRun(self.path)
        other.revision = revision
        return other

    def revised(self, families: Families, clusters: Clustering | None = None) -> AuditRun:
        """This run as it will be with other families: their stages are computed into a folder of their own.

        clusters: where regions were grouped anew too. A revision that was begun with the same families and clusters and
        did not end is continued; another one is begun anew.
        """
        other = self.at(self.revision + 1)
        folder = other._revision(other.revision)
        own = folder / FILES["clusters"].name
        same = own.exists() == (clusters is not None)
        if same and clusters is not None:
            same = not columns_differ(other.clustering(), clusters)
        if same and other.has("families"):
            same = not columns_differ(other.families(), families)
        if folder.exists() and not same:
            shutil.rmtree(folder)
        if clusters is not None and not own.exists():
            with writing(own) as partial:
                FILES["clusters"].save(partial, clusters)
        return other

    def adopt(self, revised: AuditRun, n_divided: int = 0) -> None:
        """Let the run point to a revision whose stages are all finished. n_divided: features that the audit itself
        divided (see `ravl.discovery.dividing`); 0: a person asked for the revision."""
        if missing := [stage for stage in REVISED if not revised.has(stage)]:
            raise RunError(f"{self.id} cannot take revision {revised.revision}: {missing[0]} is not finished.")
        note = {"n_divided": n_divided} if n_divided else {}
        write_json(self.path / "run.json", {**self.about, "revision": revised.revision, **note})
        self.revision = revised.revision

    def check_model(self, name: str, fingerprint: str, preprocessing: str) -> None:
        """Raise ModelError unless a model is the one that was audited."""
        audited = self.about["fingerprints"]
        if audited["model"] != fingerprint or audited["preprocessing"] != preprocessing:
            raise ModelError(
                f"the model must be the one that was audited, but {name} has changed since {self.id}. "
                "Audit it again first."
            )

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def about(self) -> dict[str, Any]:
        """run.json: schema version, packages, full configuration, fingerprints, seconds per stage."""
        return read_json(self.path / "run.json")  # type: ignore[no-any-return]

    def images(self) -> ImageSet:
        return self.load("images")  # type: ignore[no-any-return]

    def regions(self) -> Regions:
        return self.load("regions")  # type: ignore[no-any-return]

    def zero_shot(self) -> ZeroShot:
        return self.load("zero_shot")  # type: ignore[no-any-return]

    def clustering(self) -> Clustering:
        return self.load("clusters")  # type: ignore[no-any-return]

    def features(self) -> FeatureScores:
        return self.load("features")  # type: ignore[no-any-return]

    def families(self) -> Families:
        return self.load("families")  # type: ignore[no-any-return]

    def feature_label(self) -> NDArray[np.int32]:
        """(R,) feature id of every region, NOISE for none: its cluster's family."""
        return self.families().features_of(self.clustering().label)

    def significance(self) -> Significance:
        return self.load("significance")  # type: ignore[no-any-return]

    def counterfactuals(self) -> Counterfactuals:
        return self.load("counterfactuals")  # type: ignore[no-any-return]

    def evidence(self) -> Evidence:
        return self.load("evidence")  # type: ignore[no-any-return]

    def agreement(self) -> Agreement:
        return self.load("agreement")  # type: ignore[no-any-return]

    def exemplars(self) -> Exemplars:
        return self.load("exemplars")  # type: ignore[no-any-return]

    def projection(self) -> NDArray[np.float32]:
        """(R, 2) float32 map coordinates."""
        return self.load("projection")  # type: ignore[no-any-return]

    def class_vectors(self) -> NDArray[np.float32]:
        """(Y, D) float32 unit text vectors of the classes."""
        return self.load("text")  # type: ignore[no-any-return]

    def array(self, name: str) -> NDArray[np.float16]:
        """One of EMBEDDINGS as a read-only memory map of float16 rows."""
        path = self.path / f"{name}.npy"
        if not path.exists():
            raise RunError(
                f"{self.id} has not finished the stage 'embeddings' yet. Run the same ravl discover command again."
            )
        with reading(path):
            # an array without rows has nothing to map
            mode: Literal["r"] | None = "r" if path.stat().st_size > _HEADER_BYTES else None
            return np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[no-any-return]

    @property
    def clustered_on(self) -> str:
        """`middle` or `final`: the layer whose vectors are clustered.

        By default a middle one, but HDBSCAN takes the final one of regions that were cut out: a crop is an image of its
        own, so that its embedding sums up what it shows, while single tokens of it show as much of what surrounds a
        mark. K-Medoids, which puts every region somewhere, joins a mark there with the class that it pulls to.
        """
        settings = self.config.clustering
        if settings.cluster_on != "auto":
            return settings.cluster_on
        cut_out = self.about.get("encoder", {}).get("name") == "crop"
        return "final" if cut_out and settings.method == "hdbscan" else "middle"

    def space(self) -> NDArray[np.float16]:
        """(R, M) the vectors that were clustered: middle-layer features, or the final embeddings."""
        return self.array("region_features" if self.clustered_on == "middle" else "region_embeddings")

    # --- mitigation ---------------------------------------------------------------------------------------------

    def mitigations(self) -> list[MitigationFolder]:
        """Fine-tunings of this run, newest first."""
        folders = [MitigationFolder(path.parent) for path in self.path.glob("mitigation/*/config.json")]
        return sorted(folders, key=lambda folder: folder.about["created"], reverse=True)

    def mitigation(self, name: str) -> MitigationFolder:
        """The folder of one fine-tuning; nothing is created. Raises ConfigError for what is no folder's name."""
        check_name(name)
        return MitigationFolder(self.path / "mitigation" / name)


def list_runs(workspace: Path | str) -> list[AuditRun]:
    """All runs of a workspace, newest first. Damaged folders are left out (see `damaged_runs`)."""
    runs = [run for run in map(_try_open, _run_folders(workspace)) if isinstance(run, AuditRun)]
    return sorted(runs, key=lambda run: (run.created, run.id), reverse=True)


def damaged_runs(workspace: Path | str) -> list[tuple[str, str]]:
    """(folder name, reason) of run folders that cannot be opened, also of those without a run.json."""
    folders = sorted(_runs(workspace).glob("*/"))  # the trailing slash: folders only
    opened = [(folder.name, _try_open(folder)) for folder in folders]
    return [(name, str(error)) for name, error in opened if isinstance(error, RunError)]


def _run_folders(workspace: Path | str) -> list[Path]:
    return [path.parent for path in _runs(workspace).glob("*/run.json")]


def _runs(workspace: Path | str) -> Path:
    return Path(workspace).expanduser().resolve() / "runs"


def _try_open(folder: Path) -> AuditRun | RunError:
    try:
        return AuditRun(folder)
    except RunError as error:
        return error


def columns_differ(one: Any, other: Any) -> bool:
    """Whether two records of one kind hold different arrays."""
    pairs = zip(columns(one).values(), columns(other).values(), strict=True)
    return not all(np.array_equal(a, b) for a, b in pairs)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
