#!/usr/bin/env bash
# Runs l0-python's own test suite, from its source distribution on PyPI, on l0fast under the name l0.
#   tests/run_peer_tests.sh PYTHON       (make peer-tests)
set -euo pipefail
python=$(realpath -s "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$python" -m pip download -q --no-deps --no-build-isolation --no-binary :all: l0-python==0.6.2
tar xzf l0_python-0.6.2.tar.gz --strip-components 1 l0_python-0.6.2/tests  # the tests alone: no package named l0 here
cat > conftest.py <<'PY'
import l0fast

l0fast.install_as_l0()
import l0

assert l0.__file__ == l0fast.__file__
PY
PYTHONPATH="$here" "$python" -m pytest -q -p no:cacheprovider tests
