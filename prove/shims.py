"""Preloaded libraries that replace functions of the C library: fsync that is slow or fails, and clocks that step."""

import pathlib
import shutil
import subprocess

SLOW_FSYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file named by FSYNC_FAULT holds "slow MILLISECONDS" or "fail"; with any other content there is no fault. */
static int faulty(void) {
    char word[32] = "", *file = getenv("FSYNC_FAULT");
    int milliseconds = 0;
    FILE *fault = file ? fopen(file, "re") : NULL;
    if (!fault) return 0;
    if (fscanf(fault, "%31s %d", word, &milliseconds) < 1) word[0] = 0;
    fclose(fault);
    if (!strcmp(word, "slow")) usleep(milliseconds * 1000);
    return !strcmp(word, "fail");
}
#define WRAP(name) \
    int name(int file) { \
        static int (*real)(int); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (faulty()) { errno = EIO; return -1; } \
        return real(file); \
    }
WRAP(fsync)
WRAP(fdatasync)
"""

FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


class Fsync:
    """Controls fsync and fdatasync of programs started with `environment`: `set("slow 200")`, `set("fail")`, `set("")`."""

    def __init__(self, directory):
        self._file = directory / "fsync-fault"
        self.environment = {}
        if not (compiler := shutil.which("cc")):
            self.unsupported_reason = "no C compiler"
            return
        source, library = directory / "fsync.c", directory / "fsync.so"
        source.write_text(SLOW_FSYNC)
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        self.unsupported_reason = f"cc: {built.stderr[:200]}" if built.returncode else None
        self.set("")
        if not self.unsupported_reason:
            self.environment = {"LD_PRELOAD": str(library), "FSYNC_FAULT": str(self._file)}

    def set(self, words):
        self._file.write_text(words)


class Clock:
    """Controls the time of day of programs started with `environment`: `step(3600)` sets it an hour ahead. Monotonic clocks are unaffected."""

    def __init__(self, directory, name):
        self._file = directory / f"clock-{name}"
        found = [path for pattern in FAKETIME for path in pathlib.Path("/").glob(pattern[1:])]
        self.unsupported_reason = None if found else "Debian's libfaketime is not installed"
        self.environment = {}
        self.step(0)
        if found:
            self.environment = {
                "LD_PRELOAD": str(found[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
            }

    def step(self, seconds):
        self._file.write_text(f"{seconds:+d}\n")


def merged(*environments):
    """The union of the environments; their LD_PRELOAD values are joined to a list."""
    joined = {name: value for one in environments for name, value in one.items()}
    if libraries := [one["LD_PRELOAD"] for one in environments if "LD_PRELOAD" in one]:
        joined["LD_PRELOAD"] = " ".join(libraries)
    return joined
