"""Boards in network namespaces, a release, and the ways of rolling it out, measured in turn.

``boards`` makes the boards, ``delay`` the distance to them, ``workload`` the release; ``peers`` are the ways,
``measure`` runs one of them once, ``venv`` installs them, ``table`` sums up, ``cli`` leads through all of it.
"""
