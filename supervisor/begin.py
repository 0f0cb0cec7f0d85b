"""The first process of the image: makes sure that RUN_DIR can be written to, then becomes supervisord.

supervisord binds its sockets before it loads anything of ours, and shows a traceback where it cannot.
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
    # It wants a place for temporary files before it reads its configuration, and makes none.
    os.environ.setdefault("TMPDIR", run_dir)
    os.execvp("supervisord", ["supervisord", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
