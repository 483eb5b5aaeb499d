"""The 2AFC page on this machine alone, with a place for the picks."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from latentiqa.comparison.page import study_of
from latentiqa.comparison.picks import session_of
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import write_atomic

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
MOST_BYTES = 4 * 2**20
"""Of a request: thousands of picks."""

PATHS = re.compile(r"/|/\w+\.(html|css|js)|/pictures/[0-9a-f]{16}\.png")
"""What is read of the page's folder."""

POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"


class Handler(SimpleHTTPRequestHandler):
    """The page's own files, and POST of a session of picks.

    Args:
        page: folder of the page.
        picks: folder that sessions are written to, a file each, below the study's name.
    """

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, *arguments: Any, page: Path, picks: Path) -> None:
        self.page, self.picks = page, picks
        super().__init__(*arguments, directory=str(page))

    def do_GET(self) -> None:
        """A file of the page."""
        self._read(super().do_GET)

    def do_HEAD(self) -> None:
        """Whether there is one."""
        self._read(super().do_HEAD)

    def _read(self, answer: Any) -> None:
        path = self.path.partition("?")[0]
        if not self._is_own():
            return
        if not PATHS.fullmatch(path):
            self._refuse(HTTPStatus.NOT_FOUND, "no such file of the page")
            return
        answer()

    def do_POST(self) -> None:
        """Write a session, in place of what was there of it."""
        if not self._is_own():
            return
        if self.path != "/picks":
            self._refuse(HTTPStatus.NOT_FOUND, "picks go to /picks")
            return
        # Another site's form cannot send this type; its script is asked for, and gets no answer.
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected Content-Length")
            return
        if int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES} bytes")
            return
        try:
            found = json.loads(self.rfile.read(int(length)))
            session = session_of(found)
        except (ValueError, RecursionError, DataError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        study = study_of(self.page)
        if session.study != study:  # a page that was opened before the study was made anew
            self._refuse(HTTPStatus.CONFLICT, f"the study is {study} now: reload the page")
            return
        try:
            # Study and session are hex digits alone, so the name cannot lead elsewhere.
            text = json.dumps(found, indent=1) + "\n"
            write_atomic(self.picks / study / f"{session.session}.json", text)
        except OSError as error:
            log.error("picks of %s cannot be written: %s", session.rater, error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the picks cannot be written")
            return
        log.info("%s: %d picks", session.rater, len(session.picks))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def _is_own(self) -> bool:
        """Whether the page itself asks: a foreign name that leads to this machine is refused."""
        assert isinstance(self.server, ThreadingHTTPServer)
        hosts = {f"{name}:{self.server.server_port}" for name in NAMES}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and origin in {None, *(f"http://{h}" for h in hosts)}:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this page is for this machine alone")
        return False

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what was not read of the request is not taken for another
        self.send_error(status, explain=reason)

    def end_headers(self) -> None:
        """Nothing is kept by the browser, and nothing comes from elsewhere."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told one by one."""
        log.debug(format, *args)


def make_server(page: Path, picks: Path, port: int = 8000) -> ThreadingHTTPServer:
    """A server of a page; ``serve_forever`` starts it.

    Args:
        page: folder of the page.
        picks: folder that sessions are written to.
        port: of this machine; 0: any that is free.

    Raises:
        ConfigError: there is no page, or the port is not free or none.
    """
    check_integer("serve.port", port, 0)
    study_of(page)
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, page=page, picks=picks))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"serve.port={port}: {error}; choose another one, or 0 for any that is free."
        ) from error
