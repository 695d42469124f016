"""An HTTP server of a few lines, in a thread: for tests of what asks one or two plain questions."""

import contextlib
import http.server
import threading


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers what a test makes of it, and logs nothing."""

    def send(self, status, body, **headers):
        """One whole answer; headers by keyword, `Content_Type="text/plain"`."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(handler):
    """Serve with this handler class on a port of the system's choice; yields the base URL, ending in /v1."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
