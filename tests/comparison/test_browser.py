"""The 2AFC page in a real browser, by its keyboard: needs Selenium and a Chromium."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentiqa.comparison.picks import CATCH, GOOD, PAIR, REPEAT, by_rater, read_picks
from latentiqa.comparison.ranking import rank
from latentiqa.comparison.raters import check_raters
from latentiqa.comparison.server import HOST, make_server

ORDER = ("best", "middle", "worst")
TRIALS = 20
OPTIONS = {"trials": 16, "repeats": 2, "catch_every": 9}
"""16 pairs, 2 of them again, and 2 catch trials."""

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.slow


class Driven:
    """A page in a browser, and hands on the keyboard."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def run(self, script: str):
        return self.driver.execute_script(script)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60, 0.02).until(lambda _: self.run(f"return {condition}"))

    def appears(self, number: int) -> None:
        """Wait for the pictures of a trial."""
        text = f"{number} of {TRIALS}"
        self.until(
            f"document.getElementById('progress').textContent === '{text}' && "
            "!document.getElementById('panes').classList.contains('waiting')"
        )

    def sides(self) -> tuple[str, str]:
        """Whose results are shown: known by the pictures' files alone."""
        found = self.run(
            "const whose = {};"
            "for (const p of STUDY.pictures) { whose[p.input] = 'input'; "
            "whose[p.degraded] = 'degraded';"
            "for (const [model, file] of Object.entries(p.results)) whose[file] = model; }"
            "return ['left', 'right'].map((side) => "
            "whose[document.querySelector(`#${side} img`).getAttribute('src')]);"
        )
        return found[0], found[1]

    def transforms(self) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('.pane img')].map((x) => x.style.transform)"
        )

    def shot(self, name: str) -> None:
        """Save the screen where LATENTIQA_SHOTS says, for people."""
        if folder := os.environ.get("LATENTIQA_SHOTS"):
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def browser(tmp_path) -> Iterator[Driven]:
    selenium = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if BROWSER is None or DRIVER is None:
        pytest.skip("there is no chromium with chromedriver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for switch in ("--headless=new", "--no-sandbox", "--window-size=1400,800"):
        options.add_argument(switch)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    downloads = {"download.default_directory": str(tmp_path / "downloads")}
    options.add_experimental_option("prefs", downloads)
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    yield Driven(driver)
    driver.quit()


def favourite(sides: tuple[str, str]) -> str:
    """What a rater picks who sees the order."""
    from selenium.webdriver import Keys

    ranks = {name: i for i, name in enumerate((GOOD, *ORDER, "degraded"))}
    left, right = sides
    return Keys.ARROW_LEFT if ranks[left] < ranks[right] else Keys.ARROW_RIGHT


def check_trials(picks) -> None:
    kinds = Counter(pick.kind for pick in picks)
    assert kinds == {PAIR: 16, REPEAT: 2, CATCH: 2}
    pairs = Counter(frozenset((p.left, p.right)) for p in picks if p.kind == PAIR)
    assert sorted(pairs.values()) == [5, 5, 6]
    first = {p.trial: p for p in picks if p.kind == PAIR}
    assert len(first) == 16
    for again in (p for p in picks if p.kind == REPEAT):
        assert again.left == first[again.trial].right


def test_a_rater_at_the_keyboard_from_the_disk(browser, make_page, tmp_path):
    from selenium.webdriver import Keys

    page = make_page(count=6, size=256, **OPTIONS)
    browser.driver.get(f"{(page / 'index.html').as_uri()}?seed=7")
    browser.until("!document.getElementById('start').hidden")
    assert browser.run("return document.getElementById('count').textContent") == str(TRIALS)
    browser.shot("start")
    browser.press("Ann", Keys.ENTER)
    for number in range(1, TRIALS + 1):
        browser.appears(number)
        if number == 3:
            look_around(browser)
        if number == 5:  # a wrong key, taken back
            browser.press("f")
            browser.appears(6)
            browser.press(Keys.BACKSPACE)
            browser.appears(5)
        if number == 9:  # what was picked is there after a reload
            browser.driver.refresh()
            go_on(browser, "Go on as Ann (8 of 20)")
            browser.appears(9)
        if number == 12:
            browser.shot("trial")
        browser.press(favourite(browser.sides()))
    browser.until("!document.getElementById('end').hidden")
    browser.shot("end")
    browser.press(Keys.ENTER)  # the first button: JSON
    browser.press(Keys.TAB, Keys.ENTER)  # the second: CSV
    folder = tmp_path / "downloads"
    for _ in range(600):
        if len(files := [*folder.glob("picks-*.json"), *folder.glob("picks-*.csv")]) == 2:
            break
        threading.Event().wait(0.05)
    assert len(files) == 2
    assert read_picks(files[:1]) == read_picks(files[1:])
    (session,) = read_picks([folder])
    assert session.rater == "Ann"
    check_trials(session.picks)
    ranking = rank(by_rater([session]), resamples=200)
    assert tuple(model.name for model in ranking.models) == ORDER
    (rater,) = check_raters(by_rater([session]))
    assert not rater.reasons
    assert rater.catch_missed == 0
    assert rater.repeated_same == 1


def go_on(browser: Driven, label: str) -> None:
    """Press the button of a session that the browser has kept."""
    button = (
        f"[...document.querySelectorAll('#kept button')].find(b => b.textContent === '{label}')"
    )
    browser.until(f"{button} !== undefined")
    browser.run(f"{button}.click()")


def test_a_second_rater_leaves_the_picks_of_the_first(browser, make_page, tmp_path):
    """From the disk, where nothing but the browser has them until they are downloaded."""
    from selenium.webdriver import Keys

    page = make_page(count=6, **OPTIONS)
    browser.driver.get((page / "index.html").as_uri())
    for rater, picks in (("Ann", 3), ("Bob", 2)):
        browser.until("!document.getElementById('start').hidden")
        browser.press(rater, Keys.ENTER)
        for number in range(1, picks + 1):
            browser.appears(number)
            browser.press(favourite(browser.sides()))
        browser.appears(picks + 1)
        browser.driver.refresh()
    browser.until("document.querySelectorAll('#kept button').length === 2")
    browser.shot("kept")
    go_on(browser, "Go on as Ann (3 of 20)")
    browser.appears(4)


def test_what_a_server_missed_is_sent_again(browser, make_page, tmp_path):
    """Picks that were made while it was away arrive without another one."""
    from selenium.webdriver import Keys

    page, picks = make_page(count=6, **OPTIONS), tmp_path / "picks"
    server = make_server(page, picks, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = server.server_port
    try:
        browser.driver.get(f"http://{HOST}:{port}/")
        browser.until("!document.getElementById('start').hidden")
        browser.press("Eve", Keys.ENTER)
        browser.appears(1)
        browser.press("f")
        browser.appears(2)
        browser.until("document.getElementById('saved').textContent === ''")
        # The browser has the next pair already.
        browser.run("window.real = fetch; window.fetch = () => Promise.reject(new Error('away'))")
        browser.press("f")
        browser.until("document.getElementById('saved').textContent.includes('not saved')")
        browser.appears(3)
        browser.run("window.fetch = window.real")
        browser.until("document.getElementById('saved').textContent === ''")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    (session,) = read_picks([picks])
    assert len(session.picks) == 2


def look_around(browser: Driven) -> None:
    """Zoom and moves are locked, and the input comes in the results' place."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.by import By

    fitted = browser.transforms()
    assert len(set(fitted)) == 1
    browser.press("+", "+")
    zoomed = browser.transforms()
    assert len(set(zoomed)) == 1
    assert zoomed != fitted
    left, right = (
        browser.driver.find_element(By.CSS_SELECTOR, f"#{s} .pane") for s in ("left", "right")
    )
    ActionChains(browser.driver).drag_and_drop_by_offset(right, 40, 25).perform()
    moved = browser.transforms()
    assert len(set(moved)) == 1
    assert moved != zoomed
    ActionChains(browser.driver).scroll_from_origin(
        ScrollOrigin.from_element(left, 30, 20), 0, -200
    ).perform()
    browser.until(
        f"document.querySelector('#right img').style.transform !== {json.dumps(moved[0])}"
    )
    assert len(set(browser.transforms())) == 1
    browser.shot("zoomed")
    ActionChains(browser.driver).key_down(" ").perform()
    assert browser.sides() == ("input", "input")
    ActionChains(browser.driver).key_up(" ").perform()
    assert "input" not in browser.sides()
    browser.press("0")
    assert browser.transforms() == fitted


def test_many_raters_on_the_server(browser, make_page, tmp_path):
    """Every pick is saved when it is made; the next rater begins anew."""
    from selenium.webdriver import Keys

    page = make_page(count=6, **OPTIONS)
    server = make_server(page, tmp_path / "picks", port=0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    try:
        browser.driver.get(f"http://{HOST}:{server.server_port}/")
        for rater in ("Bob", ""):
            browser.until("!document.getElementById('start').hidden")
            browser.press(rater, Keys.ENTER)
            for number in range(1, TRIALS + 1):
                browser.appears(number)
                browser.press(
                    {Keys.ARROW_LEFT: "f", Keys.ARROW_RIGHT: "j"}[favourite(browser.sides())]
                )
            browser.until("document.getElementById('ended').textContent.includes('on the server')")
            browser.run("document.getElementById('again').click()")
        log = browser.driver.get_log("browser")
    finally:
        server.shutdown()
        server.server_close()
    assert not [entry for entry in log if entry["level"] == "SEVERE"]
    sessions = read_picks([tmp_path / "picks"])
    assert len(sessions) == 2
    for session in sessions:
        check_trials(session.picks)
    names = sorted(session.rater for session in sessions)
    assert names[0] == "Bob"
    assert names[1].startswith("rater ")
    ranking = rank(by_rater(sessions), resamples=200)
    assert tuple(model.name for model in ranking.models) == ORDER


def test_trials_are_drawn_by_the_seed_and_balanced(browser, make_page):
    page = make_page(count=4, trials=None, repeats=0, catch_every=0)
    browser.driver.get((page / "index.html").as_uri())
    trials = browser.run("return Trials.schedule(STUDY, 5)")
    assert trials == browser.run("return Trials.schedule(STUDY, 5)")
    assert trials != browser.run("return Trials.schedule(STUDY, 6)")
    assert len(trials) == 4 * 3
    shown = {(t["picture"], frozenset((t["left"], t["right"]))) for t in trials}
    pairs = [frozenset(pair) for pair in itertools.combinations(ORDER, 2)]
    assert shown == {(f"picture {i}", pair) for i in range(4) for pair in pairs}
    for start in range(0, 12, 3):  # each round has every pair once
        assert len({frozenset((t["left"], t["right"])) for t in trials[start : start + 3]}) == 3
    many = browser.run(
        "return [...Array(200).keys()].flatMap((seed) => "
        "Trials.schedule({...STUDY, trials: 3}, seed).map((t) => [t.left, t.right]))"
    )
    lefts = Counter(left for left, _ in many)
    for name in ORDER:
        assert 0.4 < lefts[name] / sum(name in pair for pair in many) < 0.6
