"""S3 as moto serves it on this machine; tests may come between two requests, or lose the answer to one."""

import threading
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class Server:
    """Serves each request as a whole before the next, so that conditional writes are decided as by S3.

    Attributes:
        url: of the endpoint.
        before: called with method, path and headers before a request is served, at the same time as others;
            what it returns, if anything, is the status of an error that is answered instead.
        after: the same, once the request has been served.
    """

    def __init__(self):
        self.before = self.after = lambda *_: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def _answer(self, environ, start_response):
        headers = {name.removeprefix("HTTP_"): value for name, value in environ.items()}
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"], headers
        if status := self.before(*request):
            # What is left unread would break the connection before the answer has arrived.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _error(status, environ, start_response)
        with self._one_at_a_time:
            answered = []
            body = list(self._moto(environ, lambda *answer: answered.append(answer)))
        if status := self.after(*request):
            return _error(status, environ, start_response)
        start_response(*answered[0])
        return body

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _error(status, environ, start_response):
    code = {501: "NotImplemented", 403: "AccessDenied", 500: "InternalError"}[status]
    start_response(f"{status} {code}", [("Content-Type", "application/xml")])
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return [f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()]
