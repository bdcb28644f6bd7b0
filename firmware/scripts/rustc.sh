#!/usr/bin/env bash
# Between cargo and rustc: a crate's symbols carry a hash that cargo makes from where the crate lies, if that is outside
# the workspace (as isa/ is). The crate's name takes its place, so that the ELF does not depend on the folder.
set -euo pipefail

crate=
previous=
for argument in "$@"; do
  if [ "$previous" = --crate-name ]; then crate=$argument; fi
  previous=$argument
done

arguments=()
for argument in "$@"; do
  if [ -n "$crate" ] && [[ $argument == metadata=* ]]; then argument=metadata=presil-$crate; fi
  arguments+=("$argument")
done
exec "${arguments[@]}"
