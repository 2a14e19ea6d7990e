"""The public search engines that `ddgs` asks, on loopback: a proxy that answers in the place of each of them.

    with FakeEngines(folder) as engines:       # sets DDGS_PROXY and SSL_CERT_FILE, so that nothing gets out
        ... engines.asked                      # hosts, in order

All have the same page, in DuckDuckGo's HTML. With `refuses` no connection is let through.
"""

import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import trustme

PAGE = b"""<html><body><div class="result__body body"><h2>Forth Bridge</h2>
<a href="https://bridges.example.org/forth">The Forth Bridge is 2467 m long.</a></div></body></html>"""


class FakeEngines:
    def __init__(self, folder: Path, *, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self.refuses = refuses
        self.authority = trustme.CA()
        self._trusted = folder / "engines-ca.pem"
        self.authority.cert_pem.write_to_path(str(self._trusted))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
        self._server.engines = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._environment: Any = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        proxy = f"http://127.0.0.1:{self._server.server_port}"
        self._environment = patch.dict(os.environ, DDGS_PROXY=proxy, SSL_CERT_FILE=str(self._trusted))
        self._environment.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.stop()
        self._server.shutdown()
        self._server.server_close()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        engines: FakeEngines = self.server.engines  # type: ignore[attr-defined]
        host = self.path.partition(":")[0]
        engines.asked.append(host)
        self.close_connection = True
        if engines.refuses:
            self.send_error(502)
            return
        self.send_response(200)
        self.end_headers()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        engines.authority.issue_cert(host).configure_cert(context)
        try:
            with context.wrap_socket(self.connection, server_side=True) as secure:
                secure.settimeout(5)
                secure.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                secure.sendall(head % len(PAGE) + PAGE)
        except OSError:  # who asked has gone
            pass

    def log_message(self, *_: object) -> None:
        """Nothing: it would be in the way."""
