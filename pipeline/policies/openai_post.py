"""One paid call on the wire, without the SDK's way of building a request.

For every call the SDK copies and checks options, merges headers, parses the URL and encodes the
body: 0.9 of its 1.5 ms of CPU, though the calls of a run differ in nothing but their body; with 64
in flight that was what held them up. So headers, URL and time limits are taken from the SDK's
client once; its connections, TLS, proxies and errors stay.
"""

import json
import ssl
from typing import Any

import httpx2
import openai


class Post:
    """Sends bodies to one endpoint, as `openai.AsyncOpenAI.post` without retries does."""

    def __init__(
        self, client: openai.AsyncOpenAI, http: httpx2.AsyncClient, path: str, timeout_s: float
    ) -> None:
        """`http` is what `client` was given as its `http_client`."""
        self._http = http
        self._url = httpx2.URL(f"{str(client.base_url).rstrip('/')}{path}")
        told = {**client.auth_headers, **client.default_headers}
        self._headers = httpx2.Headers(
            {name: value for name, value in told.items() if isinstance(value, str)}
        )
        self._extensions = {"timeout": httpx2.Timeout(timeout_s).as_dict()}

    async def __call__(self, body: bytes) -> httpx2.Response:
        """The server's answer of a success, all of it. Raises openai.APIStatusError for any other,
        openai.APIConnectionError, of which a timeout is one, and what a garbled answer raises."""
        request = httpx2.Request(
            "POST", self._url, headers=self._headers, content=body, extensions=self._extensions
        )
        try:
            response = await self._http.send(request)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request) from error
        except (httpx2.RequestError, ssl.SSLError) as error:
            raise openai.APIConnectionError(request=request) from error
        if not response.is_success:
            raise _status_error(response)
        return response


def _status_error(response: httpx2.Response) -> openai.APIStatusError:
    """With the server's own words, where it has any, and the code and parameter that it names."""
    try:
        body: Any = json.loads(response.content)
    except (ValueError, RecursionError):
        body = response.text
    told = body.get("error", body) if isinstance(body, dict) else body
    message = told.get("message") if isinstance(told, dict) else None
    return openai.APIStatusError(
        f"Error code: {response.status_code} - {message or body}", response=response, body=told
    )
