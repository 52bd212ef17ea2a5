#!/bin/bash
# Rollout with rsync: all boards at once, one SSH connection each, two sessions on it.
# Usage: rsync.sh SSH_CONFIG RELEASE OUT BOARDS [always]
#   BOARDS: file with a name a line. always: run the program even if rsync had nothing to send.
set -euo pipefail
export CONFIG=$1 RELEASE=$2 OUT=$3 ALWAYS=${5:-}

# On the board: the lines of the environment that are missing, the program, its results to stdout as a tar.
export REMOTE='
set -e
while IFS= read -r line; do
    grep -qxF "$line" ~/.bashrc || printf "%s\n" "$line" >> ~/.bashrc
done < bench/release/env.sh
. bench/release/env.sh
rm -rf bench/results
python3 bench/release/run.py bench/release bench/results >&2
exec tar -C bench/results -cf - .
'

board() {
    set -euo pipefail
    local changed
    # A whole model is sent anew when it differs: after a retraining no block of it is the same.
    changed=$(rsync -rltp -i --whole-file --delete --mkpath -e "ssh -F $CONFIG" "$RELEASE/" "$1:bench/release/")
    [[ -n $changed$ALWAYS ]] || return 0
    mkdir -p "$OUT/$1"
    ssh -F "$CONFIG" "$1" "$REMOTE" < /dev/null | tar -xf - -C "$OUT/$1"
}
export -f board
xargs -a "$4" -P 1000 -I '{}' bash -c 'board {}'
