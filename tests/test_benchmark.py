from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ravl import cli
from ravl.benchmark import auditing, discovery, report
from ravl.benchmark import settings as listed
from ravl.benchmark.figures import Figures, Truth, figures
from ravl.benchmark.markdown import between
from ravl.benchmark.picture import picture
from ravl.benchmark.provenance import commit, machine, versions
from ravl.benchmark.rivals import Ranked
from ravl.benchmark.rows import Reliance, Row, as_json, read_csv, row_from, row_of, sorted_rows, write_csv
from ravl.benchmark.settings import ARCHITECTURE, WITHOUT, Setting, chosen, full, quick
from ravl.benchmark.summary import OURS, goals, interval, summarise
from ravl.errors import ConfigError
from ravl.planted.worlds import WORLDS
from tests.conftest import ROOT

# --- figures ---------------------------------------------------------------------------------------------------------


def answer(members, flagged, pull=None, of_images: bool = False) -> Ranked:
    ids = tuple(np.array(group, np.int64) for group in members)
    pull = np.full(len(ids), -1) if pull is None else np.array(pull)
    return Ranked("x", np.arange(len(ids)), ids, pull, np.array(flagged, bool), of_images)


def truth(shows, target=(9,), planted=(True,), learned=(True,)) -> Truth:
    shows = np.asarray(shows, bool)
    return Truth(shows.reshape(len(shows), -1), np.array(target), np.array(planted, bool), np.array(learned, bool))


def one_mark() -> Truth:
    """100 regions, the first 30 show the mark, whose class is 9."""
    return truth(np.arange(100) < 30)


def test_a_perfect_answer():
    found = figures(answer([range(30), range(30, 60)], [True, False], [9, 1]), one_mark())
    assert {type(value) for value in asdict(found).values()} == {int, float, str}  # as JSON wants them
    assert found == Figures(1.0, 30 / 30, flagged=1, true=1, learned=1, found=1, shown=30, covered=30, pull_right=1)


def test_precision_counts_the_first_members_of_the_first_feature_only():
    first = [0, 1, 2, 50, 51, 52, 53, 54, 55, 56, 3, 4]  # 3 of the first ten, 5 of all twelve
    found = figures(answer([first, range(20)], [False, False]), one_mark())
    assert found.precision_at_10 == 0.3
    assert found.precision_at_50 == 5 / 12
    assert found.flagged == found.true == found.found == 0


@pytest.mark.parametrize(("marked", "true"), [(10, 1), (9, 0)])
def test_a_feature_is_true_when_half_of_its_members_show_the_mark(marked, true):
    members = [*range(marked), *range(50, 70 - marked)]
    found = figures(answer([members], [True], [9]), one_mark())
    assert (found.flagged, found.true, found.found) == (1, true, true)
    assert found.covered == marked * true
    assert found.pull_right == true


def test_of_a_false_flag_it_is_told_how_many_members_show_and_hold_the_mark():
    touches = (np.arange(100) < 60)[:, None]  # the first 30 show it, 30 more hold a piece
    known = replace(one_mark(), touches=touches)
    flagged = [[*range(4), *range(30, 36)], range(10), [*range(30, 34), *range(60, 76)]]
    found = figures(answer(flagged, [True, True, True]), known)
    assert (found.flagged, found.true) == (3, 1)
    assert (found.false_shows, found.false_touches) == ("0.400+0.000", "1.000+0.000")
    unknown = figures(answer(flagged[:1], [True]), one_mark())
    assert (unknown.false_shows, unknown.false_touches) == ("0.400", "nan")
    quiet = figures(answer(flagged, [False, True, False]), known)
    assert quiet.false_shows == quiet.false_touches == ""


def test_a_list_of_images_is_judged_by_its_first_fifty():
    members = [*range(30), *range(30, 50), *range(50, 100)]  # 30 of 50 marked, 30 of 100
    assert figures(answer([members], [True], of_images=True), one_mark()).true == 1
    assert figures(answer([members], [True], of_images=False), one_mark()).true == 0


def test_two_marks_must_not_be_mixed_and_are_found_one_by_one():
    shows = np.zeros((40, 2), bool)
    shows[:10, 0], shows[10:20, 1] = True, True
    two = truth(shows, (9, 3), (True, True), (True, True))
    mixed = figures(answer([[0, 1, 2, 3, 10, 11, 12, 13, 30, 31]], [True]), two)
    assert (mixed.precision_at_10, mixed.true) == (0.4, 0)
    both = figures(answer([range(10), range(10, 20)], [True, True], [9, 9]), two)
    assert (both.true, both.learned, both.found, both.pull_right) == (2, 2, 2, 1)
    one = figures(answer([range(5), range(5, 10)], [True, True], [9, 9]), two)
    assert (one.true, one.found, one.shown, one.covered) == (2, 1, 20, 10)


def test_a_mark_that_is_planted_but_not_learned_is_no_miss_and_no_false_flag():
    weak = truth(np.arange(100) < 30, learned=(False,))
    found = figures(answer([range(30)], [True], [9]), weak)
    assert (found.true, found.learned, found.found, found.shown) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "known", [truth(np.ones(10), planted=(False,), learned=(False,)), truth(np.ones((10, 0)), (), (), ())]
)
def test_where_nothing_is_planted_every_flag_is_false(known):
    found = figures(answer([range(5), range(5, 10)], [True, True], [9, 9]), known)
    assert (found.flagged, found.true, found.learned, found.pull_right) == (2, 0, 0, 0)
    assert math.isnan(found.precision_at_10)
    assert math.isnan(found.precision_at_50)


def test_no_answer_finds_nothing():
    found = figures(answer([], []), one_mark())
    assert found == Figures(0.0, 0.0, flagged=0, true=0, learned=1, found=0, shown=30, covered=0, pull_right=0)


def test_what_cannot_be_true_is_refused():
    with pytest.raises(ValueError, match="cannot have been learned"):
        truth(np.ones(3), planted=(False,), learned=(True,))
    with pytest.raises(ValueError, match="agree in the number of marks"):
        truth(np.ones((3, 2)))


# --- settings --------------------------------------------------------------------------------------------------------


def test_the_full_run_holds_what_the_evaluation_promises():
    run = full()
    assert 115 <= len(run) <= 130
    assert len({setting.id for setting in run}) == len(run)
    assert sum(setting.kind in WITHOUT for setting in run) >= 30
    assert {setting.world for setting in run} == set(WORLDS)
    assert len({setting.architecture for setting in run if setting.world == "digits"}) == 2
    for world, mark in listed.FIRST_MARK.items():
        single = [s for s in run if s.world == world and s.marks == (mark,)]
        assert {s.strength for s in single} == {0, 0.7, 0.8, 0.9, 0.95, 0.99}
        for strength in (0, 0.8, 0.9, 0.95, 0.99):
            assert {s.seed for s in single if s.strength == strength} == {0, 1, 2}
    assert {s.marks for s in run if s.world == "radiograph"} == {(mark,) for mark in WORLDS["radiograph"].marks}
    assert {s.kind for s in run} == set(listed.KINDS)
    assert all(s.marks == ("brightness",) for s in run if s.kind == "global")
    assert {len(s.marks) for s in run if s.kind == "two marks"} == {2}
    assert {len(WORLDS[s.world].class_names) for s in run} >= {2, 10}


def test_the_worlds_and_architectures_of_all_settings_exist():
    from ravl.planted.tiny_clip import ARCHITECTURES

    for setting in (*full(), *quick()):
        assert setting.architecture in ARCHITECTURES
        assert set(setting.marks) <= set(WORLDS[setting.world].marks)
        assert WORLDS[setting.world].regions in auditing.IMAGES


def test_ids_are_stable_and_can_be_files():
    assert [setting.id for setting in quick()] == [
        "digits-vit14-red_square-V0.95-s0",
        "digits-vit14-red_square-V0.00-s0",
    ]
    both = next(s for s in full() if s.kind == "two marks")
    assert both.id == "digits-vit12-red_square+blue_disc-V0.90-s0"
    alike = {replace(setting, architecture=ARCHITECTURE[setting.world]) for setting in quick()}
    assert alike <= set(full())


def test_settings_are_chosen_by_world():
    assert {s.world for s in chosen(full(), ["pairs", "digits"])} == {"pairs", "digits"}
    assert chosen(full(), []) == full()
    with pytest.raises(ConfigError, match=r"--worlds must name some of digits, .*, got 'moon'"):
        chosen(full(), ["moon"])


@pytest.mark.parametrize(("strength", "kind"), [(0.0, "shortcut"), (0.9, "null"), (0.9, "other")])
def test_settings_that_contradict_themselves_are_refused(strength, kind):
    with pytest.raises(ValueError, match="kind"):
        Setting("digits", "vit14", ("red square",), strength, 0, kind)


# --- rows and summaries ----------------------------------------------------------------------------------------------

CLEAR = Setting("digits", "vit14", ("red square",), 0.9, 0, "shortcut")
NULL = Setting("digits", "vit14", ("red square",), 0.0, 0, "null")
RELIES = Reliance(0.9, (0.4,), (0.5,))
PERFECT = Figures(1.0, 0.9, flagged=1, true=1, learned=1, found=1, shown=30, covered=24, pull_right=1)
QUIET = Figures(math.nan, math.nan, flagged=0, true=0, learned=0, found=0, shown=0, covered=0, pull_right=0)


def row(setting=CLEAR, found=PERFECT, method=OURS, space="auto", reliance=RELIES) -> Row:
    return row_of(setting, reliance, space, method, 4, found, 0.5, 3.0)


def some_rows() -> list[Row]:
    """Ours and a rival on three settings that count, one that was not learned, and two with nothing to find."""
    weak = Reliance(0.9, (0.05,), (0.3,))
    missed = replace(PERFECT, precision_at_10=0.5, true=0, found=0, covered=0, pull_right=0)
    missed = replace(missed, false_shows="0.480", false_touches="0.810")
    cases = [
        (CLEAR, PERFECT, RELIES),
        (replace(CLEAR, seed=1), replace(PERFECT, pull_right=0), RELIES),
        (replace(CLEAR, strength=0.7), missed, RELIES),
        (replace(CLEAR, strength=0.7, seed=1), replace(PERFECT, learned=0, found=0), weak),
        (NULL, QUIET, RELIES),
        (Setting("textures", "vit14", ("brightness",), 0.95, 0, "global"), QUIET, RELIES),
    ]
    rows = [row(s, f, reliance=r) for s, f, r in cases]
    rows += [row(s, replace(f, flagged=3), "random", "auto", r) for s, f, r in cases]
    return (
        rows
        + [row(s, f, OURS, "final", r) for s, f, r in cases]
        + [row(s, f, "Domino", "image", r) for s, f, r in cases]
    )


def some_settings() -> list[Setting]:
    return [
        *(replace(CLEAR, seed=s) for s in (0, 1)), *(replace(CLEAR, strength=0.7, seed=s) for s in (0, 1)), NULL,
        Setting("textures", "vit14", ("brightness",), 0.95, 0, "global"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("eps1", "eps2", "learned"), [(0.11, 0.11, True), (0.1, 0.5, False), (0.5, 0.1, False), (math.nan, 0.5, False)]
)
def test_learned_needs_both_halves_of_the_signature(eps1, eps2, learned):
    assert Reliance(0.9, (eps1,), (eps2,)).learned == (learned,)


def test_rows_survive_csv_and_json(tmp_path):
    rows = some_rows()
    write_csv(tmp_path / "rows.csv", rows)
    again = read_csv(tmp_path / "rows.csv")
    assert [as_json(r) for r in again] == [as_json(r) for r in rows]
    assert [as_json(row_from(json.loads(json.dumps(as_json(r))))) for r in rows] == [as_json(r) for r in rows]
    assert math.isnan(again[4].precision_at_10)


def test_rows_are_sorted_by_setting_and_keep_their_order_within():
    rows = some_rows()
    result = sorted_rows(rows, some_settings())
    assert [r.method for r in result[:4]] == [OURS, "random", OURS, "Domino"]
    assert [r.setting for r in result[::4]] == [s.id for s in some_settings()]


def group(summaries, by: str, value: str = "", method: str = OURS, space: str = "auto"):
    return next(s for s in summaries if (s.method, s.space, s.by, s.value) == (method, space, by, value))


def test_summaries_add_up_what_counts():
    summaries = summarise(some_rows())
    everything = group(summaries, "all")
    assert (everything.settings, everything.audits_without, everything.alarms) == (3, 2, 0)
    assert everything.precision_at_10 == pytest.approx((1 + 1 + 0.5) / 3)
    assert everything.precision_at_10_low <= everything.precision_at_10 <= everything.precision_at_10_high
    assert (everything.flagged, everything.true, everything.learned, everything.found) == (3, 2, 3, 2)
    assert (everything.precision, everything.recall, everything.pull) == (2 / 3, 2 / 3, 1 / 2)
    assert everything.region_recall == pytest.approx(48 / 90)
    clear = group(summaries, "V >= 0.8")
    assert (clear.settings, clear.precision_at_10, clear.recall) == (2, 1.0, 1.0)
    assert clear.audits_without == 2
    assert group(summaries, "V", "0.70").settings == 1  # the other one was not learned
    assert group(summaries, "V", "0.70").audits_without == 0
    rival = group(summaries, "all", method="random")
    assert (rival.alarms, rival.false_flags) == (2, 6)
    textures = group(summaries, "world", "textures")
    assert textures.settings == 0
    assert math.isnan(textures.precision_at_10)
    assert math.isnan(textures.precision)


def test_it_is_told_in_which_world_marks_were_missed():
    summaries = summarise(some_rows())
    assert report.missed_line(summaries) == "Learned marks that were not found, at any V: digits 1 of 3."
    assert report.missed_line([replace(s, found=s.learned) for s in summaries]) == ""


def test_goals_are_met_missed_or_not_measured():
    summaries = summarise(some_rows())
    assert [goal.met for goal in goals(summaries)] == [True, False, True, False, None]
    enough = some_rows() + [row(replace(NULL, seed=s), QUIET) for s in range(2, 31)]
    assert goals(summarise(enough))[-1].met is True
    alarmed = enough + [row(replace(NULL, seed=31), replace(QUIET, flagged=1))]
    assert goals(summarise(alarmed))[-1].met is False
    assert goals(summarise(alarmed))[-1].measured == "1 of 32 audits"
    assert goals([]) == []


def test_a_rate_without_observations_may_be_anything():
    assert interval(0, 0) == (0, 1)
    low, high = interval(0, 30)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0.1135, abs=1e-3)  # 3.84 / (30 + 3.84)


# --- tables ----------------------------------------------------------------------------------------------------------


def written(out: Path, errors: dict[str, str] | None = None) -> dict:
    return report.write_report(out, some_settings(), some_rows(), errors or {}, ["abc"])


def test_all_tables_are_written_and_agree(tmp_path):
    document = written(tmp_path, {"digits-x": "ValueError: no"})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"discovery.{s}" for s in ("csv", "json", "md", "svg")]
    assert json.loads((tmp_path / "discovery.json").read_text()) == document
    assert document["settings"] == {
        "all": 6,
        "measured": 6,
        "counting": 3,
        "with nothing to find": 2,
        "not learned": ["digits-vit14-red_square-V0.70-s1"],
    }
    again = summarise(read_csv(tmp_path / "discovery.csv"))
    for ours, saved in zip(again, report.saved_summaries(document), strict=True):
        assert (ours.method, ours.space, ours.by, ours.value) == (saved.method, saved.space, saved.by, saved.value)
        np.testing.assert_allclose(ours.precision_at_10, saved.precision_at_10, atol=1e-4)
        assert (ours.true, ours.flagged, ours.alarms) == (saved.true, saved.flagged, saved.alarms)
    text = (tmp_path / "discovery.md").read_text()
    assert "| **ours, with evidence** | 2 | 1.00 [1.00, 1.00] | 0.90 | 1.00 (2/2)" in text
    assert "0 of 2 (< 0.66)" in text
    [flag] = document["false flags"]
    assert flag == {"setting": "digits-vit14-red_square-V0.70-s0", "world": "digits", "shows": 0.48, "touches": 0.81}
    assert "| digits-vit14-red_square-V0.70-s0 | 0.48 | 0.81 |" in text
    assert "as false, at any V: 1 in digits. In the median, 48% of their regions show the mark, and 81% hold" in text
    assert "**not met**" in text
    assert "- digits-x: ValueError: no" in text
    assert "nan" not in text


def test_a_run_without_rows_is_reported_too(tmp_path):
    document = report.write_report(tmp_path, some_settings(), [], {}, [])
    assert document["settings"]["measured"] == 0
    assert document["goals"] == []
    ElementTree.fromstring((tmp_path / "discovery.svg").read_text())


def test_the_picture_has_a_dot_for_every_figure_that_exists():
    lines = report.shown_in_picture(summarise(some_rows()))
    assert [s.method for s in lines] == [OURS, "random", "Domino"]
    root = ElementTree.fromstring(picture(lines))
    dots = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 3 * 4
    none = [s for s in summarise(some_rows()) if (s.by, s.value) == ("world", "textures") and s.space == "auto"]
    root = ElementTree.fromstring(picture(none))
    assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 2  # false alarms only
    assert "prefers-color-scheme: dark" in picture(none)


def test_the_numbers_of_the_readme_are_replaced_between_the_markers(tmp_path):
    written(tmp_path)
    block = report.readme_block(tmp_path)
    readme = "# X\n\n<!-- numbers -->\n\nmore\n"
    once = report.with_numbers(readme, tmp_path)
    assert once == f"# X\n\n<!-- numbers -->\n{block}\n<!-- /numbers -->\n\nmore\n"
    assert between(once, "other", "numbers") == "# X\n\n<!-- numbers -->\nother\n<!-- /numbers -->\n\nmore\n"
    assert "ours, with evidence" in block
    with pytest.raises(ValueError, match="marker <!-- numbers -->"):
        report.with_numbers("# X", tmp_path)


def test_the_readme_quotes_the_committed_tables():
    text, folder = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / report.RESULTS
    assert text == report.with_numbers(text, folder), "run: python -m ravl.benchmark.report"
    for marker, name, _ in report.BLOCKS:
        assert f"<!-- {marker} -->" in text
        quoted = f"<!-- /{marker} -->" in text
        assert quoted == (folder / f"{name}.json").exists(), "the README quotes tables if and only if they are there"


def test_the_committed_tables_agree_with_each_other():
    folder = ROOT / report.RESULTS
    if not (folder / "discovery.json").exists():
        pytest.skip("no full run is committed yet")
    document = json.loads((folder / "discovery.json").read_text(encoding="utf-8"))
    rows = read_csv(folder / "discovery.csv")
    expected = report.document_of(full(), rows, document["errors"], document["commits"])
    for name in ("settings", "goals", "summaries"):
        assert document[name] == expected[name], name


def test_numbers_say_where_they_come_from():
    assert commit()
    assert "cores" in machine()
    assert versions()["torch"].startswith("2.")


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch):
    """Ids of the settings that were measured; `breaks` holds those that fail."""
    ids: list[str] = []

    def measure(setting, place):
        ids.append(setting.id)
        if setting.seed == 13:
            raise RuntimeError("the disk\nis tired")
        return [row(setting, QUIET if setting.kind in WITHOUT else PERFECT)]

    monkeypatch.setattr(discovery, "measure", measure)
    return ids


def test_a_run_continues_and_measures_nothing_twice(measured, tmp_path):
    said: list[str] = []
    place = discovery.Place(tmp_path)
    first = discovery.run([CLEAR], place, tell=said.append)
    assert measured == [CLEAR.id]
    assert [r.setting for r in first.rows] == [CLEAR.id]
    both = discovery.run([CLEAR, NULL], place, tell=said.append)
    assert measured == [CLEAR.id, NULL.id]
    assert [r.setting for r in both.rows] == [CLEAR.id, NULL.id]
    assert both.commits == (commit(),)
    assert "2 settings, 1 to do" in said[-2]
    discovery.run([CLEAR], place, fresh=True, tell=said.append)
    assert measured == [CLEAR.id, NULL.id, CLEAR.id]


def test_rows_of_another_protocol_are_measured_again(measured, tmp_path, monkeypatch):
    place = discovery.Place(tmp_path)
    discovery.run([CLEAR], place, tell=lambda line: None)
    monkeypatch.setattr(discovery, "PROTOCOL", discovery.PROTOCOL + 1)
    discovery.run([CLEAR], place, tell=lambda line: None)
    assert measured == [CLEAR.id] * 2


def test_a_setting_that_fails_is_told_kept_and_tried_again(measured, tmp_path):
    said: list[str] = []
    broken = replace(CLEAR, seed=13)
    for _ in range(2):
        outcome = discovery.run([broken, NULL], discovery.Place(tmp_path), tell=said.append)
        assert outcome.errors == {broken.id: "is tired"}
        assert [r.setting for r in outcome.rows] == [NULL.id]
    assert measured == [broken.id, NULL.id, broken.id]
    assert f"{broken.id}  FAILED: is tired" in said[1]
    assert "RuntimeError: the disk" in (tmp_path / "errors" / f"{broken.id}.txt").read_text()


def test_training_alone_measures_nothing(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "model_of", lambda setting, place: tmp_path)
    monkeypatch.setattr(discovery, "reliance_of", lambda model, setting: RELIES)
    said: list[str] = []
    outcome = discovery.run([CLEAR], discovery.Place(tmp_path), only_train=True, tell=said.append)
    assert measured == []
    assert outcome.rows == ()
    assert "accuracy 0.900, eps1 0.40, eps2 0.50" in said[1]


def test_several_processes_tell_the_same(tmp_path):
    nowhere = [replace(CLEAR, world="moon", seed=s) for s in range(2)]
    said: list[str] = []
    outcome = discovery.run(nowhere, discovery.Place(tmp_path), jobs=2, tell=said.append)
    assert sorted(outcome.errors) == sorted(setting.id for setting in nowhere)
    assert sum("FAILED" in line for line in said) == 2


@pytest.mark.slow
def test_the_quick_run_finds_the_shipped_shortcut_and_flags_nothing_where_there_is_none(tmp_path, capsys):
    command = ["benchmark", "discovery", "--quick", "--device", "cpu", "--json"]
    assert cli.main([*command, "--workspace", str(tmp_path / "work"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["errors"] == {}
    assert document["settings"]["counting"] == document["settings"]["with nothing to find"] == 1
    assert not (tmp_path / "work" / "quick" / "models").exists()  # both are shipped
    rows = {(r.method, r.kind): r for r in read_csv(tmp_path / "out" / "discovery.csv")}
    found, quiet = rows[OURS, "shortcut"], rows[OURS, "null"]
    assert (found.precision_at_10, found.flagged, found.true, found.found, found.pull_right) == (1, 1, 1, 1, 1)
    assert found.covered / found.shown > 0.9
    assert quiet.flagged == 0
    assert len({method for method, _ in rows}) == 9
    assert "2 settings, 2 to do" in said.err


@pytest.mark.parametrize(
    ("options", "message"), [(["--jobs", "0"], "--jobs must be at least 1"), (["--worlds", "moon"], "got 'moon'")]
)
def test_options_that_do_not_fit_are_refused(options, message, capsys):
    assert cli.main(["benchmark", "discovery", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_failed_setting_fails_the_command_after_the_tables_are_written(measured, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ravl.benchmark.command.full", lambda: (replace(CLEAR, seed=13), NULL))
    command = ["benchmark", "discovery", "--workspace", str(tmp_path)]
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "1 of 2 settings failed, first digits-vit14-red_square-V0.90-s13: is tired" in said
    assert [r.kind for r in read_csv(tmp_path / "report" / "discovery.csv")] == ["null"]


def test_rows_of_several_states_of_the_code_are_told(measured, tmp_path, monkeypatch):
    said: list[str] = []
    for state, settings in (("one", [CLEAR]), ("two", [CLEAR, NULL])):
        monkeypatch.setattr(discovery, "commit", lambda state=state: state)
        outcome = discovery.run(settings, discovery.Place(tmp_path), tell=said.append)
    assert outcome.commits == ("one", "two")
    assert "2 states of the code (one, two)" in said[-1]


def test_audited_scenes_are_written_once_and_named_after_their_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(auditing, "IMAGES", {"grid:2": 20})
    scenes, images = auditing.audited_scenes(CLEAR, tmp_path)
    files = sorted(images.glob("*/*.png"))
    assert [int(path.stem) for path in sorted(files, key=lambda path: path.stem)] == list(range(20))
    assert all(scenes.class_names[scenes.label[int(path.stem)]] == path.parent.name for path in files)
    before = files[0].stat().st_mtime_ns
    assert auditing.audited_scenes(replace(CLEAR, strength=0.8), tmp_path)[1] == images  # the same for all strengths
    assert files[0].stat().st_mtime_ns == before
    assert auditing.audited_scenes(replace(CLEAR, seed=1), tmp_path)[1] != images
