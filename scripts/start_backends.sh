#!/bin/sh
# Starts a demo backend on each port and stops all of them on Ctrl-C.
#
#   scripts/start_backends.sh --ports "8001 8002 8003"
set -eu

usage() {
    echo "usage: $0 [--ports \"8001 8002 8003\"]"
}

ports="8001 8002 8003"
while [ $# -gt 0 ]; do
    case $1 in
    --ports)
        if [ $# -lt 2 ]; then
            usage >&2
            exit 2
        fi
        ports=$2
        shift 2
        ;;
    --ports=*)
        ports=${1#--ports=}
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "error: $1 is not understood" >&2
        usage >&2
        exit 2
        ;;
    esac
done

# shellcheck source=scripts/find_lbctl.sh
. "$(dirname -- "$0")/find_lbctl.sh"
find_lbctl

pids=""
stop() {
    trap - EXIT INT TERM
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    wait
}
trap stop EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM

healthy() {
    curl --silent --fail --max-time 1 --output /dev/null "http://127.0.0.1:$1/health"
}

for port in $ports; do
    "$lbctl" demo-backend --port "$port" >/dev/null &
    pid=$!
    pids="$pids $pid"
    tries=0
    until healthy "$port"; do
        # What it says about its end is on the screen already.
        if ! kill -0 "$pid" 2>/dev/null; then
            echo "error: the backend on port $port has ended; all others are stopped, too" >&2
            exit 1
        fi
        tries=$((tries + 1))
        if [ "$tries" -ge 100 ]; then
            echo "error: the backend on port $port does not answer /health" >&2
            exit 1
        fi
        sleep 0.1
    done
    # Somebody else may have answered there.
    if ! kill -0 "$pid" 2>/dev/null; then
        echo "error: port $port is taken; all backends are stopped" >&2
        exit 1
    fi
    echo "backend-$port: http://localhost:$port (pid $pid)"
done
echo "Ctrl-C stops them."
wait
