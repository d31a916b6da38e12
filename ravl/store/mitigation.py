"""A fine-tuning on disk: settings, log, checkpoint, tuned model and the comparison."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ravl.errors import ConfigError, RunError
from ravl.store.files import (
    FILES,
    disk_error,
    load_npz,
    locked,
    read_json,
    reading,
    save_array,
    save_npz,
    write_json,
    writing,
)
from ravl.tables import Assignment, GroupAccuracy, ImageSet, columns


@dataclass(frozen=True)
class Origin:
    """Where an audited model comes from: the run whose model was fine-tuned, and the name of the fine-tuning."""

    run: str
    mitigation: str


def origin_of(run: Path) -> Origin | None:
    """What an audit's origin.json says; None for an audit of a model that no fine-tuning of this workspace made."""
    path = run / "origin.json"
    return Origin(**read_json(path)) if path.exists() else None


class MitigationFolder:
    """One fine-tuning on disk: config.json, log.jsonl, checkpoint/, model/, groups.parquet, result.json, audit.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.model = path / "model"
        self.checkpoint = path / "checkpoint"

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        return (self.path / "groups.parquet").exists() and (self.path / "result.json").exists()

    @property
    def about(self) -> dict[str, Any]:
        """config.json: created, run, settings, fingerprints of training and test data."""
        return read_json(self.path / "config.json")  # type: ignore[no-any-return]

    def begin(self, about: dict[str, Any]) -> None:
        """Write config.json once. A folder begun with other settings is refused with ConfigError.

        regions: {feature: digest} of the features that have other regions than those they came with. Folders of older
        versions do not tell; they hold for features that kept their regions.
        """
        about = json.loads(json.dumps(about))  # tuples become lists, as in the file
        if self.exists:
            saved = {"regions": {}, **self.about}
            changed = [key for key in about if key != "created" and saved.get(key) != about[key]]
            if changed:
                raise ConfigError(
                    f"--name must be new when settings change, but {self.name!r} exists with another "
                    f"{', '.join(_spelled(changed, saved, about))}. Choose another --name."
                )
            return
        write_json(
            self.path / "config.json", {"created": datetime.now(UTC).isoformat(timespec="milliseconds"), **about}
        )

    def link(self, audit: Path) -> None:
        """Note which run audits the tuned model: audit.json here, and origin.json in that run's folder."""
        write_json(audit / "origin.json", {"run": self.path.parents[1].name, "mitigation": self.name})
        write_json(self.path / "audit.json", {"run": audit.name})

    @property
    def audit(self) -> str | None:
        """The run that audits the tuned model; None before it is finished."""
        path = self.path / "audit.json"
        return str(read_json(path)["run"]) if path.exists() else None

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for writing; a second process is refused with RunError."""
        return locked(self.path / "run.lock", self.name)

    def save_model(self, save: Callable[[Path], None]) -> None:
        """Write the tuned model's directory, whole or not at all."""
        partial = self.model.with_name("model.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            save(partial)
            shutil.rmtree(self.model, ignore_errors=True)
            os.replace(partial, self.model)
        except OSError as error:
            raise disk_error(error, self.model) from error

    def assignment(self, images: str, compute: Callable[[], Assignment]) -> Assignment:
        """Load what the audited model says about a set of images (`train` or `test`), or compute and keep it."""
        path = self.path / f"assignment-{images}.npz"
        if not path.exists():
            with writing(path) as partial:
                save_npz(partial, compute())
        with reading(path):
            return load_npz(Assignment)(path)  # type: ignore[no-any-return]

    def array(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Load an array of this fine-tuning, or compute and keep it."""
        path = self.path / f"{name}.npy"
        if not path.exists():
            with writing(path) as partial:
                save_array(partial, compute())
        with reading(path):
            return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]

    def log(self) -> list[dict[str, float]]:
        """Lines of log.jsonl: step, loss parts and, at evaluations, worst_group and overall; no torn one at the end."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(lines) - 1:
                    raise RunError(
                        f"{path} is damaged in line {number + 1}. Delete the folder and run again."
                    ) from None
        return rows

    def write_log(self, rows: list[dict[str, float]]) -> None:
        """Replace the log (on resume: what was logged after the checkpoint is dropped)."""
        with writing(self.path / "log.jsonl") as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def append_log(self, row: dict[str, float]) -> None:
        try:
            with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise disk_error(error, self.path / "log.jsonl") from error

    def save_card(self, text: str) -> None:
        """Replace the model card of the tuned model."""
        with writing(self.model / "README.md") as partial:
            partial.write_text(text, encoding="utf-8")

    def save_groups(self, before: GroupAccuracy, after: GroupAccuracy, changed: NDArray[np.int32]) -> None:
        """Keep accuracies before and after, and per test image -1 (became wrong), 0 (same) or 1 (became right)."""
        table = pd.concat([pd.DataFrame(columns(g)).assign(when=w) for w, g in (("before", before), ("after", after))])
        with writing(self.path / "changed.npy") as partial:
            save_array(partial, changed)
        with writing(self.path / "groups.parquet") as partial:
            table.to_parquet(partial, index=False)

    def groups(self) -> tuple[GroupAccuracy, GroupAccuracy]:
        """Group accuracies before and after."""

        def record(part: pd.DataFrame) -> GroupAccuracy:
            return GroupAccuracy(
                **{
                    f.name: part[f.name].to_numpy(str if f.name in ("name", "kind") else None)
                    for f in fields(GroupAccuracy)
                }
            )

        path = self.path / "groups.parquet"
        with reading(path):
            table = pd.read_parquet(path)
            return record(table[table["when"] == "before"]), record(table[table["when"] == "after"])

    def save_answers(self, before: NDArray[np.integer[Any]], after: NDArray[np.integer[Any]]) -> None:
        """Keep the class that the audited and the tuned model give to every test image."""
        with writing(self.path / "answers.npy") as partial:
            save_array(partial, np.stack([before, after]).astype(np.int16))

    def answers(self) -> NDArray[np.int16] | None:
        """(2, I) classes of the test images before and after; None in a folder of an older version."""
        path = self.path / "answers.npy"
        if not path.exists():
            return None
        with reading(path):
            return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]

    def save_images(self, images: ImageSet) -> None:
        """Keep the list of the test images, so that those that changed can be shown."""
        with writing(self.path / "test-images.parquet") as partial:
            FILES["images"].save(partial, images)

    def images(self) -> ImageSet | None:
        """The test images; None in a folder of an older version."""
        path = self.path / "test-images.parquet"
        if not path.exists():
            return None
        with reading(path):
            return FILES["images"].load(path)  # type: ignore[no-any-return]

    def save_result(self, result: dict[str, Any]) -> None:
        """Write result.json: the document that `ravl mitigate --json` prints. With groups.parquet, it ends the repair.

        The audit of the tuned model follows, and adds its part (`reaudit`).
        """
        write_json(self.path / "result.json", result)

    @property
    def result(self) -> dict[str, Any]:
        return read_json(self.path / "result.json")  # type: ignore[no-any-return]


def _spelled(changed: list[str], saved: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Names of settings that changed; of the fingerprints, the contents that did."""
    changed = ["set of regions of its features" if key == "regions" else key for key in changed]
    if "fingerprints" not in changed:
        return changed
    before, now = saved.get("fingerprints", {}), about["fingerprints"]
    words = {"train": "content of the training images", "test": "content of the test images", "model": "model"}
    differ = [words.get(name, name) for name in now if before.get(name) != now[name]]
    return [key for key in changed if key != "fingerprints"] + differ
