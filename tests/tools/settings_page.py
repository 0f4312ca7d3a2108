"""Write the lists of settings into docs/checkpoints.md: ``python -m tests.tools.settings_page``.

In: ``shard_tools/checkpoint/settings.toml``. Out: the part of the page between two comments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from shard_tools.checkpoint.settings import setting_lists
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "checkpoints.md"
BEGIN = "<!-- made by python -m tests.tools.settings_page -->\n"
END = "<!-- end of what was made -->\n"


def page() -> str:
    """The page with the lists as they are."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n" + "\n".join(_lines()) + "\n" + END + rest.partition(END)[2]


def _lines() -> Iterator[str]:
    for name, found in setting_lists().items():
        yield f"### `{name}`"
        yield ""
        yield f"{found.about[:1].upper()}{found.about[1:]}."
        yield ""
        if found.applied:
            yield f"- applied: {_names(sorted(found.applied))}"
        groups: dict[str, list[str]] = {}
        for key, because in found.harmless.items():
            groups.setdefault(because, []).append(key)
        for because, keys in groups.items():
            yield f"- harmless, {because}: {_names(sorted(keys))}"
        for key, refusal in sorted(found.refused.items()):
            values = ", ".join(f"`{json.dumps(value)}`" for value in refusal.unless) or "`null`"
            yield f"- refused: `{key}`, unless {values}: {refusal.because}"
        yield ""


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
