#!/usr/bin/env bash
# Builds the firmware so that its bytes depend on the sources and the compiler alone.
#
#   build.sh                 with the pinned compiler, into firmware/prebuilt (ELF, checksum, manifest)
#   build.sh --to FOLDER     the same, elsewhere
#   build.sh --any --to F    with whatever compiler cargo finds; not comparable with the prebuilt
#
# Paths, the folder names of fetched dependencies, build ids and symbols would differ between machines: they are
# remapped, replaced (see rustc.sh) or left out.
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd -P)
source=$(dirname "$scripts")
root=$(dirname "$source")
target=riscv64gc-unknown-none-elf
out=$source/prebuilt
any=no
while [ $# -gt 0 ]; do
  case $1 in
    --any) any=yes ;;
    --to) shift; out=$1 ;;
    *) echo "build.sh: unknown option $1 (see the head of the file)" >&2; exit 2 ;;
  esac
  shift
done

if [ "$any" = no ]; then
  environment=$("$scripts/toolchain.sh")
  . "$environment"
fi

target_dir=${CARGO_TARGET_DIR:-$root/target}/firmware
# A compiler's libraries can change without cargo noticing: each compiler gets its own folder.
compiler=$("${RUSTC:-rustc}" -vV)
target_dir+=/$(printf '%s' "$compiler" | sha256sum | cut -c1-12)
cargo_home=${CARGO_HOME:-$HOME/.cargo}

( cd "$source" && cargo fetch --quiet --locked --target "$target" ) >&2

# The flags that shape the output, then those that only hide this machine's paths (of which the last match wins).
shaping=(-Clink-arg=-Tfw/link.ld -Clink-arg=--build-id=none -Cstrip=symbols)
hiding=("--remap-path-prefix=$root=/presil" "--remap-path-prefix=$cargo_home=/cargo" "--remap-path-prefix=$target_dir=/target")
for folder in "$cargo_home"/registry/src/*/; do
  [ -d "$folder" ] && hiding+=("--remap-path-prefix=${folder%/}=/dependencies")
done
flags=$(IFS=$'\037'; printf '%s' "${shaping[*]}"$'\037'"${hiding[*]}")

( cd "$source" &&
  env -u RUSTFLAGS RUSTC_WRAPPER="$scripts/rustc.sh" CARGO_ENCODED_RUSTFLAGS="$flags" CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH=0 \
    cargo build --quiet --locked --release --package fw --target "$target" --target-dir "$target_dir" ) >&2

# One hash over everything of ours that reaches the ELF.
sources() {
  cd "$root"
  find firmware isa -type f \( -name '*.rs' -o -name '*.ld' -o -name '*.S' -o -name Cargo.toml -o -name Cargo.lock \) \
    -not -path '*/target/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}

mkdir -p "$out"
install -m 644 "$target_dir/$target/release/fw" "$out/firmware.elf.new"
mv "$out/firmware.elf.new" "$out/firmware.elf"
sum=$(sha256sum < "$out/firmware.elf" | cut -d' ' -f1)
printf '%s  firmware.elf\n' "$sum" > "$out/firmware.elf.sha256"
{
  printf '# Made by firmware/scripts/build.sh together with firmware.elf; do not edit.\n\n[compiler]\n'
  if [ "$any" = no ]; then "$scripts/toolchain.sh" --pins; fi
  printf 'version = "%s"\nllvm = "%s"\n' "$(sed -n 1p <<<"$compiler")" "$(sed -n 's/^LLVM version: //p' <<<"$compiler")"
  printf '\n[build]\nprofile = "release"\nflags = ['
  printf '"%s", ' "${shaping[@]}" | sed 's/, $//'
  printf ']\nsources-sha256 = "%s"\n' "$( (sources) | sha256sum | cut -d' ' -f1)"
  printf '\n[output]\nbytes = %s\nsha256 = "%s"\n' "$(stat -c %s "$out/firmware.elf")" "$sum"
} > "$out/manifest.toml.new"
mv "$out/manifest.toml.new" "$out/manifest.toml"
printf '%s  %s\n' "$sum" "$out/firmware.elf"
