#!/bin/bash
# Rollout as by hand. Usage: scp.sh SSH_CONFIG RELEASE OUT BOARDS
set -euo pipefail
while IFS= read -r board <&3; do
    ssh -F "$1" "$board" 'rm -rf bench && mkdir -p bench'
    scp -q -F "$1" -r "$2" "$board:bench/"
    ssh -F "$1" "$board" '
        set -e
        grep -qxFf bench/release/env.sh ~/.bashrc || cat bench/release/env.sh >> ~/.bashrc
        . bench/release/env.sh
        python3 bench/release/run.py bench/release bench/results
    '
    mkdir -p "$3/$board"
    scp -q -F "$1" "$board:bench/results/*" "$3/$board/"
done 3< "$4"
