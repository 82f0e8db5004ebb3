"""What openapi.yaml cannot say: how the parts of a request go together."""

import schemathesis


def within_64_bits(value):
    """The same JSON, with integers that 64 bits cannot hold as strings, which is how they are to be sent."""
    if isinstance(value, dict):
        return {key: within_64_bits(member) for key, member in value.items()}
    if isinstance(value, list):
        return [within_64_bits(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    query, headers, body = case.query, case.headers, case.body
    # A page of history lies before a position or after one.
    if query and "before" in query and "after" in query:
        del query["after"]
    if not isinstance(body, dict):
        return
    # Two names for one message must be the same; not all can stand in a header.
    name = body.get("clientMessageId")
    if headers and isinstance(name, str) and 0 < len(name) <= 128:
        for key in [key for key in headers if key.lower() == "idempotency-key"]:
            if name.isascii() and name.isprintable() and name == name.strip():
                headers[key] = name
            else:
                del headers[key]
    # Who rides does not drive.
    if isinstance(body.get("driverId"), str) and body.get("driverId") == body.get("riderId"):
        body["driverId"] = None
    # A space in Unicode, and none in ECMA-262's `\S`.
    content = body.get("content")
    if isinstance(content, str) and "\u0085" in content and not content.strip():
        body["content"] = "a word"
    # A schema of any object cannot bound the numbers within.
    for member in ("metadata", "data"):
        if isinstance(body.get(member), dict):
            body[member] = within_64_bits(body[member])
