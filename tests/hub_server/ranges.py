"""The Range header: parts of a file, as `HfFileSystem` and resumed downloads ask for them."""

import re

from .messages import Answer

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def ranged_answer(content: bytes, wanted: str | None, headers: dict[str, str]) -> Answer:
    """The whole (200), the bytes of one range (206), or 416 where the range lies behind the end.

    Several ranges at once, which no client here asks for, get the whole, as RFC 9110 allows.
    """
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    match = RANGE.fullmatch(wanted or "")
    if match is None or match.group() == "bytes=-":
        return Answer(200, headers, content)
    first, last = match.groups()
    if first:
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
    else:
        start, stop = max(len(content) - int(last), 0), len(content)
    if start >= stop:
        return Answer(416, {**headers, "Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Answer(206, headers, content[start:stop])
