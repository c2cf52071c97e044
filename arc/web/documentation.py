"""The API description: /openapi.json, Swagger UI at /docs and ReDoc at /redoc, all served from here, no CDN.

How to add a route
------------------
1. Find the blueprint file of its surface (tokens.py, query.py, ...) or make one with a `surface = Surface(...)` and
   name it in SURFACES of application.py.
2. Write pydantic models for what comes in and goes out, with an `example` in `json_schema_extra` of the model. (Not
   `Field(examples=[...])`: flask-openapi3 refuses it in `path` and `query`, and drops it elsewhere.)
3. Write the handler: it parses, makes one call, answers. The docstring is what users read.

       @surface.api("POST", "/jobs/<int:job_id>/cancel", needs="write", answers={200: JobInfo}, errors=[404, 409])
       def cancel_job(path: JobPath, query: CancelQuery, body: CancelReason) -> Response:
           \"\"\"Stop a job and its running tasks.\"\"\"
           return jsonify(job_json(parts().jobs.cancel(path.job_id, body.reason)))

   Parameters called `path`, `query`, `body`, `header` are filled from the request by the model they are annotated
   with; a value that does not fit is a 400 naming the field. Further paths are aliases of the first.
   `needs` is checked before the handler runs. What changes access, commands machines or destroys data has an `audit`
   too, and the handler notes what the path does not say (audit.py). Errors are raised by the domain, never caught here.
   A body that no model describes is declared with `body=` (OpenAPI `content`), a header with `headers=`; the handler
   reads both from the request. A route that must not pay for Flask is a `@surface.hot(...)` (see write.py).
4. Nothing else: description, samples in four languages, access and tests of both follow from the decorator.
"""

from __future__ import annotations

from importlib.resources import files

from flask import Response, current_app, request
from pydantic import BaseModel

from arc.errors import NotFound
from arc.web.auth import PUBLIC
from arc.web.compression import compress
from arc.web.surface import Surface

# Both pages style themselves inline, ReDoc searches in a worker; nothing may come from another host.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SWAGGER = files("flask_openapi3_swagger") / "templates" / "swagger"
_REDOC = files("flask_openapi3_redoc") / "templates" / "redoc"
ASSETS = {
    "swagger-ui.css": _SWAGGER / "css" / "swagger-ui.css",
    "swagger-ui-bundle.js": _SWAGGER / "js" / "swagger-ui-bundle.js",
    "redoc.js": _REDOC / "js" / "redoc.standalone.js",
}
# ReDoc would fetch its maker's logo from a CDN; an image that cannot be loaded it leaves out.
_REDOC_LOGO = (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")
_SWAGGER_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Arc API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_SWAGGER_START = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  validatorUrl: null,
});
"""
_REDOC_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Arc API reference</title>
<link rel="icon" href="data:,">
<style>body { margin: 0 }</style>
</head>
<body>
<redoc spec-url="/openapi.json" required-props-first></redoc>
<script src="/docs/redoc.js"></script>
</body>
</html>
"""


class AssetPath(BaseModel):
    name: str


surface = Surface("documentation", "Documentation", "This description, for people and for programs.")


@surface.api("GET", "/openapi.json", needs=PUBLIC, answers={200: {"description": "OpenAPI 3.0 of this server"}})
def openapi_document() -> Response:
    """This document."""
    from arc.web.description import document

    surfaces = tuple(each for each in current_app.blueprints.values() if isinstance(each, Surface))
    answer = Response(document(surfaces), mimetype="application/json")
    answer.add_etag()
    answer.make_conditional(request)
    return answer


@surface.api("GET", "/docs", needs=PUBLIC, answers={200: {"description": "HTML"}})
def swagger_ui() -> Response:
    """Swagger UI: try every route from the browser."""
    return _page(_SWAGGER_PAGE, "text/html")


@surface.api("GET", "/redoc", needs=PUBLIC, answers={200: {"description": "HTML"}})
def redoc() -> Response:
    """ReDoc: the reference to read, search and download."""
    return _page(_REDOC_PAGE, "text/html")


@surface.api("GET", "/docs/start.js", needs=PUBLIC, answers={200: {"description": "JavaScript"}})
def swagger_start() -> Response:
    """Starts Swagger UI; a file of its own because the pages forbid inline scripts."""
    return _page(_SWAGGER_START, "text/javascript")


@surface.api("GET", "/docs/<name>", needs=PUBLIC, answers={200: {"description": "Script or style"}}, errors=[404])
def page_asset(path: AssetPath) -> Response:
    """What the two pages are made of."""
    if path.name not in ASSETS:
        raise NotFound(f"no file {path.name!r}")
    mimetype = "text/css" if path.name.endswith(".css") else "text/javascript"
    answer = Response(ASSETS[path.name].read_bytes().replace(*_REDOC_LOGO), mimetype=mimetype)
    answer.cache_control.max_age = 3600
    return compress(answer)


def _page(text: str, mimetype: str) -> Response:
    return Response(text, mimetype=mimetype, headers={"Content-Security-Policy": PAGE_POLICY})
