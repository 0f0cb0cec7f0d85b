"""The smallest part of a row's history that still shows a fault.

Left out is only what cannot be missed: answers that say what was there, and changes that no answer left speaks of. So
what remains is a fault by itself, not one that was made by leaving something out.
"""

from history import DONE, MISSING, REFUSED

# They are right only because something else was done.
SPEAK_OF_CHANGES = (REFUSED, MISSING, "present")


def smallest(operations, is_fault):
    """A part of `operations` of which `is_fault` is still true."""
    kept = list(operations)
    size = max(1, len(kept) // 2)
    while True:
        shorter, start = False, 0
        while start < len(kept):
            gone = kept[start : start + size]
            rest = kept[:start] + kept[start + size :]
            if rest and _may_go(gone, rest) and is_fault(rest):
                kept, shorter = rest, True
            else:
                start += size
        if size == 1 and not shorter:
            return kept
        size = max(1, size // 2)


def _may_go(gone, rest):
    changes = [op for op in gone if not (op.kind == "read" or op.outcome in SPEAK_OF_CHANGES)]
    if not changes:
        return True
    if any(op.kind in ("create", "delete", "restore") for op in changes):
        return False
    if any(op.outcome in SPEAK_OF_CHANGES or op.kind in ("delete", "restore") for op in rest):
        return False
    versions = {op.version for op in changes if op.version}
    names = {op.name for op in changes if op.name}
    return not any(op.expected in versions or op.outcome == DONE and op.kind == "read" and op.name in names for op in rest)
