"""uvicorn's HTTP protocol, with the envelope for what is no HTTP at all and so never reaches the app."""

from __future__ import annotations

import secrets

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openproto.errors import InvalidRequestError
from openproto.models import OMP_VERSION


class EnvelopeProtocol(HttpToolsProtocol):
    """Answers bytes that are no request as any other bad request is answered."""

    def send_400_response(self, msg: str) -> None:
        """Send the answer and hang up."""
        error = InvalidRequestError("this is no valid HTTP/1.1 request", request_id=secrets.token_hex(8))
        body = to_json(error.to_envelope())
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n"
            f"omp-version: {OMP_VERSION}\r\n"
            f"x-request-id: {error.request_id}\r\n"
            "\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
