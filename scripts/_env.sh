# Sourced by the scripts: creates the virtual environment `.venv` if it is missing or
# out of date, with clear errors if that fails.

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate version
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null 2>&1 || fail "PYTHON=$PYTHON is not an executable."
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case "$version" in
      3.11 | 3.12 | 3.13)
        printf '%s\n' "$candidate"
        return
        ;;
    esac
  done
  fail "no Python 3.11, 3.12 or 3.13 found; TensorFlow 2.21 needs one of them. Here python3 is $(python3 --version 2>&1). Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# make_env EXTRA: installs monolith_tf[EXTRA] (no extra if EXTRA is empty) into .venv,
# pinned by constraints.txt. A checksum of the inputs skips repeated installations.
make_env() {
  local extra=$1 target=. python version stamp sum free_kib
  cd "$ROOT" || exit 1
  [ -z "$extra" ] || target=".[$extra]"
  stamp=".venv/.installed${extra:+-$extra}"
  if [ -x .venv/bin/python ]; then
    python=.venv/bin/python
  else
    python=$(find_python) || exit 1
  fi
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    fail ".venv is broken; remove it and run this again."
  case "$version" in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$python is Python $version; TensorFlow 2.21 needs 3.11, 3.12 or 3.13. Name one: PYTHON=/path/to/python3.12 $0 (remove .venv first if it is there)." ;;
  esac
  sum=$(cat constraints.txt setup.py pyproject.toml scripts/_env.sh | cksum)
  sum="$sum $version $ROOT"
  if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then
    return
  fi
  free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
  if [ "${free_kib:-0}" -lt 4000000 ]; then
    fail "$((free_kib / 1024)) MiB are free here; the installation needs about 4 GB. Free some space and run this again."
  fi
  if [ ! -x .venv/bin/python ]; then
    printf 'Creating .venv with Python %s ...\n' "$version"
    "$python" -m venv .venv ||
      fail "'$python -m venv' failed; on Debian and Ubuntu, install the package python$version-venv. Then remove .venv and run this again."
  fi
  printf 'Installing %s (about 700 MB to download the first time) ...\n' "monolith_tf${extra:+[$extra]}"
  if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable "$target" 2>.venv/pip.log; then
    tail -n 15 .venv/pip.log >&2
    if grep -qiE 'No space left|Errno 28' .venv/pip.log; then
      fail "the disk is full. Free some space and run this again."
    elif grep -qiE 'Temporary failure in name resolution|Failed to establish a new connection|Could not fetch URL|Connection (refused|reset|timed out)|NewConnectionError|ReadTimeout|ProxyError|SSLError' .venv/pip.log; then
      fail "cannot reach the package registry. Check the network, or the proxy and index settings of pip (pip config list), and run this again."
    fi
    fail "pip could not install; its last lines are above, all of them in .venv/pip.log."
  fi
  printf '%s' "$sum" >"$stamp"
}
