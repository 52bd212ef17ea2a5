"""``python -m toolkit.sim serve``: the server's process. Not for users: ``deploy sim`` is."""

import sys

if __name__ == "__main__":
    if sys.argv[1:] != ["serve"]:
        sys.exit("usage: python -m toolkit.sim serve (a specification on standard input)")
    from toolkit.sim.server import serve

    sys.exit(serve())
