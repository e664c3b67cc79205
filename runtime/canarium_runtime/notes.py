"""Notes: what an answer tells its client about the request besides the outputs.

They are made by the validation rules (a value was let through, or put right) and written by the protocols' codecs.
"""

from dataclasses import dataclass

from canarium_api.metric_names import RuleKind

MAX_NOTES = 10
"""Of one request; the last one then says how many more there are."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to say."""

    kind: RuleKind
    field: str
    """Path of the value, such as `inputs.x[0][3]`."""
    message: str
    """A sentence; it begins with the field."""


Notes = tuple[Note, ...]
NO_NOTES: Notes = ()


def bounded(notes: Notes) -> Notes:
    """Keep the first MAX_NOTES."""
    if len(notes) <= MAX_NOTES:
        return notes
    last = notes[MAX_NOTES - 1]
    more = len(notes) - MAX_NOTES
    return (
        *notes[: MAX_NOTES - 1],
        Note(last.kind, last.field, f"{last.message}; and {more} more like these"),
    )


def warnings_of(notes: Notes) -> list[str]:
    """Give what answers write as `warnings`."""
    return [note.message for note in notes]
