"""How the operands of packs are joined that do not say it themselves.

In: the manifest of a pack of format 1, or of an earlier form of format 2. Out: its block kinds as
JSON, as packs of this release state them. Knows nothing of files or graphs.
"""

from __future__ import annotations

from typing import Any

from sti.json_fields import JsonFields
from sti.model.manifest import COLUMNS, ROWS


def joined_kinds(fields: JsonFields) -> list[dict[str, Any]]:
    """The block kinds of an older manifest, and how their operands are joined.

    Columns of an operand that belong to slices have scales that do; an operand whose rows belong to
    slices has scales that all of them share.
    """
    kinds = []
    for kind in fields.objects("kinds"):
        sliced, shared = kind.texts("sliced"), kind.texts("shared")
        operands = []
        for operand in kind.objects("operands"):
            scale = f"{operand.text('name')}_scale"
            if (scale in sliced) == (scale in shared):
                raise operand.fail("name", "an operand with scales, sliced or shared")
            operands.append(operand.members() | {"joined": COLUMNS if scale in sliced else ROWS})
        kinds.append(kind.members() | {"operands": operands})
    return kinds
