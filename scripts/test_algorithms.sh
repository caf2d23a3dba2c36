#!/bin/sh
# Tries every algorithm and prints who answered beside what was to be expected. Arguments
# go to 'lbctl test-algorithms'.
set -eu

# shellcheck source=scripts/find_lbctl.sh
. "$(dirname -- "$0")/find_lbctl.sh"
find_lbctl
exec "$lbctl" test-algorithms "$@"
