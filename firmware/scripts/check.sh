#!/usr/bin/env bash
# Does firmware/prebuilt/firmware.elf follow from the sources? Rebuilds with the pinned compiler and compares bytes.
#
# Where the pinned compiler cannot be had, the sources are still built with any compiler that has the target, the
# prebuilt is run on a small chip, and the missing comparison is said aloud. Exits 1 on a difference.
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd -P)
source=$(dirname "$scripts")
prebuilt=$source/prebuilt
target=riscv64gc-unknown-none-elf
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
say() { printf 'firmware: %s\n' "$*"; }

[ -f "$source/Cargo.toml" ] || { say "no workspace at firmware/"; exit 1; }
for file in firmware.elf firmware.elf.sha256 manifest.toml; do
  [ -f "$prebuilt/$file" ] || { say "prebuilt/$file is missing: run firmware/scripts/build.sh"; exit 1; }
done
( cd "$prebuilt" && sha256sum --quiet -c firmware.elf.sha256 ) || { say "prebuilt/firmware.elf is not the one its checksum names"; exit 1; }

status=0
"$scripts/toolchain.sh" > "$scratch/environment" || status=$?
if [ "$status" = 0 ]; then
  "$scripts/build.sh" --to "$scratch/built" > /dev/null
  if ! cmp "$scratch/built/firmware.elf" "$prebuilt/firmware.elf"; then
    say "the prebuilt does not follow from the sources: run firmware/scripts/build.sh and commit prebuilt/"
    diff -u "$prebuilt/manifest.toml" "$scratch/built/manifest.toml" || true
    exit 1
  fi
  say "rebuilt with the pinned compiler, $(stat -c %s "$prebuilt/firmware.elf") bytes equal"
  exit 0
fi
[ "$status" = 3 ] || { say "the pinned toolchain failed to build (status $status)"; exit 1; }

library=$(rustc --print target-libdir --target "$target" 2>/dev/null || true)
if compgen -G "$library/libcore-*.rlib" > /dev/null; then
  "$scripts/build.sh" --any --to "$scratch/built" > /dev/null
  say "sources build with $(rustc --version)"
else
  say "no compiler for $target here: sources not built"
fi
cd "$scripts/../.."
cargo run --quiet --release -- run --soc tiny --model qwen2.5-1.5b --prefill 16 --decode 2 \
  --firmware "$prebuilt/firmware.elf" --json > "$scratch/run.json"
say "the prebuilt runs"
say "byte comparison NOT done: the pinned compiler cannot be had here"
