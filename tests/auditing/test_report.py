import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from advens.auditing.compare import compare
from advens.auditing.report import eps_label, render, seconds
from tests.auditing.samples import ATTACKS, CHECKS, sample_audit

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The text of each section, the tags, and whether they are balanced."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.sections, self.ids = [], [], ["head"], []
        self.text = {"head": ""}
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("header", "section"):
            self.sections.append(attributes.get("id", tag))
            self.text[self.sections[-1]] = ""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.handle_data(" ")

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text[self.sections[-1]] += data

    def of(self, section):
        return re.sub(r"\s+", " ", self.text[section]).strip()


@pytest.fixture(scope="module")
def audit():
    """Return an audit, not to be changed."""
    return sample_audit(n=60, seed=3)


@pytest.fixture
def changed(audit):
    """Return a document, its outcomes and images, of which the first may be changed."""
    return copy.deepcopy(audit[0]), dict(audit[1]), audit[2]


def test_order(audit):
    page = Page(render(*audit))
    assert page.sections[1:] == [
        *("header", "attacks", "panel", "curves", "why", "images"),
        *("members", "method", "cite"),
    ]
    links = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert set(links) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_no_network(audit):
    page = Page(render(*audit))
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            assert re.match(r"data:|#|$", attributes.get(name, ""))
    html = render(*audit)
    assert "http" not in re.sub('http-equiv="', "", html)
    assert "@import" not in html and "url(" not in html


def test_the_verdict_and_its_numbers(audit):
    document, outcomes, _ = audit
    head = Page(render(*audit)).of("header")
    assert document["verdict"] in head
    clean, robust = document["clean_accuracy"], document["robust_accuracy"]
    for accuracy in (clean, robust):
        value, low, high = (100 * accuracy[key] for key in ("value", "low", "high"))
        assert f"{value:.1f} %" in head
        assert f"95 % interval {low:.1f} % to {high:.1f} %" in head
    assert "All 6 sanity checks passed" in head
    assert "1 of 7 attacks did not finish" in head
    assert "overestimate" not in head


def test_failed_checks_come_with_the_verdict(changed):
    document, outcomes, x = changed
    document["panel"][0] |= {"verdict": "failed", "reason": "Noise broke 12 images."}
    head = Page(render(document, outcomes, x)).of("header")
    assert "it overestimates robustness, because" in head
    assert "Robust accuracy, overestimated" in head
    assert f"{document['panel'][0]['title']}: failed. Noise broke 12 images." in head
    assert "passed" not in head


def test_an_accuracy_of_zero_cannot_be_too_high(changed):
    document, outcomes, x = changed
    document["panel"][0]["verdict"] = "failed"
    document["robust_accuracy"]["value"] = 0
    head = Page(render(document, outcomes, x)).of("header")
    assert "Every image fell." in head
    assert "overestimate" not in head.replace("could be overestimated", "")
    assert "did not finish" not in head


def test_only_the_first_sentence_of_a_verdict_is_the_headline(changed):
    document, outcomes, x = changed
    document["verdict"] = "It is right on 1.5 % of the images. Because of this."
    head = Page(render(document, outcomes, x)).of("header")
    assert "It is right on 1.5 % of the images. 95.0 %" in head


def test_attacks_that_did_not_finish(changed):
    document, outcomes, x = changed
    document["trusted"] = False
    head = Page(render(document, outcomes, x)).of("header")
    assert "Robust accuracy, so far" in head and "Do not trust" not in head
    assert "1 of 7 attacks did not finish" in head


def test_not_trusted_without_a_known_reason(changed):
    document, outcomes, x = changed
    document["trusted"] = False
    document["attacks"][-1]["done"] = True
    head = Page(render(document, outcomes, x)).of("header")
    assert "Do not trust this number" in head and "passed" not in head


def test_some_not_judged(changed):
    document, outcomes, x = changed
    document["panel"][0]["verdict"] = "not judged"
    head = Page(render(document, outcomes, x)).of("header")
    assert "All 5 sanity checks passed, 1 not judged." in head


def test_nothing_judged(changed):
    document, outcomes, x = changed
    for check in document["panel"]:
        check["verdict"] = "not judged"
    for panel in (document["panel"], [], None):
        document["panel"] = panel
        head = Page(render(document, outcomes, x)).of("header")
        assert "Not checked." in head and "passed" not in head


def test_attacks_and_panel(audit):
    page = Page(render(*audit))
    attacks = page.of("attacks")
    for attack in audit[0]["attacks"]:
        after = f"{100 * attack['accuracy_after']['value']:.1f} %"
        row = f"{attack['attempted']} {attack['broken']} {after}"
        assert row in attacks[attacks.index(attack["name"]) :]
    assert "2.0 % zero gradients" in attacks and "not finished" in attacks
    assert "Grad. 2: the mean of the members' gradients." in attacks
    assert "Normalized gradients" not in attacks
    for title in CHECKS.values():
        assert title in page.of("panel")


def test_bars_show_what_each_attack_broke(audit):
    document = audit[0]
    lost = re.findall(
        r'class="lost" style="left:([\d.]+)%;width:([\d.]+)%', render(*audit)
    )
    before = document["clean_accuracy"]["value"]
    for attack, (left, width) in zip(document["attacks"], lost, strict=False):
        after = attack["accuracy_after"]["value"]
        assert float(left) == pytest.approx(100 * after, abs=0.01)
        assert float(width) == pytest.approx(100 * (before - after), abs=0.02)
        before = after


def test_text_of_an_audit_is_escaped(changed):
    document, outcomes, x = changed
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    document["verdict"] = document["command"][1] = evil
    document["members"][0] |= {"name": evil, "file": evil, "sha256": evil}
    document["data"]["file"] = document["versions"]["keras"] = evil
    document["hardware"] = {evil: evil}
    document["settings"]["votes"] = document["created"] = document["advens"] = evil
    document["attacks"][0]["name"] = evil
    document["panel"][0] |= {"title": evil, "reason": evil, "verdict": evil}
    page = Page(
        render(document, outcomes, x, other=compare(*changed[:2], *changed[:2]))
    )
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert evil in page.of("header") and evil in page.of("members")


def test_matrices_have_their_numbers(audit):
    why = Page(render(*audit)).of("why")
    for row in audit[0]["why"]["transfer"]:
        assert " ".join(f"{100 * value:.0f}" for value in row) in why


def test_unrelated_signs_have_no_colour(changed):
    document, outcomes, x = changed
    document["why"] = {"sign_agreement": [[1.0, 0.5], [0.75, None]]}
    cells = re.findall(r'<td style="--s:(\d+)%".*?>(.*?)</td>', render(*changed))
    assert cells == [("100", "1.00"), ("0", "0.50"), ("50", "0.75"), ("0", "–")]


def test_what_a_class_is_taken_for(changed):
    document, outcomes, x = changed
    first = document["why"]["classes"][0]
    first |= {"class": 0, "taken_for": [50, 2, 0, 7, 3, 1, 0, 0, 0, 0]}
    assert "3 (7), 4 (3), 2 " not in Page(render(*changed)).of("why")
    assert "3 (7), 4 (3), 1 (2)" in Page(render(*changed)).of("why")


def test_smallest_eps(changed):
    document, outcomes, x = changed
    outcomes["sample"] = np.arange(6)
    outcomes["smallest_eps"] = np.array([0, 0, 0, 0.02, 0.05, np.inf])
    curves = Page(render(document, outcomes, x)).of("curves")
    assert "searched for 3 images that it classifies correctly" in curves
    assert "has the median 0.05; 1 withstood every eps tried" in curves
    outcomes["smallest_eps"] = np.array([0, 0, 0, 0.02, np.inf, np.inf])
    assert "Of 3 images, 2 withstood" in Page(render(document, outcomes, x)).of(
        "curves"
    )
    for size in (6, 0):
        outcomes |= {"sample": np.arange(size), "smallest_eps": np.zeros(size)}
        assert "smallest" not in Page(render(document, outcomes, x)).of("curves")


def test_citations_are_those_of_the_attacks_used(changed):
    document, outcomes, x = changed
    cite = Page(render(document, outcomes, x)).of("cite")
    for source in ("1709.03423", "2003.01690", "1912.00049", "1706.06083"):
        assert f"arXiv:{source}" in cite
    assert 'version = "0.1.0"' in cite
    outcomes["broken_by"] = np.minimum(outcomes["broken_by"], 0)
    document["attacks"] = document["attacks"][-1:]
    cite = Page(render(document, outcomes, x)).of("cite")
    assert "1709.03423" in cite and "1912.00049" in cite
    assert "2003.01690" not in cite and "1706.06083" not in cite


def test_how_it_was_computed(audit):
    method = Page(render(*audit)).of("method")
    assert "advens-audit a.keras b.keras --eps 0.1" in method
    assert audit[0]["data"]["sha256"] in method
    assert "keras 3.15.0" in method and "cpu count: 2" in method and "gpu" not in method
    assert "devices: cpu:0, cpu:1" in method and "2026-11-27 19:30:00 UTC" in method


def test_comparison(changed):
    document, outcomes, x = changed
    other, other_outcomes = copy.deepcopy(document), dict(outcomes)
    other_outcomes["robust"] = outcomes["robust"] & (np.arange(60) % 2 == 0)
    result = compare(document, outcomes, other, other_outcomes)
    text = Page(render(document, outcomes, x, other=result)).of("comparison")
    robust = result["accuracies"][1]
    assert f"+{100 * robust['difference']['value']:.1f}" in text
    assert f"{robust['p_value']:.3f}" in text or "< 0.001" in text
    assert "trusted" not in text and "different threats" not in text
    other["settings"]["eps"] = 0.3
    other["curves"]["eps"] = [
        {"eps": eps, "accuracy": {"value": 0.125, "low": 0.1, "high": 0.2}}
        for eps in (0, 1)
    ]
    other["trusted"] = False
    result = compare(document, outcomes, other, other_outcomes)
    text = Page(render(document, outcomes, x, other=result)).of("comparison")
    assert "The other audit cannot be trusted" in text and "different threats" in text
    assert "other audit, eps 1: 12.5 %" in text


def test_many_classes_and_members_do_not_explode():
    document, outcomes, x = sample_audit(n=300, num_classes=100, num_members=40)
    weakest = document["why"]["classes"][70]
    weakest["robust"] = {"value": -1.0, "low": 0.0, "high": 0.0}
    page = Page(render(document, outcomes, x))
    why = page.of("why")
    assert f"The 20 least robust of {len(document['why']['classes'])} classes" in why
    assert "gradient" not in why
    row = f"{weakest['class']} {weakest['num_images']} "
    assert "mostly taken for " + row in why


@pytest.mark.parametrize("missing", ["curves", "why", "panel", "hardware", "command"])
def test_parts_may_be_missing(changed, missing):
    document, outcomes, x = changed
    for nothing in (None, {} if missing != "panel" else []):
        document[missing] = nothing
        page = Page(render(document, outcomes, x))
        assert (missing in page.sections) == (missing == "panel")


@pytest.mark.parametrize("part", ["eps", "steps", "members"])
def test_curves_may_be_missing(changed, part):
    document, outcomes, x = changed
    document["curves"][part] = None
    assert f"Accuracy over {part}" not in render(document, outcomes, x)
    document["curves"] = {part: document["curves"][part]}
    assert "curves" not in Page(render(document, outcomes, x)).sections


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_unknown_numbers(changed, nothing):
    def blanked(part, key=None):
        if isinstance(part, dict):
            return {name: blanked(value, name) for name, value in part.items()}
        if isinstance(part, list):
            return [blanked(value) for value in part]
        return nothing if isinstance(part, float) and key != "eps" else part

    document, outcomes, x = changed
    document = blanked(document)
    result = compare(document, outcomes, document, outcomes)
    html = render(document, outcomes, x, other=result)
    assert not re.search(r"\bnan\b", html)
    Page(html)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_members": 1},
        {"num_classes": 2, "num_members": 2},
        {"shape": (12, 9, 3), "norm": "l2", "eps": 0.5},
        {"n": 1},
        {"shape": (30,)},
        {"shape": (6, 6, 2)},
    ],
)
def test_unusual_audits(settings):
    document, outcomes, x = sample_audit(**settings)
    page = Page(render(document, outcomes, x))
    no_pictures = "The inputs are no pictures" in page.of("images")
    assert no_pictures == (settings.get("shape", (8, 8, 1)) in [(30,), (6, 6, 2)])


def test_images_of_another_audit_are_refused(audit):
    document, outcomes, x = audit
    with pytest.raises(ValueError, match="Received: 59 images, outcomes for 60"):
        render(document, outcomes, x[1:])


def test_eps_as_people_write_it():
    assert [
        eps_label(eps) for eps in (0.1, 0.3, 0.031, 8 / 255, 4 / 255, 0.2, 1.5)
    ] == [*("0.1", "0.3", "0.031", "8/255", "4/255", "0.2", "1.5")]
    assert eps_label(float(np.float32(8 / 255))) == "8/255"
    assert eps_label(0.12345) == "0.1235"


def test_times_as_people_write_them():
    times = [seconds(value) for value in (1.25, 75, 130, 5400, 7500, None)]
    assert times == ["1.2 s", "75 s", "2 min", "90 min", "2 h 5 min", "–"]


def test_size():
    # Noise of all grey levels is what no compression makes smaller.
    document, outcomes, x = sample_audit(n=1000, shape=(28, 28, 1), num_members=10)
    html = render(document, outcomes, x)
    assert len(html.encode()) <= 3_000_000
    assert html.count("<li data-fate") > 500
    assert {attack[0] for attack in ATTACKS} <= set(
        re.findall('data-attack="(.+?)"', html)
    )
