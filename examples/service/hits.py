#!/usr/bin/env python3
"""A web service that counts its visitors in Redis. /health answers 200 when Redis does."""

import http.server
import pathlib
import socket

PASSWORD = pathlib.Path("/etc/hits/password").read_text(encoding="utf-8").strip()


def redis(command: str) -> str:
    with socket.create_connection(("127.0.0.1", 6379), timeout=5) as connection:
        connection.sendall(f"AUTH {PASSWORD}\r\n{command}\r\n".encode())
        answers = connection.makefile(encoding="utf-8")
        if answers.readline().startswith("-"):
            raise OSError("Redis refuses the password")
        return answers.readline().strip().lstrip("+:")


class Visitors(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            text = redis("PING" if self.path == "/health" else "INCR hits")
            status = 200
        except OSError as error:
            text, status = str(error), 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())


http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Visitors).serve_forever()
