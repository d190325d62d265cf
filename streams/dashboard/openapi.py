"""The API's description, made from the table of endpoints and the types that they answer with (OpenAPI 3.1)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from streams.dashboard import shapes
from streams.dashboard.api import ENDPOINTS, ROOT, Endpoint, Parameter
from streams.dashboard.readers import ReaderRole

PROBLEMS: Final = {
    400: "A parameter is unknown, given twice, or out of its limits.",
    401: "No key, or one that opens nothing.",
    403: "The key's role does not see this.",
    404: "The tenant has none of that name.",
    429: "Too many requests; Retry-After says when to go on.",
    503: "The store does not answer; Retry-After says when to try again.",
}
_REF: Final = "#/components/schemas/{name}"


@cache
def description() -> dict[str, Any]:
    """The document. A caller may not change it."""
    answers = [endpoint.shape for endpoint in ENDPOINTS]
    schemas, components = msgspec.json.schema_components([*answers, shapes.Problem], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Schleuse",
            "version": version("schleuse"),
            "summary": "Published figures of one tenant, with noise, so that they say nothing about any one recipient.",
        },
        "servers": [{"url": ROOT}],
        "security": [{"key": []}],
        "paths": {
            endpoint.path: {"get": _operation(endpoint, schema)}
            for endpoint, schema in zip(ENDPOINTS, schemas, strict=False)
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "schleuse readers add"}},
        },
    }


def roles(endpoint: Endpoint) -> list[str]:
    """Who may ask it."""
    return [str(role) for role in ReaderRole if endpoint.sees(role)]


def _operation(endpoint: Endpoint, schema: dict[str, Any]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    return {
        "operationId": "_".join(part.strip("{}") for part in endpoint.path.strip("/").split("/")),
        "summary": endpoint.means,
        "description": f"Roles: {', '.join(roles(endpoint))}.",
        "parameters": [_parameter(one) for one in endpoint.parameters],
        "responses": {
            "200": {"description": endpoint.means, "content": {"application/json": {"schema": schema}}},
            **{
                str(status): {"description": says, "content": problem}
                for status, says in PROBLEMS.items()
                if status != 404 or any(one.in_path for one in endpoint.parameters)
            },
        },
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 512}
    if one.kind is int:
        schema = {"type": "integer", "minimum": one.least, "maximum": one.most, "default": one.default}
    return {
        "name": one.name,
        "in": "path" if one.in_path else "query",
        "required": one.in_path,
        "description": one.means,
        "schema": schema,
    }
