"""Constraints between parts of a request, which openapi.yaml cannot express."""

import schemathesis


def within_64_bits(value):
    """Returns the JSON value with integers beyond 64 bits as strings, as clients must send them."""
    if isinstance(value, dict):
        return {key: within_64_bits(member) for key, member in value.items()}
    if isinstance(value, list):
        return [within_64_bits(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    query, headers, body, path = case.query, case.headers, case.body, case.path_parameters
    # A link from a response without a message, such as an entry of the audit log.
    if path and "messageId" in path and path["messageId"] in (None, "None"):
        path["messageId"] = "01a2064a-3f01-7521-8e7a-2efe52754594"
    # `before` and `after` exclude each other.
    if query and "before" in query and "after" in query:
        del query["after"]
    if not isinstance(body, dict):
        return
    # The field and the header must have the same value. Not every value is valid in a header.
    name = body.get("clientMessageId")
    if headers and isinstance(name, str) and 0 < len(name) <= 128:
        for key in [key for key in headers if key.lower() == "idempotency-key"]:
            if name.isascii() and name.isprintable() and name == name.strip():
                headers[key] = name
            else:
                del headers[key]
    # The rider and the driver must differ.
    if isinstance(body.get("driverId"), str) and body.get("driverId") == body.get("riderId"):
        body["driverId"] = None
    # U+0085 is white space in Unicode, but `\S` matches it in ECMA-262.
    content = body.get("content")
    if isinstance(content, str) and "\u0085" in content and not content.strip():
        body["content"] = "a word"
    # The schema allows any object, so it cannot limit the numbers in it.
    for member in ("metadata", "data"):
        if isinstance(body.get(member), dict):
            body[member] = within_64_bits(body[member])
