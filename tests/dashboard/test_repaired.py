"""What the Repair page reads from a result, says about it, and draws."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dashboard.pictures import repair_markup
from dashboard.pictures.palette import LIGHT
from dashboard.pictures.repair_markup import Thumbnail
from dashboard.reading.opened import Interval, Rate
from dashboard.reading.repaired import (
    ChangedImage,
    Estimate,
    Moved,
    Outcome,
    SecondAudit,
    changed_images,
    outcome,
    second_audit,
    spread,
)
from dashboard.serving.readiness import Machine, Need
from dashboard.words import repair_words
from ravl.mitigation.comparison import paired_interval
from ravl.mitigation.rematch import STATUS
from ravl.store import AuditRun
from ravl.tables import ImageSet
from tests.dashboard.conftest import make_mitigation

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def result(run: AuditRun) -> dict[str, Any]:
    make_mitigation(run)
    return run.mitigation("ravl").result


@pytest.fixture
def view(result: dict[str, Any]) -> Outcome:
    return outcome(result)


@pytest.fixture
def second(result: dict[str, Any]) -> SecondAudit:
    found = second_audit(result)
    assert found is not None
    return found


def moved(name: str, before: Rate, after: Rate, low: float, high: float) -> Moved:
    change = Interval(after.share - before.share, low, high)
    return Moved(name, "group", Estimate(before, 0, 1), Estimate(after, 0, 1), change)


def plain(text: str) -> str:
    return text.replace("\\", "")


# --- records ---------------------------------------------------------------------------------------------------------


def test_an_outcome_has_every_group_with_its_interval(view: Outcome) -> None:
    assert (view.overall.before.rate, view.overall.after.rate) == (Rate(42, 60), Rate(53, 60))
    assert [len(rows) for rows in (view.groups, view.classes, view.features)] == [6, 3, 2]
    low, high = paired_interval(10, 2, 0, 12)
    (eel,) = [row for row in view.groups if row.name == "eel with red *square*"]
    assert (eel.change.low, eel.change.high) == pytest.approx((low, high), abs=1e-6)
    assert not eel.beyond_chance
    (cat,) = [row for row in view.groups if row.name == "cat with red *square*"]
    assert cat.beyond_chance
    assert view.free is not None
    assert (view.free.before.rate, view.free.after.rate) == (Rate(30, 33), Rate(32, 33))
    assert (view.n_regions, view.regions) == (213, (pytest.approx(108 / 213, abs=1e-6), 1.0))


def test_the_worst_and_the_second_worst_groups_are_told_once_each(view: Outcome) -> None:
    assert [(said, row.name) for said, row in view.worst] == [
        ("was the worst, is now the second worst", "cat with red *square*"),
        ("is now the worst", "eel with red *square*"),
        ("was the second worst", "dog * without red *square*"),
    ]


def test_a_group_that_stays_the_worst(result: dict[str, Any]) -> None:
    same = outcome({**result, "after": result["before"]})
    assert [said for said, _ in same.worst] == ["was and is the worst", "was and is the second worst"]
    text = plain(repair_words.summary(same))
    assert "The worst group was and is *cat with red *square**: **11 of 12 (92%)** right, before 0 of 12 (0%)." in text


def test_what_got_worse_beyond_chance_comes_first(result: dict[str, Any]) -> None:
    rows = [
        {**result["changes"][0], "name": name, "change": change, "interval": interval}
        for name, change, interval in (
            ("large, may be chance", -0.3, [-0.7, 0.1]),
            ("small, sure", -0.05, [-0.08, -0.02]),
            ("gain", 0.2, [0.1, 0.3]),
            ("large, sure", -0.2, [-0.3, -0.1]),
        )
    ]
    whole = next(row for row in result["changes"] if row["kind"] == "overall")
    view = outcome({**result, "changes": [*rows, whole]})
    assert [row.name for row in view.worse] == ["large, sure", "small, sure", "large, may be chance"]


def test_a_treated_feature_has_its_fix_rate_and_pull_rates(view: Outcome) -> None:
    (mark,) = view.treated
    assert (mark.fixed.rate, mark.broken.rate, mark.pull) == (Rate(11, 15), Rate(2, 12), "eel")
    assert mark.before is not None
    assert mark.after is not None
    assert (mark.before.with_it.rate, mark.after.with_it.rate) == (Rate(15, 15), Rate(4, 15))
    assert (mark.before.without.rate, mark.after.without.rate) == (Rate(1, 25), Rate(1, 25))


def test_a_result_without_a_second_audit(result: dict[str, Any]) -> None:
    assert second_audit({key: value for key, value in result.items() if key != "reaudit"}) is None


def test_the_second_audit_is_read(second: SecondAudit) -> None:
    assert [(row.before, row.after, row.status, row.worse) for row in second.rows] == [
        (2, 2, "grew", True),
        (1, 1, "shrank", False),
        (0, None, "gone", False),
    ]
    assert [row.before for row in second.worse] == [2]
    assert [row.before for row in second.still_flagged] == [1]
    assert second.rows[1].treated
    assert second.rows[1].fixed_before == Rate(14, 15)
    assert second.rows[2].fixed_after is None
    assert math.isnan(second.rows[2].q)


# --- images ----------------------------------------------------------------------------------------------------------


def test_changed_images_are_those_that_one_model_gets_right() -> None:
    label = np.array([0, 0, 1, 1, 1])
    names = np.array([f"{i}.png" for i in range(5)])
    images = ImageSet("/", names, label, np.full((5, 2), 9), ("cat", "dog", "eel"))
    answers = np.array([[0, 1, 1, 0, 0], [1, 0, 1, 2, 1]])
    assert changed_images(images, answers, right_now=False) == (ChangedImage(0, "cat", "cat", "dog", False),)
    assert changed_images(images, answers, right_now=True) == (
        ChangedImage(1, "cat", "dog", "cat", True),
        ChangedImage(4, "dog", "cat", "dog", True),  # 3 was wrong and still is
    )


def test_no_kind_of_change_fills_the_page() -> None:
    many = [ChangedImage(i, "cat", "cat", "dog", False) for i in range(9)]
    few = [ChangedImage(9, "eel", "eel", "dog", False)]
    assert [item.image for item in spread([*many, *few], 3)] == [0, 9, 1]
    assert sorted(item.image for item in spread([*many, *few], 99)) == list(range(10))
    assert spread([], 3) == ()


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_summary_names_the_worst_groups_with_their_counts(view: Outcome) -> None:
    text = plain(repair_words.summary(view))
    assert "The repaired model is right on **53 of 60 (88%)** test images, before on 42 of 60 (70%)." in text
    assert "was *cat with red *square** with 0 of 12 (0%) right; there it is now right on **11 of 12 (92%)**." in text
    assert "The worst group is now *eel with red *square** with 10 of 12 (83%)." in text
    assert "\\*square\\*" in repair_words.summary(view)  # a name is shown as it is


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "**No group got worse.**"),
        ([(-0.1, 0.1)], "**1 group got worse**, which chance may explain: *g0*, from 5 of 10 (50%) to 4 of 10 (40%)"),
        ([(-0.2, -0.1)], "**1 group got worse**, beyond what chance explains: *g0*"),
        ([(-0.2, -0.1), (-0.1, 0.1)], "**2 groups got worse**, 1 of them beyond what chance explains. First: *g0*"),
        ([(-0.2, 0.1), (-0.1, 0.1)], "**2 groups got worse**, none of them beyond what chance explains."),
        ([(-0.2, -0.1), (-0.3, -0.1)], "**2 groups got worse**, all of them beyond what chance explains."),
    ],
)
def test_what_got_worse_in_words(view: Outcome, rows: list[tuple[float, float]], said: str) -> None:
    fallen = tuple(moved(f"g{i}", Rate(5, 10), Rate(4, 10), *limits) for i, limits in enumerate(rows))
    assert repair_words.worse(replace(view, worse=fallen)).startswith(said)


def test_a_treated_feature_in_words(view: Outcome) -> None:
    (mark,) = view.treated
    text = plain(repair_words.treated(mark))
    assert "where it shows, **11 of 15 (73%)** errors are right now, and 2 of 12 (17%) right answers are lost." in text
    assert "were called *eel* in 15 of 15 (100%), now in **4 of 15 (27%)**; without it in 1 of 25 (4%)" in text
    none = replace(
        mark, fixed=Estimate(Rate(0, 0), math.nan, math.nan), broken=Estimate(Rate(0, 0), math.nan, math.nan)
    )
    assert "no test image shows it" in repair_words.treated(none)
    assert "called" not in repair_words.treated(replace(mark, pull="", before=None, after=None))


def test_what_it_costs_elsewhere_and_what_regions_say(view: Outcome) -> None:
    assert "it is right on **32 of 33 (97%)**, before on 30 of 33 (91%)" in repair_words.free(view.free)
    assert repair_words.free(None) == ""
    assert "of the 213 regions of no treated feature **213 (100%)** get the class" in repair_words.regions(view)
    assert "before 108 (51%)" in repair_words.regions(view)
    assert repair_words.regions(replace(view, n_regions=0)) == ""


def test_what_grew_is_said_in_words(second: SecondAudit) -> None:
    grew, shrank, _ = second.rows
    text = plain(repair_words.grown(grew))
    assert text.startswith(
        "**Grew: Feature 2**, which pulls to dog *. It decides 10 errors now, before 0, of 60 images"
    )
    assert "q 0.002" in text
    assert "The rule flags it now." in repair_words.grown(replace(grew, flagged_after=True))
    new = replace(grew, before=None, status="new", flagged_after=True)
    assert repair_words.grown(new).startswith("**New and flagged: Feature 2 of the new audit**")
    assert plain(repair_words.still(shrank)).startswith("**Smaller, but still flagged: red *square* (feature 1)**")
    said = "**In the audit of the repaired model, 1 feature grew, or is new and flagged.** See below."
    assert repair_words.grew_below(second) == said


def test_that_nothing_grew_proves_nothing() -> None:
    text = repair_words.nothing_grew()
    assert text.startswith("**No feature grew beyond chance, and none is newly flagged.** That does not prove")
    assert "a property of the whole image" in text


def test_the_second_audit_in_words(second: SecondAudit) -> None:
    text = repair_words.second(second)
    assert "right on **47 of 60 (78%)**, before on 42 of 60 (70%)" in text
    assert "**1 feature** is flagged now, 1 was flagged before." in text


def test_every_status_has_a_word() -> None:
    assert set(repair_words.STATUS) == set(STATUS)


def test_memory_in_words() -> None:
    cpu, gpu = Machine("cpu", "", 8 * 10**9, 16 * 10**9), Machine("cuda", "NVIDIA X*", 8 * 10**9, 16 * 10**9)
    assert repair_words.device(cpu) == "It will run on **the processor alone (CPU)**."
    assert repair_words.device(gpu) == "It will run on **a CUDA GPU** (NVIDIA X\\*)."
    small, large = Need(71_000_000), Need(9 * 10**9)
    text = "A step needs about **71 MB** of memory; **8.0 GB** are free."
    assert repair_words.memory(small, cpu.free) == text
    assert repair_words.shortage(small, cpu.free, cpu) == ""
    assert "stopped by the system" in repair_words.shortage(large, cpu.free, cpu)
    assert "fewer images at once by itself" in repair_words.shortage(large, gpu.free, gpu)
    unknown = Need(None, "The model is not on this machine yet.")
    assert plain(repair_words.memory(unknown, 10**9)).startswith("The model is not on this machine yet. 1.0 GB of")
    assert repair_words.shortage(unknown, 1, cpu) == ""


# --- tables and pictures ---------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Text and tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_tables_show_counts_and_intervals(view: Outcome, second: SecondAudit) -> None:
    page = Reader(repair_markup.moved_table(view.worst, LIGHT, "Worst"))
    for part in ("11 of 12", "0 of 12", "+92 points", "was the worst, is now the second worst", "to +99 points"):
        assert part in page.text
    assert {cell["scope"] for cell in page.all("th")} == {"row", "col"}
    page = Reader(repair_markup.treated_table(view.treated))
    for part in ("11 of 15", "2 of 12", "15 of 15", "4 of 15", "1 of 25", "red *square* (feature 1)"):
        assert part in page.text
    page = Reader(repair_markup.again_table(second.rows, "All"))
    for part in ("Grew", "Shrank", "Gone", "10 of 60", "14 of 15", "not tested", "yes, yes", "treated"):
        assert part in page.text
    assert "forms no feature any more" in page.text


@pytest.mark.parametrize(
    ("before", "after", "part_of", "said"),
    [(3, None, 7, "now part of feature 7 of the new one"), (None, 3, 7, "was part of 7"), (None, 3, None, "")],
)
def test_a_table_says_what_a_feature_is_part_of(
    second: SecondAudit, before: int | None, after: int | None, part_of: int | None, said: str
) -> None:
    row = replace(second.rows[0], before=before, after=after, part_of=part_of)
    text = Reader(repair_markup.again_table((row,), "All")).text
    assert said in text
    assert ("part of" in text) == bool(said)


THUMBNAIL = Thumbnail(4, "data:x", "alt", "cat", "dog", "cat", True)


def test_a_changed_image_shows_both_answers_and_can_be_enlarged() -> None:
    page = Reader(repair_markup.changed_html([THUMBNAIL, replace(THUMBNAIL, key=5, right_now=False)]))
    assert [button["data-key"] for button in page.all("button")] == ["4", "5"]
    assert page.all("img")[0] == {"src": "data:x", "alt": "alt", "loading": "lazy"}
    assert "✗ dog → ✓ cat" in page.text
    assert "✓ dog → ✗ cat" in page.text
    gone = Reader(repair_markup.changed_html([replace(THUMBNAIL, picture=None, missing="gone")]))
    assert gone.all("button") == []
    assert "gone" in gone.text


def test_nothing_of_a_user_becomes_html(view: Outcome, second: SecondAudit) -> None:
    row = replace(view.overall, name=EVIL)
    (mark,) = view.treated
    pages = (
        repair_markup.moved_table([(EVIL, row)], LIGHT, EVIL),
        repair_markup.treated_table([replace(mark, name=EVIL, pull=EVIL)]),
        repair_markup.again_table([replace(second.rows[0], name=EVIL, pull=EVIL)], EVIL),
        repair_markup.changed_html([Thumbnail(1, "data:x", EVIL, EVIL, EVIL, EVIL, True)]),
        repair_markup.changed_html([Thumbnail(1, None, EVIL, EVIL, EVIL, EVIL, False, EVIL)]),
    )
    for page in pages:
        assert Reader(page).all("script") == []
