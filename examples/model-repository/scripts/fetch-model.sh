#!/usr/bin/env bash
# Fetches the model that a model.yaml names, and verifies its digest.
#
#   scripts/fetch-model.sh deploy/staging/model.yaml new.onnx
set -euo pipefail
uri=$(sed -n 's/^ *uri: *//p' "$1")
digest=$(sed -n 's/^ *sha256: *//p' "$1")
curl --fail --silent --show-error --location --retry 3 --output "$2" "$uri"
echo "$digest  $2" | sha256sum --check --quiet
