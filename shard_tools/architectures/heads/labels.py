"""The names of a classifier's labels, from ``config.json``.

In: the configuration and how many outputs the classifier has. Out: a name for each. Knows nothing
of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from sti.errors import CheckpointError
from sti.json_fields import JsonFields, whole_number


def label_names(fields: JsonFields, count: int, *, rows_of: str) -> tuple[str, ...]:
    """Label names by number; ``LABEL_0`` and so on where the configuration names none.

    Names that are numbers are taken as texts, and ``label2id`` is read where ``id2label`` is not
    there.

    Args:
        fields: the configuration.
        count: how many outputs there are.
        rows_of: the tensor with so many rows, for messages.

    Raises:
        CheckpointError: the names do not fit the classifier, or contradict one another.
    """
    if fields.has("num_labels") and (told := fields.integer("num_labels")) != count:
        raise CheckpointError(
            f"{fields.where}: num_labels is {told}, tensor {rows_of!r} has {count} rows"
        )
    named, reverse = _by_number(fields), _by_name(fields)
    if named and reverse and named != reverse:
        raise CheckpointError(f"{fields.where}: id2label and label2id contradict each other")
    named = named or reverse
    if len(named) == count:
        return tuple(named[number] for number in range(count))
    # transformers writes two labels by default, whatever the number of outputs.
    if set(named.values()) != {f"LABEL_{number}" for number in range(len(named))}:
        key = "id2label" if fields.has("id2label") else "label2id"
        raise CheckpointError(
            f"{fields.where}: {key} has {len(named)} labels, tensor {rows_of!r} has {count} rows"
        )
    return tuple(f"LABEL_{number}" for number in range(count))


def _by_number(fields: JsonFields) -> Mapping[int, str]:
    """``id2label``; empty where it is not there."""
    if not fields.has("id2label"):
        return {}
    table = fields.object("id2label")
    found: dict[int, str] = {}
    for key in table.keys():
        value = table.raw(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise table.fail(key, "a string or an integer")
        number = whole_number(key)
        if number is not None:
            found[number] = value
    return _numbered(fields, "id2label", found, len(table.keys()))


def _by_name(fields: JsonFields) -> Mapping[int, str]:
    """``label2id``, the other way round; empty where it is not there."""
    if not fields.has("label2id"):
        return {}
    table = fields.object("label2id")
    found: dict[int, str] = {}
    for key in table.keys():
        value = table.raw(key)
        if isinstance(value, str):
            value = whole_number(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise table.fail(key, "the number of a label")
        found[value] = key
    return _numbered(fields, "label2id", found, len(table.keys()))


def _numbered(
    fields: JsonFields, key: str, found: Mapping[int, str], count: int
) -> Mapping[int, str]:
    """The names, if they are numbered from 0 without a gap."""
    if set(found) != set(range(count)):
        raise fields.fail(key, "labels numbered from 0")
    return found
