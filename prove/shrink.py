"""Shrinks a row's history to a minimal part that still shows the anomaly.

Only operations that no remaining one depends on are removed: observations, and changes that no remaining answer refers to. So
the anomaly in the rest is that of the whole history and not an artifact of the removal.
"""

from history import CONFLICT, DONE, NOT_FOUND, PRECONDITION_FAILED

# Outcomes that are valid only because of another change.
CAUSED_BY_CHANGES = (PRECONDITION_FAILED, NOT_FOUND, CONFLICT)


def smallest(operations, has_anomaly):
    """A minimal part of `operations` for which `has_anomaly` is still true."""
    kept = list(operations)
    size = max(1, len(kept) // 2)
    while True:
        shorter, start = False, 0
        while start < len(kept):
            removed = kept[start : start + size]
            rest = kept[:start] + kept[start + size :]
            if rest and _is_removable(removed, rest) and has_anomaly(rest):
                kept, shorter = rest, True
            else:
                start += size
        if size == 1 and not shorter:
            return kept
        size = max(1, size // 2)


def _is_removable(removed, rest):
    changes = [op for op in removed if not (op.kind == "read" or op.outcome in CAUSED_BY_CHANGES)]
    if not changes:
        return True
    if any(op.kind in ("create", "delete", "restore") for op in changes):
        return False
    if any(op.outcome in CAUSED_BY_CHANGES or op.kind in ("delete", "restore") for op in rest):
        return False
    versions = {op.version for op in changes if op.version}
    names = {op.name for op in changes if op.name}
    return not any(op.expected in versions or op.outcome == DONE and op.kind == "read" and op.name in names for op in rest)
