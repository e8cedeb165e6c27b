"""The table of docs/verification.md: `python benchmarks/verification_table.py *.json`.

Each file is what `benchmarks/verification.py OUTPUT --model M --json FILE` wrote; its name says which run it was.
"""

import json
import sys
from pathlib import Path

COLUMNS = (
    ("entries", "entries"),
    ("nuclei equal", "nuclei_equal"),
    ("explained by a tie", "nuclei_tied"),
    ("wrong", "nuclei_wrong"),
    ("logit error beyond half a step", "rounding"),
    ("log-sum-exp, relative", "logsumexp_error"),
    ("actual token, nats", "token_error"),
    ("samples in the nucleus", "sampled_in_nucleus"),
    ("samples twice", "sampled_twice"),
    ("drawn again alike", "references_equal"),
)


def main() -> int:
    """Print the table; exit code 1 where a check failed."""
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        print("error: name the .json files to put into the table", file=sys.stderr)
        return 2
    print("| run | computed in, recomputed in | conversations |", " | ".join(title for title, _ in COLUMNS), "|")
    print("|" + "---|" * (3 + len(COLUMNS)))
    sound = True
    for file in files:
        figures = json.loads(file.read_text())
        sound &= figures["sound"]
        cells = [_cell(figures, key) for _, key in COLUMNS]
        types = f"{figures['computed_in']}, {figures['recomputed_in']}"
        print(f"| {file.stem} | {types} | {figures['conversations']:,} |", " | ".join(cells), "|")
    return 0 if sound else 1


def _cell(figures: dict[str, float], key: str) -> str:
    value = figures[key]
    if key == "references_equal":
        return f"{value} of {figures['references']}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1e}"


if __name__ == "__main__":
    sys.exit(main())
