"""Who may ask, and how often: before anything of a request is read but its headers."""

import ipaddress

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api_keys import ApiKeys
from app.errors import RateLimited, ServingError, Unauthorized, answer
from app.headers import key_of
from app.rate_limit import RateLimiter

# An orchestrator holds no key, and must never be told to ask less often.
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
# A host has a whole network of this size to choose its IPv6 addresses from (RFC 6177).
IPV6_HOST_BITS = 64
NO_ADDRESS = "no address"


class AccessMiddleware:
    """Refuses requests without a valid key, if keys are configured, and those over their client's rate.

    Args:
        app: What answers the others.
        keys: The valid keys; None lets everyone in.
        admin_keys: Those of administrators, which are valid too.
        limiter: The rate of each client; None sets no limit.
    """

    def __init__(
        self, app: ASGIApp, keys: ApiKeys | None, admin_keys: ApiKeys | None, limiter: RateLimiter | None
    ) -> None:
        self._app = app
        self._keys = keys
        self._admin_keys = admin_keys
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            request = Request(scope)
            try:
                self._check(request)
            except ServingError as error:
                await answer(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        caller = None
        if self._keys is not None:
            try:
                caller = request.state.caller = _identify(request.scope, self._keys, self._admin_keys)
            except Unauthorized:
                # Who has no key is counted by address: else whoever guesses might ask as often as they like.
                self._limit(_host(request))
                raise
        self._limit(caller or _host(request))

    def _limit(self, client: str) -> None:
        wait_s = self._limiter.ask(client) if self._limiter is not None else 0.0
        if wait_s:
            raise RateLimited("too many requests of this client; wait as Retry-After says", wait_s)


def _identify(scope: Scope, keys: ApiKeys, admin_keys: ApiKeys | None) -> str:
    key = key_of(scope)
    if key is None:
        raise Unauthorized("an API key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY")
    client = keys.client_of(key)
    # An administrator's key opens what others open, and the routes of administrators see to themselves.
    if client is None and admin_keys is not None:
        client = admin_keys.client_of(key)
    if client is None:
        raise Unauthorized("the API key is not, or no longer, valid")
    return client


def _host(request: Request) -> str:
    """Return where a request is from: its IPv4 address, or the network of its IPv6 one.

    A proxy says it, and may hand on whatever it was told: all that is no address is one client.
    """
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return NO_ADDRESS
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, IPV6_HOST_BITS), strict=False))
