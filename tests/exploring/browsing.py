"""What the browser's tests look at."""

from pathlib import Path
from typing import Any

FIELDS = ("token", "place", "probability", "surprise", "rank", "where", "nucleus", "mass", "kept", "entropy")


class Visit:
    """A page in a browser window, and all that it asked for and complained of."""

    def __init__(self, context: Any, path: Path) -> None:
        self.context, self.path = context, path
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.expected_requests: list[str] = []
        self.expected_complaints: list[str] = []
        context.on("request", lambda request: self._requested(request.url))
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.goto(path.as_uri())

    def _requested(self, url: str) -> None:
        # An address that holds its own content asks nobody.
        if not url.startswith("data:"):
            self.requests.append(url)

    def panel(self) -> dict[str, str]:
        """The fields of the panel."""
        return {name: self.page.locator(f"#{name}").inner_text() for name in FIELDS}

    def choices(self) -> list[list[str]]:
        """The rows of the panel's table that can be seen: rank, token, the bar, probability."""
        rows = self.page.locator("#choices tbody tr:visible").all()
        return [[cell.inner_text() for cell in row.locator("td").all()] for row in rows]

    def current(self) -> int:
        """The number of the token that is selected."""
        return self.page.evaluate("[...document.querySelectorAll('.t')].findIndex(t => t.matches('.current'))")

    def focused(self) -> int:
        """The number of the token that has the focus; -1 where none has."""
        return self.page.evaluate("[...document.querySelectorAll('.t')].indexOf(document.activeElement)")

    def colours(self, selector: str) -> tuple[str, str]:
        """Background and text of the first such element, as '#rrggbb'."""
        style = "(node) => { const s = getComputedStyle(node); return [s.backgroundColor, s.color]; }"
        background, text = self.page.locator(selector).first.evaluate(style)
        return _hex(background), _hex(text)


def _hex(colour: str) -> str:
    """Of 'rgb(1, 2, 3)'."""
    return "#" + "".join(f"{int(part):02x}" for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
