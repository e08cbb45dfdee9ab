"""The service over HTTP: a page, and jobs that take a scan and give its mask. What it answers is in docs/serving.md."""

import asyncio
import hmac
import logging
import re
import time
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seg.data.volumes import ending as ending_of
from seg.deploy.incoming import ENDINGS, VIEW, Incoming, divided, outside
from seg.deploy.jobs import FullError, Job, Jobs
from seg.errors import DataError
from seg.pages.html import page, resource

log = logging.getLogger(__name__)
SCRIPTS = ("elements.js", "compare_slices.js", "serve.js")
_STALLED_SECONDS, _UPLOAD_SECONDS = 60.0, 3600.0  # without a byte; of a whole upload
_SECURE = {
    "content-security-policy": "frame-ancestors 'none'",  # beside that within the page
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


def service(incoming: Incoming, jobs: Jobs, *, token: str, max_mb: float) -> ASGIApp:
    """The application.

    Args:
        incoming: what is done with a scan.
        jobs: does it.
        token: that requests about scans must show; "": none, and only names of this very machine are answered.
        max_mb: of one upload, in megabytes.
    """
    app = FastAPI(title="seg.serve", docs_url=None, redoc_url=None)
    text = page(
        "Segmentation",
        "",
        resource("serve.html"),
        style=resource("compare.css") + resource("serve.css"),
        scripts=[resource(name) for name in SCRIPTS],
        connect=True,
    )

    @app.get("/", response_class=HTMLResponse)
    async def _page() -> str:
        return text

    @app.get("/health")
    async def _health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def _ready() -> dict[str, str]:
        if not jobs.ready:
            raise _stopping()
        return {"status": "ready"}

    app.include_router(_Scans(incoming, jobs, token, max_mb).router())
    for kind in (AnyHTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _said)
    return Guarded(app, any_host=bool(token))


class _Scans:
    """What is answered about scans, to whoever shows the token."""

    def __init__(self, incoming: Incoming, jobs: Jobs, token: str, max_mb: float) -> None:
        self.incoming, self.jobs, self.token, self.max_mb = incoming, jobs, token, max_mb
        self.limit = int(max_mb * 1e6)  # bytes

    def router(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(self.authorised)])
        router.get("/network")(self.network)
        router.post("/jobs", status_code=202)(self.send)
        router.get("/jobs/{name}")(self.job)
        router.delete("/jobs/{name}")(self.remove)
        router.get("/jobs/{name}/mask")(self.mask)
        router.get("/jobs/{name}/view")(self.view)
        return router

    async def authorised(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            said = "The token is missing or wrong. The service printed it when it was started: Authorization: Bearer …"
            raise HTTPException(401, said, {"www-authenticate": "Bearer"})

    async def network(self) -> dict[str, Any]:
        return self.incoming.about() | {"max_mb": self.max_mb, "max_voxels": self.incoming.max_voxels}

    async def send(
        self, request: Request, sizes: str = "", ending: str = ".nii.gz", view: bool = False
    ) -> dict[str, Any]:
        expected = _expected(request, sizes, len(self.incoming.channels), self.limit)
        if ending not in ENDINGS:
            raise HTTPException(
                400, f"This ending is not taken. It must be one of {', '.join(ENDINGS)}: convert the scan."
            )
        try:
            job = self.jobs.open(view=view)
        except FullError:
            if not self.jobs.ready:
                raise _stopping() from None
            said = "The queue is full. Scans are taken again as soon as one is done: send it again later."
            raise HTTPException(429, said, {"retry-after": str(self.jobs.retry_seconds)}) from None
        except OSError as error:
            raise _no_room(error) from None
        try:
            await _received(request, body := job.folder / f"scan{ending}", self.limit)
            job.images = await run_in_threadpool(divided, body, expected)
            await run_in_threadpool(self.incoming.check, job.images)
        except BaseException as error:
            self.jobs.remove(job)
            if isinstance(error, DataError):
                raise HTTPException(400, outside(str(error), job.folder)) from None
            if isinstance(error, OSError):
                raise _no_room(error) from None
            raise
        self.jobs.submit(job)
        return self._described(job)

    async def job(self, name: str) -> dict[str, Any]:
        return self._described(self._known(name))

    async def remove(self, name: str) -> dict[str, Any]:
        job = self._known(name)
        self.jobs.remove(job)
        return self._described(job)

    async def mask(self, name: str) -> FileResponse:
        job = _finished(self._known(name))
        mask = job.folder / job.result["mask"]
        return FileResponse(mask, media_type="application/octet-stream", filename=f"mask{ending_of(mask)}")

    async def view(self, name: str) -> FileResponse:
        view = _finished(self._known(name)).folder / VIEW
        if not view.exists():
            raise HTTPException(404, "There is nothing to look at: send the scan with view=true, or take its mask.")
        return FileResponse(view, media_type="application/json")

    def _known(self, name: str) -> Job:
        if job := self.jobs.get(name):
            return job
        raise HTTPException(404, "There is no such job. Results are kept for a while only: send the scan again.")

    def _described(self, job: Job) -> dict[str, Any]:
        about = {"id": job.id, "status": job.status, "ahead": self.jobs.ahead(job), "progress": round(job.progress, 3)}
        return about | {"error": job.error, "result": job.result}


def _finished(job: Job) -> Job:
    if job.status == "finished":
        return job
    why = f": {job.error}" if job.error else ""
    raise HTTPException(409, f"The job is {job.status}{why}. Only one that is finished has a mask. Ask for its status.")


def _expected(request: Request, sizes: str, channels: int, limit: int) -> list[int]:
    """Bytes of each file in the body; [0] of one whose size is not known before it is read."""
    length = int(request.headers.get("content-length", 0))
    try:
        listed = [int(size) for size in sizes.split(",")] if sizes else [length]
    except ValueError:
        listed = [-1]
    if sizes and (min(listed) < 1 or len(listed) not in (1, channels) or (length and sum(listed) != length)):
        raise HTTPException(
            400,
            f"sizes does not fit a body of {length or 'unknown'} bytes. It lists the bytes of each file in the body, "
            f"as sizes=1000,1200: of one file, or of as many as there are channels ({channels}). Leave it out for one.",
        )
    if sum(listed) > limit:
        raise _too_large(limit)
    return listed


def _too_large(limit: int) -> HTTPException:
    said = f"The scan is larger than {limit / 1e6:g} MB, and the service takes no more. Set max_mb where it is started."
    return HTTPException(413, said)


async def _received(request: Request, body: Path, limit: int) -> None:
    """Writes the body of a request into a new file, piece by piece."""
    clock, total = asyncio.get_running_loop().time, 0
    last = clock() + _UPLOAD_SECONDS
    try:
        with body.open("xb") as file:
            async with asyncio.timeout(_STALLED_SECONDS) as waiting:
                async for piece in request.stream():
                    waiting.reschedule(min(clock() + _STALLED_SECONDS, last))
                    total += len(piece)
                    if total > limit:
                        raise _too_large(limit)
                    file.write(piece)
    except TimeoutError:
        raise HTTPException(408, "The upload stalled, or took over an hour. Send it again.") from None
    except OSError as error:
        raise _no_room(error) from None
    except ClientDisconnect:
        raise HTTPException(400, "The upload was cut off. All of it is needed. Send it again.") from None
    if not total:
        raise HTTPException(400, "The body is empty. It must be the file itself. curl: -X POST -T scan.nii.gz")


def _said(_: Request, error: Exception) -> JSONResponse:
    """Every error as ``{"error": what was seen, the rule, the fix}``."""
    status, said, headers = 500, "Unexpected error. The details are in the log of the service.", None
    if isinstance(error, AnyHTTPException):
        status, said, headers = error.status_code, str(error.detail), error.headers
        if said == HTTPStatus(status).phrase:  # of the router: no such path, no such method
            said = f"{said}. The service has /, /health, /ready, /network, /jobs and /jobs/<id>. See docs/serving.md."
    elif isinstance(error, RequestValidationError):
        status, said = 400, "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    return JSONResponse({"error": said}, status, headers)


class Guarded:
    """Around the application: who may ask at all, what every answer says to a browser, and the log of both.

    Pages of other sites get nothing. Where no token is needed, only the names of this machine are answered, so that no
    site can give itself its address (DNS rebinding). The log has no address as it was asked for, for a name may be in
    it; jobs have ids.
    """

    def __init__(self, app: ASGIApp, *, any_host: bool) -> None:
        self.app, self.any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_SECURE)
            await send(message)

        try:
            if fault := self._fault(Headers(scope=scope)):
                await JSONResponse({"error": fault}, 403)(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        finally:
            self._log(scope, status, time.monotonic() - begin)

    def _fault(self, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if not self.any_host and not is_loopback(re.sub(r":\d+$", "", host).strip("[]")):
            return "Another name than that of this machine was asked for. Use 127.0.0.1 or localhost, or set a token."
        if origin and origin.partition("://")[2] != host:
            return "Another site's page asked. Only the service's own page may. A proxy must pass the header Host on."
        return ""

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "another address")
        polled = status == 200 and scope["method"] == "GET" and not route.endswith(("mask", "view"))
        who = (scope.get("client") or ["?"])[0]
        log.log(
            *(logging.DEBUG if polled else logging.INFO, "%s %s %s: %d, %.2f s"),
            *(who, scope["method"], route, status, seconds),
        )


def is_loopback(name: str) -> bool:
    """Whether this host name is for programs on the same machine alone."""
    with suppress(ValueError):
        return ip_address(name).is_loopback
    return name == "localhost"


def _stopping() -> HTTPException:
    return HTTPException(503, "The service is stopping. It takes no more scans. Try again later.")


def _no_room(error: OSError) -> HTTPException:
    return HTTPException(507, f"The scan cannot be stored: {error.strerror}. There must be room for it.")
