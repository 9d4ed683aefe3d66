# Shared by the scripts in tools and .ci: source it, then call what a script needs. Every function may be called again and again.
# shellcheck shell=bash

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"

# Prints a step, so that a log says what it is doing.
say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# need_packages NAME...: installs the Debian packages that are missing, or says how to.
need_packages() {
    if ! command -v dpkg >/dev/null; then
        if command -v brew >/dev/null; then
            brew list lmdb zstd xxhash libsodium >/dev/null 2>&1 ||
                fail "missing libraries; run: brew install lmdb zstd xxhash libsodium"
        fi
        # Elsewhere the compiler says which header it does not find.
        return 0
    fi
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        fail "missing packages; run: sudo apt-get install -y ${missing[*]}"
    fi
    say "apt-get install ${missing[*]}"
    # A machine that never asked has no package lists yet.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null ||
        { as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null; } ||
        fail "the packages ${missing[*]} could not be installed"
}

# as_root COMMAND...: runs it as root, if that needs no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need_libraries: the C libraries that the package links.
need_libraries() {
    need_packages liblmdb-dev libzstd-dev libxxhash-dev libsodium-dev zlib1g-dev pkg-config
}

# need_swift: a compiler that knows the package's tools version.
need_swift() {
    command -v swift >/dev/null || fail "swift is not installed; Swift 6.3 or later is needed: https://www.swift.org/install"
    local version
    version="$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)"
    if [ "$(printf '%s\n6.3\n' "${version:-0}" | sort -V | head -n 1)" != 6.3 ]; then
        fail "Swift ${version:-of an unknown version} is too old; 6.3 or later is needed: https://www.swift.org/install"
    fi
}

# need_python: a virtual environment at .venv with the pinned packages; sets $python.
need_python() {
    command -v python3 >/dev/null || need_packages python3
    local wanted
    wanted="$(cksum <tools/lib/requirements.txt)"
    if [ "$(cat .venv/requirements.cksum 2>/dev/null)" != "$wanted" ]; then
        say "Python packages into .venv"
        # Debian keeps the module that makes virtual environments in a package of its own.
        python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
        python3 -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement tools/lib/requirements.txt
        printf '%s\n' "$wanted" >.venv/requirements.cksum
    fi
    # shellcheck disable=SC2034 # for the script that sources this one
    python="$root/.venv/bin/python"
}

# library_path: builds libreelkv.so, and prints where it lies.
library_path() {
    tools/library | tail -n 1 | sed 's/  [0-9]* bytes$//'
}

# need_models: a virtual environment at .venv-models with torch, transformers and what else runs real models; sets $models_python.
need_models() {
    command -v python3 >/dev/null || need_packages python3
    local wanted
    wanted="$(cat tools/lib/requirements-models*.txt tools/lib/torchvision_operators.py | cksum)"
    models_python="$root/.venv-models/bin/python"
    [ "$(cat .venv-models/requirements.cksum 2>/dev/null)" = "$wanted" ] && return 0
    say "Python packages for real models into .venv-models"
    python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
    python3 -m venv --clear .venv-models
    local pip=("$models_python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" --requirement tools/lib/requirements-models.txt
    "${pip[@]}" --no-deps --requirement tools/lib/requirements-models-alone.txt
    if ! "$models_python" -c 'import torchvision' 2>/dev/null; then
        local packages
        packages="$("$models_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
        cp tools/lib/torchvision_operators.py "$packages"
        echo 'import torchvision_operators' >"$packages/torchvision_operators.pth"
        "$models_python" -c 'import torchvision'
    fi
    printf '%s\n' "$wanted" >.venv-models/requirements.cksum
}

# need_clip: a clip of a street, from Debian's package of OpenCV's samples, at .venv-models/vtest.avi; sets $clip, unless it is set.
need_clip() {
    [ -n "${clip:-}" ] && return 0
    clip="$root/.venv-models/vtest.avi"
    [ -f "$clip" ] && return 0
    command -v apt-get >/dev/null || fail "the clip comes in a package of Debian's, which is not this system: name one with --clip FILE"
    say "vtest.avi from the package opencv-doc (95 MB)"
    local folder
    folder="$(mktemp -d)"
    (
        cd "$folder"
        chmod 755 .
        # A machine that never asked has no package lists yet.
        apt-get download -qq opencv-doc 2>/dev/null || { as_root apt-get update -qq && apt-get download -qq opencv-doc; }
        dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar --extract --wildcards --to-stdout '*/vtest.avi' >vtest.avi
    ) || { rm -rf "$folder" && fail "the package opencv-doc could not be had: name a clip with --clip FILE"; }
    mv "$folder/vtest.avi" "$clip"
    rm -rf "$folder"
}

# need_standin: a video language model made of SmolLM2 and DINOv2, at .venv-models/smollm2-dinov2; sets $standin. After need_models.
need_standin() {
    local wanted
    wanted="$(cat tools/standin/*.py tools/fixtures/clip.py tools/fixtures/language.py .venv-models/requirements.cksum | cksum)"
    standin="$root/.venv-models/smollm2-dinov2"
    [ "$(cat "$standin/sources.cksum" 2>/dev/null)" = "$wanted" ] && return 0
    need_clip
    say "a model of SmolLM2-135M-Instruct and DINOv2-S into .venv-models"
    PYTHONPATH=tools:tools/fixtures "$models_python" -m standin "$standin" --clip "$clip"
    printf '%s\n' "$wanted" >"$standin/sources.cksum"
}

# The lines that a script ends with: what each test runner said of its run. A script that calls another gives it its own file.
summary="${REELKV_SUMMARY:-}"
if [ -z "$summary" ]; then
    summary="$(mktemp)"
    trap 'rm -f "$summary"' EXIT
fi

# run_and_sum PATTERN COMMAND...: runs a test runner; the last line of its output that matches PATTERN goes into the summary.
# Returns the runner's own status.
run_and_sum() {
    local pattern="$1" log status=0
    shift
    log="$(mktemp)"
    "$@" 2>&1 | tee "$log" || status=$?
    grep -E -- "$pattern" "$log" | tail -n 1 >>"$summary" || printf 'no summary from: %s\n' "$*" >>"$summary"
    rm -f "$log"
    return "$status"
}
