"""Serializers for schemathesis: bodies of types that it does not support are sent as text."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()
