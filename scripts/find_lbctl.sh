# shellcheck shell=sh
# Sets `lbctl` to the program: $LBCTL, else the one on PATH, else what was built here.

find_lbctl() {
    root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
    for candidate in "${LBCTL:-}" "$(command -v lbctl || true)" \
        "$root/target/release/lbctl" "$root/target/debug/lbctl"; do
        # shellcheck disable=SC2034 # read by the scripts that source this one
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            lbctl=$candidate
            return
        fi
    done
    echo "error: there is no lbctl on PATH or in $root/target; build it with 'cargo build --release', or name it in LBCTL" >&2
    exit 1
}
