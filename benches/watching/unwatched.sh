#!/usr/bin/env bash
# What cargo starts in place of rustc for the packages of this workspace (RUSTC_WORKSPACE_WRAPPER): the library without its stats and
# events. The dependencies are built once for both. It is bash because other shells drop the variables that cargo names with a hyphen.
exec "$@" --cfg sockeye_unwatched
