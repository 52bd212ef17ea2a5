#!/bin/bash
# All boards at once, one SSH connection each: the release as a tar the first time, after that nothing at all.
# Usage: bare.sh SSH_CONFIG RELEASE OUT BOARDS
set -euo pipefail
export CONFIG=$1 RELEASE=$2 OUT=$3

board() {
    set -euo pipefail
    if [[ -e $OUT/$1 ]]; then
        exec ssh -F "$CONFIG" "$1" true < /dev/null
    fi
    mkdir "$OUT/$1"
    tar -C "$RELEASE" -cf - . | ssh -F "$CONFIG" "$1" 'mkdir -p bench/release && exec tar -C bench/release -xf -'
}
export -f board
xargs -a "$4" -P 1000 -I '{}' bash -c 'board {}'
