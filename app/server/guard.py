"""What every request passes before it reaches a desk."""

from __future__ import annotations

from starlette.types import ASGIApp

from app.server.access import Access
from app.server.allowed_hosts import AllowedHosts
from app.server.own_sessions import OwnSessions
from app.server.request_limits import BodyLimit, ConcurrencyLimit
from app.server.security_headers import SecurityHeaders
from app.server.visitors import Visitors


def guarded(site: ASGIApp, access: Access) -> ASGIApp:
    """Return the site behind the checks of docs/hosting.md, the outermost last."""
    app: ASGIApp = OwnSessions(site)
    app = BodyLimit(app)
    app = ConcurrencyLimit(app)
    app = Visitors(app, access)
    app = AllowedHosts(app, access)
    return SecurityHeaders(app, access)
