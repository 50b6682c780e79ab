"""Answers every request with what it was: `echo.py PORT` behind a proxy, `echo.py PORT CERT KEY` with TLS in the place
of MCIAS, where it lets everybody in."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = {"method": self.command, "path": self.path, "headers": headers, "body": body.decode()}
        if "Transfer-Encoding" in self.headers:
            request["body"] = "chunked"
        text = json.dumps(request, sort_keys=True).encode()
        print(text.decode(), flush=True)
        self.send_response(200)
        for name in ("Subject", "Username", "Roles"):
            self.send_header(f"X-Mcias-{name}", "echo")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
