"""A server for tests: it gives any request a label; after so many it ends, or gives another status."""

import argparse
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENDED = 7

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--label", required=True)
parser.add_argument("--answers", type=int, help="so many are good; all of them unless told")
parser.add_argument("--later", type=int, help="the status of those after; unless told, it ends")
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    """Counts over all connections."""

    protocol_version = "HTTP/1.1"
    answered = 0

    def do_POST(self) -> None:
        """Answer, or end."""
        enough = Handler.answered == options.answers
        if enough and options.later is None:
            os.write(sys.stderr.fileno(), b"a last word\n")
            os._exit(ENDED)
        Handler.answered += not enough
        self.rfile.read(int(self.headers["Content-Length"]))
        body = f'{{"label": "{options.label}"}}'.encode()
        self.send_response(options.later if enough else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing of it."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
