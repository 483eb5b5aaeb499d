"""The page on this machine: picks are written whole, and nothing else is answered."""

from __future__ import annotations

import http.client
import json
import threading

import pytest
from simulated_raters import said

from latentiqa.comparison import server as module
from latentiqa.comparison.page import study_of
from latentiqa.comparison.server import HOST, make_server
from latentiqa.errors import ConfigError

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def ask(make_page, tmp_path):
    """Send a request to a server of a small page."""
    page = make_page()
    (tmp_path / "secret.txt").write_text("secret")
    (page / "notes.txt").write_text("secret")
    server = make_server(page, tmp_path / "picks", port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def send(method: str, path: str, body: bytes | str | None = None, **headers: str):
        connection = http.client.HTTPConnection(HOST, server.server_port, timeout=20)
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        found = answer.status, answer.read(), dict(answer.getheaders())
        connection.close()
        return found

    send.port, send.study = server.server_port, study_of(page)
    yield send
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_is_served_and_nothing_is_kept_by_the_browser(ask):
    for path in ("/", "/index.html?seed=3", "/study.js", "/page.css"):
        status, body, headers = ask("GET", path)
        assert status == 200
        assert body
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert ask("HEAD", "/")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/notes.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/\\secret.txt", "//etc/passwd"),
        *("/pictures/", "/pictures/../../secret.txt", "/pictures/..%2f..%2fsecret.txt"),
        *("/picks", "/study.js/"),
    ],
)
def test_other_files_are_not(ask, path):
    status, body, _ = ask("GET", path)
    assert status in (400, 404)
    assert body != b"secret"


def test_picks_are_written_whole_and_written_over(ask, tmp_path):
    for picks in (2, 1):
        found = said(study=ask.study, picks=said()["picks"][:picks])
        assert ask("POST", "/picks", json.dumps(found), **JSON)[0] == 204
        folder = tmp_path / "picks" / ask.study
        assert json.loads((folder / "0123abcd.json").read_text()) == found
    assert len(list(folder.iterdir())) == 1


def test_picks_of_a_page_that_was_made_anew_since_are_refused(ask, tmp_path):
    status, body, _ = ask("POST", "/picks", json.dumps(said(study="0123456789ab")), **JSON)
    assert status == 409
    assert f"the study is {ask.study} now".encode() in body
    assert not (tmp_path / "picks").exists()


def test_what_is_no_session_is_not_written(ask, tmp_path, monkeypatch):
    good = json.dumps(said(study=ask.study))
    monkeypatch.setattr(module, "MOST_BYTES", len(good))
    wrong = [
        ("/picks", "{", JSON, 400),
        ("/picks", json.dumps({**said(), "kind": "x"}), JSON, 400),
        ("/picks", json.dumps(said(session="../evil")), JSON, 400),
        ("/other", good, JSON, 404),
        ("/picks", good, {"Content-Type": "text/plain"}, 415),
        ("/picks", good + " ", JSON, 413),
        ("/picks", good, JSON | {"Host": "evil.example"}, 403),
        ("/picks", good, JSON | {"Origin": "http://evil.example"}, 403),
        ("/picks", good, JSON | {"Content-Length": "-5"}, 411),
    ]
    for path, body, headers, status in wrong:
        assert ask("POST", path, body, **headers)[0] == status, (path, body[:40], headers)
    assert ask("GET", "/", Host="evil.example")[0] == 403
    assert ask("PUT", "/picks", good)[0] == 501
    assert not (tmp_path / "picks").exists()
    origin = f"http://localhost:{ask.port}"
    assert ask("POST", "/picks", good, Origin=origin, **JSON)[0] == 204


def test_picks_that_cannot_be_written_are_not_said_to_be(ask, tmp_path):
    (tmp_path / "picks").write_text("a file where the folder should be")
    found = json.dumps(said(study=ask.study))
    assert ask("POST", "/picks", found, **JSON)[0] == 500


def test_a_server_needs_a_page_and_a_port(ask, tmp_path):
    with pytest.raises(ConfigError, match="no 2AFC page there"):
        make_server(tmp_path, tmp_path)
    for port, told in ((ask.port, "in use"), (70_000, "65535"), (-1, "expected an integer")):
        with pytest.raises(ConfigError, match=told):
            make_server(tmp_path / "page", tmp_path, port)
