"""A server on Python's standard library: what `real_servers.rs` asks of one. Listens on the path or port that it is given."""

import http.server
import os
import socketserver
import sys
import threading

gate = threading.Semaphore(0)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/length":
            self.answer(b"length")
        elif self.path == "/chunks":
            self.begin_chunks("text/plain", ("Trailer", "X-Sum"))
            for chunk in (b"one ", b"two"):
                self.chunk(chunk)
            self.wfile.write(b"0\r\nX-Sum: 7\r\n\r\n")
        elif self.path == "/events":
            self.begin_chunks("text/event-stream")
            for number in range(5):
                self.chunk(f"data: {number}\n\n".encode())
                # The next one only when the client has seen this one, and says so.
                gate.acquire()
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/go":
            gate.release()
            self.answer(b"gone on")
        else:
            self.send_error(404)

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(body)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_chunks(self, media_type, *fields):
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        for field in fields:
            self.send_header(*field)
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def address_string(self):
        return "the gateway"

    def log_message(self, *_):
        pass


class OnPath(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


where = sys.argv[1]
if where.startswith("/"):
    # Made under another name, so that it listens when it is there.
    server = OnPath(where + ".new", Handler)
    os.rename(where + ".new", where)
else:
    server = http.server.ThreadingHTTPServer(("", int(where)), Handler)
server.serve_forever()
