#!/bin/sh
# A Chromium on the PATH, by any of the names that validation/consumers/browser.py looks for.
set -eu
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null; then
  echo "no Chromium: install one, it is what the page of \`fastvlm-compile demo\` is tested in" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
$as_root apt-get update --quiet
$as_root apt-get install --quiet --yes --no-install-recommends chromium-headless-shell fonts-dejavu-core
