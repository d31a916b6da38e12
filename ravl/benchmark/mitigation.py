"""`ravl benchmark mitigation`: repair models whose spurious feature is known, by every method, and test them again.

An audit says what is spurious, as for anyone who uses the tool; the planted truth is used for the last test alone, and
by the arms that are called ceilings. Everything is kept in a folder beside the models and scenes that `ravl benchmark
discovery` shares:

    mitigation/rows/, mitigation/errors/   see `ravl.benchmark.running`
    mitigation/settings/<setting>/         its audit, and in arms/ what was measured of each arm

A setting that was interrupted goes on with the arm it was at, unless code or protocol are others now.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ravl.benchmark.arms import AUDITED, OURS, PAPER, WITHOUT, Arm, arms_of
from ravl.benchmark.auditing import (
    Place,
    audit,
    audited_scenes,
    model_of,
    numbers,
    reliance_of,
    scene_of,
    truth_of_regions,
    written,
)
from ravl.benchmark.discovery import audit_of, our_answer
from ravl.benchmark.figures import Truth, figures, mark_of
from ravl.benchmark.provenance import commit
from ravl.benchmark.repairs import Found, Measured, Repair, related, repair_of
from ravl.benchmark.rows import as_json, record_from
from ravl.benchmark.running import Kept, Outcome, Tell, guarded, run_all
from ravl.benchmark.settings import Setting, without
from ravl.config import MitigationConfig, PromptsConfig
from ravl.planted.worlds import WORLDS, Scenes, make, shows
from ravl.store import AuditRun, MitigationFolder, read_json, write_json
from ravl.tables import NOISE, ImageSet

if TYPE_CHECKING:
    from ravl.benchmark.measuring import FinalTest
    from ravl.repair import Seen

PROTOCOL = 2
"""Raised when rows are measured in another way: rows of another protocol are measured again."""

FRESH = 1000
"""Added to a setting's seed for scenes that neither the model's training nor the audit saw."""


@dataclass(frozen=True)
class Protocol:
    """The same for all arms. steps, batch: of the training. train: scenes that are learned from, of the audited model's
    own distribution. test: scenes without correlation of the last test."""

    steps: int = 300
    batch: int = 96
    train: int = 3000
    test: int = 3000


QUICK = Protocol(steps=80, batch=48, train=800, test=600)


@dataclass(frozen=True)
class Plan:
    """Where and how settings are measured. arms: names of those that are; (): all."""

    place: Place
    protocol: Protocol = Protocol()
    arms: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the rows are kept."""
        return self.place.folder / "mitigation"

    @property
    def kept(self) -> Kept:
        """The rows and errors of settings."""
        return Kept(self.folder, PROTOCOL)


def run(
    settings: Sequence[Setting],
    plan: Plan,
    *,
    jobs: int = 1,
    only_train: bool = False,
    fresh: bool = False,
    tell: Tell = print,
) -> Outcome:
    """Measure every setting that is not measured yet, and return the rows of all. The options are discovery's."""
    if fresh and not only_train:
        for setting in settings:
            plan.kept.forget(setting)
            shutil.rmtree(_folder(plan, setting), ignore_errors=True)
    work = partial(attempt, plan=plan, only_train=only_train)
    return run_all(settings, plan.kept, work, jobs, only_train, tell)


def attempt(setting: Setting, plan: Plan, only_train: bool = False) -> str:
    """Train or measure one setting and return a line about it."""

    def work() -> str:
        if only_train:
            models = [model_of(s, plan.place) for s in (setting, without(setting))]
            return "models " + ", ".join(model.name for model in models)
        rows = measure(setting, plan)
        plan.kept.keep(setting, commit(), [as_json(row) for row in rows])
        return _said(rows)

    return guarded(setting, plan.kept, work)


def measure(setting: Setting, plan: Plan) -> list[Repair]:
    """All rows of one setting, arm by arm; those that were measured before are read."""
    folder = _folder(plan, setting)
    state = {"commit": commit(), "protocol": PROTOCOL, **asdict(plan.protocol)}
    if not (folder / "state.json").exists() or read_json(folder / "state.json") != state:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / "state.json", state)
    bench, rows = Bench(setting, plan, folder), []
    for arm in arms_of(setting, plan.arms):
        path = folder / "arms" / f"{arm.file}.json"
        if not path.exists():
            write_json(path, as_json(bench.row(arm)))
        rows.append(record_from(read_json(path), Repair))
    return related(rows)


def _folder(plan: Plan, setting: Setting) -> Path:
    return plan.folder / "settings" / setting.id


class Bench:
    """One setting: its model, its audit, and every arm on it. What arms share is made once, when it is needed."""

    def __init__(self, setting: Setting, plan: Plan, folder: Path) -> None:
        self.setting, self.plan, self.folder = setting, plan, folder

    def row(self, arm: Arm) -> Repair:
        """Measure one arm."""
        make_row = partial(repair_of, self.setting, self.found, arm)
        untouched = partial(make_row, regions=0, changed=False, best_step=None, seconds=0.0)
        if arm.name == WITHOUT:
            return untouched(self._of_another(model_of(without(self.setting), self.plan.place)), treated=0)
        features = self.features(arm)
        if not self._can(arm, features):
            return untouched(self.before, treated=0)
        measured, trained, seconds = self._repaired(arm, features)
        return make_row(
            measured,
            treated=len(features),
            regions=trained["n_spurious_training_regions"],
            changed=True,
            best_step=trained["best_step"],
            seconds=seconds,
        )

    # --- the audit ----------------------------------------------------------------------------------------------------

    @cached_property
    def model(self) -> Path:
        return model_of(self.setting, self.plan.place)

    @cached_property
    def audited(self) -> tuple[Scenes, Path]:
        """The audited scenes and their image folder."""
        return audited_scenes(self.setting, self.plan.place.folder)

    @cached_property
    def run(self) -> AuditRun:
        return audit(self.setting, self.model, self.audited[1], "auto", self.folder, self.plan.place.device)

    @cached_property
    def truth(self) -> Truth:
        """What the audited regions show."""
        relies = reliance_of(self.model, self.setting)
        return truth_of_regions(self.audited[0], scene_of(self.run), self.run, self.setting, relies)

    @cached_property
    def found(self) -> Found:
        """How good the audit's answer is; no arm looks at it."""
        counted = figures(our_answer(self.run, audit_of(self.run)), self.truth)
        return Found(counted.flagged, counted.true, counted.learned, counted.found)

    def features(self, arm: Arm) -> dict[int, str]:
        """Id -> name of the features that an arm treats: those that the audit flagged. With `only` those of them that
        show this mark, as a person would choose who wants to treat no other; with `truth` the marks themselves."""
        if arm.truth:
            return dict(enumerate(self.setting.marks))
        evidence, feature_of = self.run.evidence(), self.run.feature_label()
        flagged = [int(feature) for feature in evidence.feature[evidence.flagged]]
        if arm.only < 0:
            return dict.fromkeys(flagged, "")
        mark = {feature: mark_of(np.flatnonzero(feature_of == feature), self.truth) for feature in flagged}
        return {feature: "" for feature in flagged if mark[feature] == arm.only}

    # --- the repair ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _can(arm: Arm, features: dict[int, str]) -> bool:
        """Whether an arm changes the model: most methods cannot where nothing was flagged."""
        from ravl.repair import needs_features

        return bool(arm.method) and (bool(features) or not (arm.only >= 0 or needs_features(arm.method)))

    def _repaired(self, arm: Arm, features: dict[int, str]) -> tuple[Measured, dict[str, Any], float]:
        """Train one arm and test it. Its checkpoints go when it is done."""
        from ravl import repair, vlm
        from ravl.mitigation.baselines import top_only

        protocol = self.plan.protocol
        config = MitigationConfig(
            method=arm.method,
            steps=protocol.steps,
            batch_size=protocol.batch,
            features=tuple(sorted(features)),
            seed=self.setting.seed,
        )
        model = vlm.load(str(self.model), self.plan.place.device)
        seen = self._seen_top if top_only(config) else self._seen
        audited = repair.audited_images(self.run)
        if arm.truth:
            seen, audited = _with_truth(seen, self._training[0]), _with_truth(audited, self.audited[0])
        folder = MitigationFolder(self.folder / "training" / arm.file)
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.path.mkdir(parents=True)
        begun = time.perf_counter()
        trained = repair.change(self.run, model, seen, audited, features, config, folder)
        seconds = time.perf_counter() - begun
        shutil.rmtree(folder.path)
        test = self._test
        return test.measure(test.right(model, self.run.class_vectors())), trained, seconds

    @cached_property
    def _training(self) -> tuple[Scenes, Path]:
        """Scenes that are learned from, and their manifest; another sample than the audited model's own."""
        setting = self.setting
        seed = setting.seed + FRESH
        scenes = make(setting.world, setting.marks, "train", self.plan.protocol.train, setting.strength, seed)
        name = f"train-V{setting.strength:.2f}-s{seed}"
        images = written(setting, scenes, self.plan.place.folder, name)
        return scenes, images.parent / f"{images.name}.csv"

    @cached_property
    def _images(self) -> ImageSet:
        """The images that are learned from, with the true groups."""
        from ravl.data import read_images

        return read_images(self._training[1], self.run.images().class_names, 0)

    @cached_property
    def _seen(self) -> Seen:
        """What the audited model says about the images that are learned from."""
        return self._look(top=False)

    @cached_property
    def _seen_top(self) -> Seen:
        """The same for methods that treat the largest cluster of a feature alone."""
        return self._look(top=True)

    def _look(self, top: bool) -> Seen:
        from ravl import repair, vlm

        model = vlm.load(str(self.model), self.plan.place.device)
        folder = MitigationFolder(self.folder / "training" / ("seen-top" if top else "seen"))
        folder.path.mkdir(parents=True, exist_ok=True)
        return repair.look(self.run, model, self._images, folder, top)

    # --- the last test ------------------------------------------------------------------------------------------------

    @cached_property
    def _test(self) -> FinalTest:
        from ravl import vlm
        from ravl.benchmark.measuring import FinalTest

        setting = self.setting
        scenes = make(setting.world, setting.marks, "test", self.plan.protocol.test, None, setting.seed + FRESH)
        return FinalTest(scenes, vlm.load(str(self.model), self.plan.place.device))

    @cached_property
    def before(self) -> Measured:
        """The audited model on the last test."""
        return self._of_another(self.model)

    def _of_another(self, path: Path) -> Measured:
        from ravl import vlm
        from ravl.discovery.zero_shot import class_vectors

        model, plan = vlm.load(str(path), self.plan.place.device), WORLDS[self.setting.world]
        text = class_vectors(model, plan.class_names, PromptsConfig(templates=plan.prompts))
        return self._test.measure(self._test.right(model, text))


def _with_truth(seen: Seen, scenes: Scenes) -> Seen:
    """The same images, whose regions have the planted marks as features 0, 1, .."""
    there = shows(scenes, numbers(seen.images.file)[seen.regions.image], seen.regions.box)
    feature = np.where(there.any(1), there.argmax(1), NOISE).astype(np.int32)
    return replace(seen, found=replace(seen.found, feature=feature))


def _said(rows: Sequence[Repair]) -> str:
    worst = {row.arm: row.worst for row in rows}
    told = ", ".join(f"{n} {worst[n]:.2f}" for n in (AUDITED, "standard", PAPER, OURS, WITHOUT) if n in worst)
    return f"{rows[0].found} of {rows[0].learned} marks found; worst group: {told}"
