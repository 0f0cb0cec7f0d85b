"""The first process of the image: checks that RUN_DIR is writable, then executes supervisord.

supervisord binds its sockets before it loads the modules of this folder, and prints a traceback if that fails.
"""

import os
import sys

import private


def main(arguments):
    run_dir = os.environ["RUN_DIR"]
    try:
        private.directory(run_dir, "RUN_DIR", shared=True)
    except private.Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    # supervisord requires a directory for temporary files before it reads its configuration, and does not create one.
    os.environ.setdefault("TMPDIR", run_dir)
    os.execvp("supervisord", ["supervisord", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
