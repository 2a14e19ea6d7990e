#!/usr/bin/env bash
# Check everything: style, types, shell scripts, and every test. Prepares what it needs, given Python 3.11 or newer.
#
#   bash tests/run.sh                    all of it
#   bash tests/run.sh -k sessions -x     the same, with arguments for pytest; `-n 0` runs one test at a time
#
# Stops at the first section that fails and says which one it was. The last line is pytest's.

set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

PYTHON=.venv/bin/python
passed=()

section() { # section NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    if ! "$@"; then
        printf '\n== FAILED: %s. Passed before it: %s.\n' "$name" "${passed[*]-nothing}" >&2
        exit 1
    fi
    passed+=("[$name]")
}

sources=()
for source in backend tools config.py tools_config.py server.py tools_server.py create_user_direct.py; do
    if [[ -e $source ]]; then sources+=("$source"); fi
done

section "Preparing .venv" bash start_servers.sh --install tests/requirements.txt tests/requirements-clients.txt
printf '\n== Preparing nanocoder\n'
if ! bash start_servers.sh --install-nanocoder; then # it comes from another registry than all the rest
    printf 'nanocoder cannot be had here: its tests are skipped.\n'
fi
printf '\n== Preparing Marp, a browser and fonts\n'
if ! bash start_servers.sh --install-slides; then
    printf 'Not all of them can be had here: the tests that need them are skipped.\n'
fi
if ! command -v soffice >/dev/null; then
    printf 'LibreOffice is not installed: the tests that open slides with it are skipped.\n'
fi
printf '\n== Preparing clients that have environments of their own\n'
"$PYTHON" -m tests.e2e.clients.installed # it says which cannot be had
section "ruff check" "$PYTHON" -m ruff check .
section "ruff format" "$PYTHON" -m ruff format --check .
section "mypy" "$PYTHON" -m mypy "${sources[@]}"
section "shellcheck" .venv/bin/shellcheck start_servers.sh tests/run.sh .ci/run

printf '\n== pytest, after %s\n' "${passed[*]}"
for setting in $("$PYTHON" -c 'from config import Settings; print(*Settings.model_fields)'); do
    unset "$setting" # the tests choose their own
done
# Three at once, since they mostly wait: for sockets, processes and deadlines. What fails is tried once more and then told
# as a rerun: thousands of tests with real processes and clocks meet a machine that stands still now and then.
exec "$PYTHON" -m pytest -n 3 --dist loadfile --reruns 1 -r R --tb=native "$@"
