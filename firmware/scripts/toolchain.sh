#!/usr/bin/env bash
# The pinned compiler for firmware: Debian's Rust, unpacked privately, with core and alloc built for the bare target.
#
#   toolchain.sh            make the toolchain if needed, print the path of a file to source (RUSTC and linker)
#   toolchain.sh --pins     print what is pinned, as TOML
#
# Why this one: prebuilt/firmware.elf must come out byte for byte the same on any machine, so compiler, LLVM and the
# build of core are all pinned. Installs nothing system-wide (the packages would conflict with a rustup or Debian
# installation): they are downloaded and unpacked into a cache. Needs apt-get and dpkg with access to the packages,
# and any recent cargo. Exits 3 if the pinned packages cannot be had.
set -euo pipefail

rust=1.96.0
rust_package=1.96.0+dfsg1-1~deb12u2
llvm_package='1:22.1.8-1~deb12u1'
target=riscv64gc-unknown-none-elf
packages=(
  "rustc-web=$rust_package" "libstd-rust-web-dev=$rust_package" "libstd-rust-web-1.96=$rust_package"
  "rust-web-src=$rust_package" "libllvm22=$llvm_package" "lld-22=$llvm_package"
)
separator=$(printf '\037')

if [ "${1:-}" = --pins ]; then
  printf 'rustc = "%s"\nrustc-package = "%s"\nllvm-package = "%s"\ntarget = "%s"\n' \
    "$rust" "$rust_package" "$llvm_package" "$target"
  exit 0
fi

cache=${FIRMWARE_TOOLCHAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/presil/firmware-toolchain}
home=$cache/$rust_package
say() { printf 'toolchain: %s\n' "$*" >&2; }

download() { # FOLDER
  ( cd "$1" && apt-get -qq download "${packages[@]}" ) >&2
}

fetch() { # FOLDER: the packages, after a refresh of apt's index where it does not know them yet
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || { say "no apt-get or dpkg here"; return 1; }
  download "$1" 2>/dev/null && return 0
  say "refreshing the package index"
  apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || say "the index could not be refreshed"
  download "$1"
}

unpack() { # DEBS FOLDER
  local deb
  for deb in "$1"/*.deb; do
    case $deb in
      # Only the standard library's source, not the compiler's.
      */rust-web-src_*)
        dpkg --fsys-tarfile "$deb" | tar -x -C "$2" ./usr/lib/rustlib/src "./usr/src/rustc-$rust/library" ;;
      *) dpkg -x "$deb" "$2" ;;
    esac
  done
}

wrappers() { # FOLDER: programs that find their own libraries without an exported search path
  cat > "$1/rustc" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu exec "$here/usr/bin/rustc" "$@"
WRAPPER
  cat > "$1/ld.lld" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu:$here/usr/lib/llvm-22/lib exec "$here/usr/lib/llvm-22/bin/ld.lld" "$@"
WRAPPER
  chmod +x "$1/rustc" "$1/ld.lld"
}

# Builds core and alloc once, offline, from the vendored sources. With bitcode, since firmware is linked with fat LTO.
standard_library() { # FOLDER
  local work=$1/core-build usr=$1/usr flags
  mkdir -p "$work/src"
  printf '#![no_std]\n' > "$work/src/lib.rs"
  cat > "$work/Cargo.toml" <<'MANIFEST'
[package]
name = "core-build"
version = "0.0.0"
edition = "2021"

[workspace]

[profile.release]
opt-level = 3
codegen-units = 1
panic = "abort"
MANIFEST
  flags="--remap-path-prefix=$usr/lib/rustlib/src/rust=/rustc/core"
  flags+="$separator--remap-path-prefix=$usr/src/rustc-$rust=/rustc/core${separator}-Cembed-bitcode=yes"
  ( cd "$work" && RUSTC="$1/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/target" CARGO_ENCODED_RUSTFLAGS="$flags" \
    cargo build --quiet --offline --release -Z build-std=core,alloc --target "$target" \
      --config 'source.crates-io.replace-with="vendored"' \
      --config "source.vendored.directory=\"$usr/src/rustc-$rust/library/vendor\"" ) >&2
  local destination=$usr/lib/rustlib/$target/lib
  mkdir -p "$destination"
  cp "$work/target/$target/release/deps/"lib{core,alloc,compiler_builtins}-*.rlib "$destination"
  rm -rf "$work"
}

if [ ! -e "$home/complete" ]; then
  mkdir -p "$cache"
  exec 9> "$cache/lock"
  flock 9
fi
if [ ! -e "$home/complete" ]; then
  debs=$(mktemp -d "$cache/debs.XXXXXX")
  trap 'rm -rf "$debs"' EXIT
  chmod 755 "$debs"
  say "downloading rustc $rust_package and LLVM $llvm_package"
  if ! fetch "$debs"; then
    say "the pinned packages cannot be had here"
    exit 3
  fi
  rm -rf "$home"
  mkdir -p "$home"
  unpack "$debs" "$home"
  wrappers "$home"
  say "building core and alloc for $target"
  standard_library "$home"
  cat > "$home/env" <<ENVIRONMENT
export RUSTC=$home/rustc
export CARGO_TARGET_RISCV64GC_UNKNOWN_NONE_ELF_LINKER=$home/ld.lld
ENVIRONMENT
  : > "$home/complete"
fi
echo "$home/env"
